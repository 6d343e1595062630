//! How often one party may change something over HTTP, and one user read.
//!
//! Who has a credential is charged by itself, and waits for no other behind the same address. A link
//! to a login is looked at always, as a key is: what an address is limited in is failing. Users are
//! many, and known to their issuer only: each has a limit for what it reads, too.

use crate::{
    callers::Principal,
    inbound::{
        peer::Origin,
        throttle::{PeerThrottle, Throttle},
    },
    login::key_of,
};
use http::StatusCode;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Changes of one party at once, and until one more is allowed after that.
const BURST: u32 = 60;
const INTERVAL: Duration = Duration::from_secs(1);

/// Reads of one user at once, and until one more is allowed after that.
const READ_BURST: u32 = 60;
const READ_INTERVAL: Duration = Duration::from_millis(100);

/// Who is charged for a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ChangeParty {
    /// A caller and its tenant, or the subject of its token.
    Principal(Arc<str>, Option<Box<str>>),
    /// The hash of a link, good or not.
    Link(String),
}

impl ChangeParty {
    /// Who sends a request without a credential has a `link`.
    pub(super) fn of(principal: Option<&Principal>, link: &str) -> Self {
        let Some(principal) = principal else { return Self::Link(key_of(link)) };
        let subject = principal.proof.subject().map(Into::into);
        let tenant = principal.tenant.as_ref().map(|tenant| tenant.as_str().into());
        Self::Principal(principal.caller.name.clone(), tenant.or(subject))
    }
}

/// What each has changed of late.
#[derive(Debug)]
pub(super) struct Writers {
    known: Throttle<ChangeParty>,
    /// By address.
    failed_links: PeerThrottle,
    /// Sign-ins begun at an OpenID provider, by address.
    #[cfg_attr(not(feature = "dashboard"), expect(dead_code, reason = "no page is built in"))]
    sign_ins: PeerThrottle,
    /// What each user reads, by issuer and subject.
    reads: Throttle<(Arc<str>, Box<str>)>,
}

impl Writers {
    pub(super) fn new() -> Self {
        let failed_links = PeerThrottle::new(BURST, INTERVAL);
        let reads = Throttle::new(READ_BURST, READ_INTERVAL);
        let sign_ins = PeerThrottle::new(BURST, INTERVAL);
        Self { known: Throttle::new(BURST, INTERVAL), failed_links, sign_ins, reads }
    }

    /// Charges the start of a sign-in at an OpenID provider to its address.
    ///
    /// # Errors
    /// How long until one more is allowed.
    #[cfg(feature = "dashboard")]
    pub(super) fn sign_in(&self, origin: Option<Origin>, now: Instant) -> Result<(), Duration> {
        self.sign_ins.take(origin, now)
    }

    /// Charges a request that reads to the user that sends it; operators read as much as they like.
    ///
    /// # Errors
    /// How long until one more is allowed.
    pub(super) fn read(&self, principal: &Principal, now: Instant) -> Result<(), Duration> {
        match principal.proof.subject() {
            Some(subject) if !principal.is_operator() => {
                self.reads.take(Some((principal.caller.name.clone(), subject.into())), now)
            }
            _ => Ok(()),
        }
    }

    /// Charges a request before it is handled, unless it has a link only.
    ///
    /// # Errors
    /// How long until one more is allowed.
    pub(super) fn begin(&self, writer: &ChangeParty, now: Instant) -> Result<(), Duration> {
        match writer {
            ChangeParty::Principal(..) => self.known.take(Some(writer.clone()), now),
            ChangeParty::Link(_) => {
                self.known.exhausted(Some(writer.clone()), now).map_or(Ok(()), Err)
            }
        }
    }

    /// Charges a request with a link: itself if it was good, else the address.
    ///
    /// # Errors
    /// How long until the failures of the address are answered as such again.
    pub(super) fn end(
        &self,
        writer: ChangeParty,
        origin: Option<Origin>,
        status: StatusCode,
        now: Instant,
    ) -> Result<(), Duration> {
        match writer {
            ChangeParty::Link(_) if status.is_client_error() => self.failed_links.take(origin, now),
            // Asked before; what came at the same moment is let through.
            ChangeParty::Link(_) if !status.is_server_error() => {
                self.known.take(Some(writer), now).or(Ok(()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        callers::{Caller, Proof},
        config::RulesConfig,
    };
    use std::iter;

    const GONE: StatusCode = StatusCode::GONE;

    fn operator(name: &str) -> ChangeParty {
        ChangeParty::Principal(name.into(), None)
    }

    fn link(text: &str) -> ChangeParty {
        ChangeParty::of(None, text)
    }

    /// How many requests of `writer` are let through at once, if they end with `status`.
    fn allowed(writers: &Writers, writer: &ChangeParty, status: StatusCode, now: Instant) -> usize {
        let origin = Some(Origin::User(1));
        let allow = || writers.begin(writer, now).is_ok();
        let requests = iter::repeat_with(|| {
            allow() && writers.end(writer.clone(), origin, status, now).is_ok()
        });
        requests.take(200).filter(|allowed| *allowed).count()
    }

    #[test]
    fn each_caller_tenant_and_good_link_is_limited_by_itself() {
        let (writers, now) = (Writers::new(), Instant::now());
        let of_tenant = |tenant: &str| ChangeParty::Principal("clerk".into(), Some(tenant.into()));
        for writer in [operator("a"), operator("b"), of_tenant("t1"), of_tenant("t2"), link("x")] {
            assert_eq!(allowed(&writers, &writer, StatusCode::OK, now), 60, "{writer:?}");
            assert_eq!(allowed(&writers, &writer, StatusCode::OK, now), 0, "{writer:?}");
        }
    }

    #[test]
    fn links_that_are_wrong_use_up_nothing_but_the_mistakes_of_their_address() {
        let (writers, now) = (Writers::new(), Instant::now());
        let wrong = (0..200)
            .filter(|number| allowed(&writers, &link(&format!("wrong{number}")), GONE, now) > 0);
        assert_eq!(wrong.count(), 1, "one has used up those of all");
        assert!(writers.begin(&link("good"), now).is_ok(), "it is looked at all the same");
        assert_eq!(allowed(&writers, &link("good"), StatusCode::OK, now), 60);
        assert_eq!(allowed(&writers, &operator("a"), GONE, now), 60);
        assert!(writers.end(link("y"), Some(Origin::User(1)), GONE, now).is_err());
        assert!(writers.end(link("y"), Some(Origin::User(2)), GONE, now).is_ok());
    }

    #[test]
    fn what_one_user_reads_is_limited_and_an_operators_reading_is_not() {
        let reads = |writers: &Writers, issuer: &str, user: Proof, operator: bool, now| {
            let rules = RulesConfig { operator, ..RulesConfig::default() };
            let caller = Arc::new(Caller::new(issuer, &rules));
            let principal = Principal::new(caller, user, None, None);
            (0..500).filter(|_| writers.read(&principal, now).is_ok()).count()
        };
        let (writers, now) = (Writers::new(), Instant::now());
        let token = |subject: &str| Proof::Token { subject: subject.into(), session: None };
        let id = || "aaaaaaaa".parse().expect("an id");
        let session =
            |subject: Option<&str>| Proof::Session { id: id(), subject: subject.map(Into::into) };
        assert_eq!(reads(&writers, "clerk", token("u1"), false, now), 60);
        assert_eq!(reads(&writers, "clerk", session(Some("u1")), false, now), 0, "the same user");
        assert_eq!(reads(&writers, "clerk", token("u2"), false, now), 60, "another");
        assert_eq!(reads(&writers, "other", token("u1"), false, now), 60, "of another issuer");
        let later = now + Duration::from_secs(1);
        assert_eq!(reads(&writers, "clerk", token("u1"), false, later), 10);
        assert_eq!(reads(&writers, "clerk", token("boss"), true, now), 500);
        for known in [Proof::Key(id()), session(None)] {
            assert_eq!(reads(&writers, "reports", known, false, now), 500, "of the configuration");
        }
    }
}

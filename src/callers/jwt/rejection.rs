//! Why a JWT is rejected: for the log only, and there once a minute for each cause.

use crate::named::named;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// A cause is logged at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

named! {
    /// Why a JWT is rejected. The caller gets one text for all of them.
    pub enum JwtRejection {
        TooLong = "it is longer than 8 KiB",
        Malformed = "it is not three parts of base64url, two of them JSON objects, each member once",
        ForbiddenHeader = "its header brings or names a key, or a critical extension (jwk, jku, x5u, x5c, crit)",
        Type = "its header says that it is no access or session token (typ)",
        UnknownIssuer = "its issuer (iss) is not configured",
        Algorithm = "its algorithm (alg) is not one of the issuer's `algorithms`",
        UnknownKey = "the issuer publishes no key, or more than one, of its key id (kid) and algorithm",
        Signature = "its signature is not the issuer's",
        Expired = "it has expired, or has no time of expiry in whole seconds (exp)",
        NotYetValid = "it is from the future (nbf, iat): compare the clocks",
        Audience = "it is for another audience (aud): see `audience`",
        AuthorizedParty = "it was made for another party, or names none (azp): see `authorized_parties` and `require_azp`",
        Session = "it belongs to no active session (sid, sts): see `require_sid`",
        Subject = "it has no subject (sub) of 1 to 255 printable characters",
        Tenant = "none of the claims of `tenant_claim` is there, or the first that is there is not 1 to 64 letters, digits, '.', '_' or '-'",
        Nonce = "its nonce is not that of the sign-in",
        Authentication = "the provider did not authenticate the person again (auth_time)",
        ForeignTenant = "its tenant is none of the issuer's `tenants`",
    }
}

/// When each cause was logged last, for one issuer.
#[derive(Debug, Default)]
pub(super) struct RejectionLog(Mutex<[Option<Instant>; JwtRejection::ALL.len()]>);

impl RejectionLog {
    /// Logs that a token of `issuer` was rejected, if that was not logged within the last minute.
    pub(super) fn report(&self, issuer: Option<&str>, cause: JwtRejection, now: Instant) {
        if self.is_due(cause, now) {
            tracing::warn!(issuer, %cause, "a JWT was rejected (logged once a minute)");
        }
    }

    fn is_due(&self, cause: JwtRejection, now: Instant) -> bool {
        let last = &mut self.0.lock()[cause as usize];
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= LOG_INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_logged_once_a_minute() {
        let (log, start) = (RejectionLog::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(log.is_due(JwtRejection::Expired, at(0)));
        assert!(!log.is_due(JwtRejection::Expired, at(59)));
        assert!(log.is_due(JwtRejection::Tenant, at(59)));
        assert!(log.is_due(JwtRejection::Expired, at(60)));
    }
}

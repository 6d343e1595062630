//! Who has signed in to the dashboard: what is kept of it, and what pages call it.

use super::cookie::TAG_LEN;
use crate::{
    callers::{Principal, Proof, key::KeyId, sessions::SessionUser},
    id::Tenant,
    login::key_of,
};
use serde::{Deserialize, Serialize};

/// Who has signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum VisitorIdentity {
    /// A user of the machine who reaches the control socket, by a link.
    User { uid: u32 },
    /// A key of the configuration.
    Key { id: KeyId },
    /// The bearer of a token of the issuer `name`.
    Bearer { name: String, user: SessionUser, tenant: Option<Tenant> },
    /// A user of the issuer `name` listed in `dashboard.oidc.operators`.
    Operator { name: String, user: SessionUser },
}

impl VisitorIdentity {
    /// Who the `principal` of a sign-in is; none for one that the dashboard is not for.
    pub(super) fn of(principal: &Principal, issuer: Option<String>) -> Option<Self> {
        if !principal.is_operator() && principal.tenant.is_none() {
            return None;
        }
        match &principal.proof {
            Proof::Key(id) => Some(Self::Key { id: *id }),
            Proof::Token { subject, .. } => Some(Self::Bearer {
                name: principal.caller.name.to_string(),
                user: SessionUser { subject: subject.to_string(), issuer: issuer? },
                tenant: principal.tenant.clone(),
            }),
            _ => None,
        }
    }

    /// What pages call it; `principal` is what it is now.
    pub(super) fn name(&self, principal: Option<&Principal>) -> String {
        match self {
            Self::User { uid } => format!("user {uid} of this machine"),
            Self::Key { id } => principal.map_or_else(
                || format!("adsk_{id}"),
                |principal| format!("{} (adsk_{id})", principal.caller.name),
            ),
            Self::Bearer { name, user, .. } | Self::Operator { name, user } => {
                format!("{} ({name})", user.subject)
            }
        }
    }

    /// What the names of its sessions begin with.
    pub(super) fn tag(&self) -> String {
        let mut tag = key_of(&serde_json::to_string(self).expect("it is plain JSON"));
        tag.truncate(TAG_LEN);
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_visitor_has_a_tag_of_its_own() {
        let user = SessionUser { subject: "a".to_owned(), issuer: "https://x".to_owned() };
        let of = |tenant: Option<&str>| VisitorIdentity::Bearer {
            name: "op".to_owned(),
            user: user.clone(),
            tenant: tenant.map(|it| it.parse().expect("a tenant")),
        };
        let operator = VisitorIdentity::Operator { name: "op".to_owned(), user: user.clone() };
        let all = [of(None), of(Some("a")), of(Some("b")), operator];
        let tags: std::collections::BTreeSet<_> = all.iter().map(VisitorIdentity::tag).collect();
        assert_eq!(tags.len(), all.len());
        assert!(tags.iter().all(|tag| tag.len() == TAG_LEN));
    }
}

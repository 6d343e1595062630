//! One account from the environment, in the variables that the usual clients read.

use super::fields::{Collector, Draft, Field};
use crate::config::environment::Environment;
use anyhow::bail;

/// The variables of one client.
pub(super) struct Family {
    refresh_token: &'static str,
    pub(super) client_id: &'static str,
    pub(super) client_secret: &'static str,
    profile_id: &'static str,
}

/// python-amazon-ad-api's, and Amazon's own names, which adsproxy's configuration knows too.
pub(super) const FAMILIES: [Family; 2] = [
    Family {
        refresh_token: "AD_API_REFRESH_TOKEN",
        client_id: "AD_API_CLIENT_ID",
        client_secret: "AD_API_CLIENT_SECRET",
        profile_id: "AD_API_PROFILE_ID",
    },
    Family {
        refresh_token: "AMAZON_REFRESH_TOKEN",
        client_id: "AMAZON_CLIENT_ID",
        client_secret: "AMAZON_CLIENT_SECRET",
        profile_id: "AMAZON_PROFILE_ID",
    },
];

/// What python-amazon-ad-api takes for a marketplace if its caller names none.
pub(super) const MARKETPLACE: &str = "AD_API_DEFAULT_MARKETPLACE";

/// The family whose refresh token is set.
pub(super) fn family(environment: &Environment) -> anyhow::Result<&'static Family> {
    let set = |family: &&Family| environment.non_empty(family.refresh_token).is_some();
    match FAMILIES.iter().filter(set).collect::<Vec<_>>()[..] {
        [family] => Ok(family),
        [] => {
            let names = FAMILIES.map(|family| family.refresh_token).join(" nor ");
            let hint = FAMILIES
                .iter()
                .filter(|family| environment.non_empty(family.client_secret).is_some())
                .map(|family| {
                    let Family { client_id, client_secret, .. } = family;
                    format!(
                        "; ${client_id} and ${client_secret} are an application and no account: it \
                         is configured with client_secret = {{ env = \"{client_secret}\" }} under \
                         [lwa]"
                    )
                });
            bail!(
                "neither {names} is set: there is no account to import{}",
                hint.collect::<String>()
            )
        }
        _ => bail!(
            "both {} and {} are set: unset the one that is not to be imported",
            FAMILIES[0].refresh_token,
            FAMILIES[1].refresh_token,
        ),
    }
}

/// The account in the environment.
pub(super) fn draft(environment: &Environment, family: &Family) -> Draft {
    let mut collector = Collector::default();
    let client_id = environment.non_empty(family.client_id);
    let client_secret = environment.non_empty(family.client_secret);
    let values = [
        (Field::RefreshToken, environment.get(family.refresh_token)),
        (Field::ClientId, client_id),
        (Field::ClientSecret, client_secret),
        (Field::ProfileId, environment.get(family.profile_id)),
    ]
    .into_iter()
    .filter_map(|(field, value)| Some((field, value?)))
    .try_for_each(|(field, value)| collector.add(field, value))
    .map(|()| collector.finish());
    Draft { line: None, key: None, values }
}

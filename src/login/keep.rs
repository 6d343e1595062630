//! Puts a new grant in the place of the old one, and remembers whose it is.

use super::{Connected, Found, Logins, Problem, confirm::Outcome, finish::NewGrant, profiles};
use crate::{
    audit::Action,
    error_chain::chain,
    id::AccountId,
    secret::Secret,
    store::{Credential, notes::NoteKind},
};
use std::time::Duration;
use tokio::time::timeout;
use tracing::{info, warn};

/// How long the old grant may take to tell its profiles before the remembered ones count.
const LIVE_PATIENCE: Duration = Duration::from_secs(10);
/// Profiles are remembered for longer than a grant lives.
const REMEMBERED: Duration = Duration::from_secs(400 * 86_400);

impl Logins {
    /// Saves the grant: at once in use here, within two seconds in every other process.
    pub(super) async fn keep(
        &self,
        account: &AccountId,
        grant: &NewGrant,
    ) -> Result<Connected, Problem> {
        let store = self.core.store();
        let config = self.core.config().accounts.get(account);
        let lock = store.lock(account).await?;
        let record = store.load(account).await?;
        let region = config.map(|config| config.region).or(grant.region());
        let region = region.or(record.as_ref().map(|record| record.region));
        let region = region.unwrap_or_else(|| grant.profiles.home());
        // Without this, the server would seed the record anew from the configuration.
        let seed = config.and_then(|config| config.refresh_token.as_ref());
        let credential = Credential {
            account: account.clone(),
            application: grant.application.clone(),
            region,
            refresh_token: Secret::from(grant.refresh_token.as_str()),
            previous_refresh_token: None,
            // Its absence tells every process that a person put this grant here.
            access_token: None,
            generation: record.as_ref().map_or(0, |record| record.generation),
            consented_at: Some(grant.consented_at),
            updated_at: self.core.clock().now().unix(),
            reauthorization_required: false,
            seed: seed.map(|seed| store.fingerprint(seed)),
        };
        if let Some(ticket) = &grant.ticket {
            let known = store.notes().look(NoteKind::Ticket, ticket).await?;
            known.ok_or(Problem::LinkUsed)?;
        }
        let entry = self.entry(Action::Login, account, &grant.origin);
        let saved = async { Ok::<_, Problem>(store.save(&credential).await?) };
        self.core.audit().around(entry, "store_failed", saved).await?;
        let connected = Connected {
            account: account.to_string(),
            region: region.to_string(),
            application: grant.application.clone(),
            replaced: record.is_some(),
            profiles: grant.profiles.clone(),
        };
        if let Some(ticket) = &grant.ticket {
            // Before the link is gone: who waits by it must not find neither.
            self.keep_outcome(account, Some(ticket), &Outcome::Connected(connected.clone())).await;
            // The one success that a link is good for; the account's lock keeps others out.
            store.notes().take(NoteKind::Ticket, ticket).await?;
        }
        drop(lock);
        self.core.follow_now().await;
        info!(account = account.as_str(), region = region.as_str(), "account connected");
        let name = (NoteKind::Profiles, account.as_str());
        // The grant is safe; what is lost here is that the next login asks more than it must.
        if let Err(error) = self.note(name, account, &grant.profiles, REMEMBERED).await {
            warn!(account = account.as_str(), error = %chain(&error), "cannot remember the profiles");
        }
        Ok(connected)
    }

    /// The profiles of the grant that is in place: what it says now if it lives, else what it said
    /// when it was connected; an empty answer if nobody knows. None if there is no grant.
    pub(super) async fn known(&self, account: &AccountId) -> Option<Found> {
        // A record that cannot be read is one that cannot be compared.
        let record = match self.core.store().load(account).await {
            Ok(None) => return None,
            Ok(Some(record)) if record.refresh_token.is_empty() => return None,
            Ok(Some(record)) => Some(record),
            Err(_) => None,
        };
        let alive = record.is_some_and(|record| !record.reauthorization_required);
        if alive && let Ok(Some(found)) = timeout(LIVE_PATIENCE, self.live(account)).await {
            return Some(found);
        }
        let remembered = self.look::<Found>(NoteKind::Profiles, account.as_str()).await;
        Some(remembered.ok().flatten().map(|(_, found)| found).unwrap_or_default())
    }

    async fn live(&self, account: &AccountId) -> Option<Found> {
        let known = self.core.account(account).await.ok()??;
        let token = self.core.tokens().token(&known.holder).await.ok()?;
        let client_id = known.holder.application().client_id();
        let upstream = &self.core.config().upstream;
        let http = self.core.http();
        let found = profiles::of_grant(http, upstream, token.header(), client_id).await;
        (found != Found::default()).then_some(found)
    }
}

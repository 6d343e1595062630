//! What Login with Amazon knows: applications, grants, codes and the access tokens it issued.

use super::{
    fault::{Faults, LwaFault, RequestGate},
    profiles::Profile,
    settings::{LwaSettings, RefreshRotation},
    text::random_text,
};
use crate::clock::{Clock, Now};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// Access tokens remembered, dead ones included (they have the generation of a late request).
const TOKENS_MAX: usize = 20_000;
/// How long an authorization code can be redeemed.
const CODE_LIFETIME: Duration = Duration::from_secs(300);

/// Status, `error` and `error_description` of Amazon.
pub(super) type LwaError<'a> = (u16, &'static str, &'a str);

pub(super) const INVALID_REFRESH_TOKEN: LwaError = (
    400,
    "invalid_grant",
    "The request has an invalid grant parameter : refresh_token. User may have revoked or didn't \
     grant the permission.",
);
const INVALID_CODE: LwaError =
    (400, "invalid_grant", "The request has an invalid grant parameter : code");
const LATE_CODE: LwaError = (400, "invalid_request", "The request has an invalid parameter : code");

#[derive(Debug)]
pub struct Lwa {
    /// Parks token requests before anything is decided.
    pub gate: RequestGate,
    /// Parks the responses to token requests: the tokens in them live already.
    pub responses: RequestGate,
    pub faults: Faults<LwaFault>,
    clock: Arc<dyn Clock>,
    settings: Mutex<LwaSettings>,
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    /// Secrets by client id.
    applications: BTreeMap<String, Vec<String>>,
    /// By account name.
    grants: BTreeMap<String, AdvertiserGrant>,
    codes: HashMap<String, AuthorizationCode>,
    tokens: HashMap<String, IssuedAccessToken>,
    /// Access tokens in the order of their issue.
    order: VecDeque<String>,
}

/// An advertiser's consent to one application.
#[derive(Debug, Clone)]
pub struct AdvertiserGrant {
    pub(super) client_id: String,
    pub profiles: Vec<Profile>,
    pub(super) is_revoked: bool,
    /// Access tokens issued so far.
    pub generation: u64,
    /// The last one is current.
    refresh_tokens: Vec<IssuedRefreshToken>,
}

#[derive(Debug, Clone)]
struct IssuedRefreshToken {
    text: String,
    dies: Option<Now>,
    /// The generation of the access token in the same response.
    came_with: u64,
}

#[derive(Debug)]
struct AuthorizationCode {
    account: String,
    redirect_uri: String,
    /// PKCE, S256.
    challenge: Option<String>,
    expires: Now,
}

#[derive(Debug)]
struct IssuedAccessToken {
    account: String,
    generation: u64,
    /// None once killed.
    expires: Option<Now>,
}

#[derive(Serialize)]
pub(super) struct IssuedTokens {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) access_token: String,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<Box<RawValue>>,
}

impl Lwa {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            gate: RequestGate::default(),
            responses: RequestGate::default(),
            faults: Faults::default(),
            clock,
            settings: Mutex::default(),
            registry: Mutex::default(),
        }
    }

    pub fn configure(&self, change: impl FnOnce(&mut LwaSettings)) {
        change(&mut self.settings.lock());
    }

    pub(super) fn settings(&self) -> LwaSettings {
        self.settings.lock().clone()
    }

    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Registers an application, or replaces its secrets.
    pub fn add_application(&self, client_id: &str, secrets: &[&str]) {
        let secrets = secrets.iter().map(|&secret| secret.to_owned()).collect();
        self.registry.lock().applications.insert(client_id.to_owned(), secrets);
    }

    /// Adds an account's grant, or replaces it.
    pub fn add_grant(&self, account: &str, client_id: &str, refresh: &str, profiles: Vec<Profile>) {
        let token = IssuedRefreshToken { text: refresh.to_owned(), dies: None, came_with: 0 };
        let (client_id, refresh_tokens) = (client_id.to_owned(), vec![token]);
        let (is_revoked, generation) = (false, 0);
        let grant = AdvertiserGrant { client_id, profiles, is_revoked, generation, refresh_tokens };
        self.registry.lock().grants.insert(account.to_owned(), grant);
    }

    pub fn grant(&self, account: &str) -> Option<AdvertiserGrant> {
        self.registry.lock().grants.get(account).cloned()
    }

    pub fn grants(&self) -> BTreeMap<String, AdvertiserGrant> {
        self.registry.lock().grants.clone()
    }

    /// The advertiser takes the grant back: its refresh and access tokens are dead. Says whether
    /// there is such an account.
    pub fn revoke(&self, account: &str) -> bool {
        let is_known = self.set_revoked(account, true);
        self.expire_access_tokens(Some(account));
        is_known
    }

    fn set_revoked(&self, account: &str, is_revoked: bool) -> bool {
        let mut registry = self.registry.lock();
        registry.grants.get_mut(account).map(|grant| grant.is_revoked = is_revoked).is_some()
    }

    /// Brings a revoked grant back to life with its current refresh token.
    pub fn reconnect(&self, account: &str) -> bool {
        self.set_revoked(account, false)
    }

    /// The advertiser consents anew: returns the new refresh token; the older ones are dead.
    pub fn consent_again(&self, account: &str) -> Option<String> {
        let mut registry = self.registry.lock();
        let grant = registry.grants.get_mut(account)?;
        grant.is_revoked = false;
        grant.refresh_tokens.clear();
        Some(grant.add_refresh_token(grant.generation))
    }

    /// An application gives a refresh token back (RFC 7009).
    pub(super) fn give_back(&self, client_id: &str, refresh: &str) {
        let mut registry = self.registry.lock();
        for grant in registry.grants.values_mut().filter(|grant| grant.client_id == client_id) {
            grant.refresh_tokens.retain(|token| token.text != refresh);
        }
    }

    /// Kills the access tokens of one account, or of all; without notice to their owners.
    pub fn expire_access_tokens(&self, account: Option<&str>) {
        for issued in self.registry.lock().tokens.values_mut() {
            if account.is_none_or(|account| issued.account == account) {
                issued.expires = None;
            }
        }
    }

    pub fn live_access_tokens(&self) -> usize {
        let now = self.now();
        self.registry.lock().tokens.values().filter(|issued| issued.is_live(now)).count()
    }

    /// When the access tokens of each account end that are remembered and not killed, in the order
    /// of their issue.
    pub fn expiries(&self) -> BTreeMap<String, Vec<Instant>> {
        let registry = self.registry.lock();
        let mut ends: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
        for issued in registry.order.iter().filter_map(|token| registry.tokens.get(token)) {
            let of_account = ends.entry(issued.account.clone()).or_default();
            of_account.extend(issued.expires.map(|expires| expires.mono));
        }
        ends
    }

    /// Whose token this is and its generation, dead or alive.
    pub(super) fn generation(&self, access: &str) -> Option<(String, u64)> {
        let registry = self.registry.lock();
        registry.tokens.get(access).map(|issued| (issued.account.clone(), issued.generation))
    }

    /// The account and the grant of a live access token.
    pub(super) fn owner(&self, access: &str) -> Option<(String, AdvertiserGrant)> {
        let (now, rotation) = (self.now(), self.settings.lock().rotation);
        let registry = &mut *self.registry.lock();
        let issued = registry.tokens.get(access).filter(|issued| issued.is_live(now))?;
        let grant = registry.grants.get_mut(&issued.account).filter(|grant| !grant.is_revoked)?;
        grant.used(issued.generation, rotation, now);
        Some((issued.account.clone(), grant.clone()))
    }

    /// Says whether there is such an application, and `secret` is one of its secrets.
    pub(super) fn is_client(&self, client_id: &str, secret: Option<&str>) -> bool {
        let registry = self.registry.lock();
        let secrets = registry.applications.get(client_id);
        secrets.is_some_and(|have| secret.is_none_or(|secret| have.iter().any(|s| s == secret)))
    }

    pub(super) fn refresh(
        &self,
        client_id: &str,
        refresh: &str,
    ) -> Result<IssuedTokens, LwaError<'static>> {
        let (now, settings) = (self.now(), self.settings());
        let mut registry = self.registry.lock();
        let found = registry.grants.iter_mut().find_map(|(account, grant)| {
            let came_with = grant.accepts(client_id, refresh, now)?;
            Some((account.clone(), grant, came_with))
        });
        let (account, grant, came_with) = found.ok_or(INVALID_REFRESH_TOKEN)?;
        grant.used(came_with, settings.rotation, now);
        grant.rotate(settings.rotation, now);
        let current = (!settings.omit_refresh_token).then(|| grant.current().to_owned());
        Ok(registry.issue(&account, current, &settings, now))
    }

    pub(super) fn new_code(
        &self,
        account: &str,
        redirect_uri: &str,
        challenge: Option<String>,
    ) -> String {
        let text = format!("AN{}", random_text::<12>());
        let expires = self.now().plus(CODE_LIFETIME);
        let (account, redirect_uri) = (account.to_owned(), redirect_uri.to_owned());
        let code = AuthorizationCode { account, redirect_uri, challenge, expires };
        self.registry.lock().codes.insert(text.clone(), code);
        text
    }

    pub(super) fn redeem(
        &self,
        code: &str,
        redirect_uri: &str,
        verifier: Option<&str>,
    ) -> Result<IssuedTokens, LwaError<'static>> {
        let (now, settings) = (self.now(), self.settings());
        let mut registry = self.registry.lock();
        // A code works once, also when the rest of the request is wrong.
        let code = registry.codes.remove(code).ok_or(INVALID_CODE)?;
        if now.mono >= code.expires.mono {
            return Err(LATE_CODE);
        }
        let hash = verifier.map(|text| digest(&SHA256, text.as_bytes()));
        let proof = hash.map(|hash| BASE64_URL_SAFE_NO_PAD.encode(hash));
        let is_proved = code.challenge.is_none() || code.challenge == proof;
        if code.redirect_uri != redirect_uri || !is_proved {
            return Err(INVALID_CODE);
        }
        let grant = registry.grants.get_mut(&code.account).ok_or(INVALID_CODE)?;
        grant.is_revoked = false;
        let refresh = grant.add_refresh_token(grant.generation + 1);
        Ok(registry.issue(&code.account, Some(refresh), &settings, now))
    }
}

impl AdvertiserGrant {
    /// The refresh token that was issued last.
    pub fn current(&self) -> &str {
        self.refresh_tokens.last().map_or("", |token| &token.text)
    }

    /// The generation that the refresh token came with, if it is good.
    fn accepts(&self, client_id: &str, refresh: &str, now: Now) -> Option<u64> {
        let mut tokens = self.refresh_tokens.iter();
        let found = tokens.find(|token| token.text == refresh && token.is_live(now))?;
        (self.client_id == client_id && !self.is_revoked).then_some(found.came_with)
    }

    fn rotate(&mut self, rotation: RefreshRotation, now: Now) {
        let dies = match rotation {
            RefreshRotation::Off => return,
            RefreshRotation::OldLives | RefreshRotation::OldDiesOnceUsed => None,
            RefreshRotation::OldDiesAfter(after) => Some(now.plus(after)),
            RefreshRotation::OldDies => Some(now),
        };
        self.refresh_tokens.retain(|token| token.is_live(now));
        for old in &mut self.refresh_tokens {
            old.dies = old.dies.or(dies);
        }
        self.add_refresh_token(self.generation + 1);
    }

    fn add_refresh_token(&mut self, came_with: u64) -> String {
        let text = format!("Atzr|{}", random_text::<240>());
        self.refresh_tokens.push(IssuedRefreshToken { text: text.clone(), dies: None, came_with });
        text
    }

    /// The response with the access token of `generation` arrived: what came before it is dead.
    fn used(&mut self, generation: u64, rotation: RefreshRotation, now: Now) {
        if rotation == RefreshRotation::OldDiesOnceUsed
            && self.refresh_tokens.iter().any(|token| token.came_with == generation)
        {
            for token in self.refresh_tokens.iter_mut().filter(|t| t.came_with < generation) {
                token.dies = token.dies.or(Some(now));
            }
        }
    }
}

impl IssuedRefreshToken {
    fn is_live(&self, now: Now) -> bool {
        self.dies.is_none_or(|dies| now.mono < dies.mono)
    }
}

impl Registry {
    fn issue(
        &mut self,
        account: &str,
        refresh_token: Option<String>,
        settings: &LwaSettings,
        now: Now,
    ) -> IssuedTokens {
        let grant = self.grants.get_mut(account).expect("the caller found the grant");
        grant.generation += 1;
        let generation = grant.generation;
        // 270 random bytes are 360 characters: Amazon promises at least 350.
        let access_token = format!("Atza|{}", random_text::<270>());
        let expires = Some(now.plus(settings.token_lifetime));
        let issued = IssuedAccessToken { account: account.to_owned(), generation, expires };
        self.tokens.insert(access_token.clone(), issued);
        self.order.push_back(access_token.clone());
        if self.order.len() > TOKENS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.tokens.remove(&oldest);
        }
        let expires_in = settings.expires_in();
        IssuedTokens { access_token, token_type: "bearer", refresh_token, expires_in }
    }
}

impl IssuedAccessToken {
    /// Either clock may say that the token is over, as with the real tokens' owners.
    fn is_live(&self, now: Now) -> bool {
        self.expires.is_some_and(|expires| now.mono < expires.mono && now.wall < expires.wall)
    }
}

//! What Login with Amazon knows: applications, grants, codes and the access tokens it issued.

use super::{
    fault::{Faults, LwaFault},
    form::random_text,
    gate::Gate,
    profiles::Profile,
    settings::{LwaSettings, Rotation},
};
use crate::clock::{Clock, Now};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

/// Access tokens remembered, dead ones included (they have the generation of a late request).
const TOKENS_MAX: usize = 20_000;

/// The emulated token service.
#[derive(Debug)]
pub struct Lwa {
    /// Parks token requests before anything is decided.
    pub gate: Gate,
    /// Parks the responses to token requests: the tokens in them live already.
    pub answers: Gate,
    pub faults: Faults<LwaFault>,
    clock: Arc<dyn Clock>,
    books: Mutex<LwaBooks>,
}

#[derive(Debug, Default)]
struct LwaBooks {
    settings: LwaSettings,
    /// Secrets by client id.
    applications: BTreeMap<String, Vec<String>>,
    /// By account name.
    grants: BTreeMap<String, SandboxGrant>,
    codes: HashMap<String, AuthorizationCode>,
    tokens: HashMap<String, IssuedAccessToken>,
    /// Access tokens in the order of their issue.
    order: VecDeque<String>,
}

/// An advertiser's consent to one application.
#[derive(Debug, Clone)]
pub struct SandboxGrant {
    pub client_id: String,
    /// What the account may manage.
    pub profiles: Vec<Profile>,
    pub is_revoked: bool,
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
    challenge: Option<PkceChallenge>,
    expires: Now,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PkceChallenge {
    pub(super) value: String,
    pub(super) is_s256: bool,
}

#[derive(Debug, Clone)]
struct IssuedAccessToken {
    account: String,
    generation: u64,
    /// None once killed.
    expires: Option<Now>,
}

/// Who sent a live access token.
#[derive(Debug, Clone)]
pub(super) struct TokenOwner {
    pub(super) account: String,
    pub(super) client_id: String,
}

/// What a token request gets.
#[derive(Debug)]
pub(super) struct IssuedTokens {
    pub(super) access: String,
    pub(super) refresh: Option<String>,
    pub(super) expires_in: Option<String>,
}

/// Why a token request gets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenRefusal {
    RefreshToken,
    Code,
    LateCode,
}

impl Lwa {
    pub(super) fn new(clock: Arc<dyn Clock>, settings: LwaSettings) -> Self {
        let books = Mutex::new(LwaBooks { settings, ..LwaBooks::default() });
        let (gate, answers, faults) = Default::default();
        Self { gate, answers, faults, clock, books }
    }

    pub fn configure(&self, change: impl FnOnce(&mut LwaSettings)) {
        change(&mut self.books.lock().settings);
    }

    pub fn settings(&self) -> LwaSettings {
        self.books.lock().settings.clone()
    }

    /// The time that expiry is decided by.
    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Registers an application, or replaces its secrets.
    pub fn add_application(&self, client_id: &str, secrets: &[&str]) {
        let secrets = secrets.iter().map(|&secret| secret.to_owned()).collect();
        self.books.lock().applications.insert(client_id.to_owned(), secrets);
    }

    /// Adds an account's grant, or replaces it.
    pub fn add_grant(&self, account: &str, client_id: &str, refresh: &str, profiles: Vec<Profile>) {
        let grant = SandboxGrant {
            client_id: client_id.to_owned(),
            profiles,
            is_revoked: false,
            generation: 0,
            refresh_tokens: vec![IssuedRefreshToken::new(refresh, 0)],
        };
        self.books.lock().grants.insert(account.to_owned(), grant);
    }

    pub fn grant(&self, account: &str) -> Option<SandboxGrant> {
        self.books.lock().grants.get(account).cloned()
    }

    /// All grants by account.
    pub fn grants(&self) -> BTreeMap<String, SandboxGrant> {
        self.books.lock().grants.clone()
    }

    /// The advertiser takes the grant back: its refresh and access tokens are dead. Says whether
    /// there is such an account.
    pub fn revoke(&self, account: &str) -> bool {
        let mut books = self.books.lock();
        books.kill_tokens(Some(account));
        books.grants.get_mut(account).map(|grant| grant.is_revoked = true).is_some()
    }

    /// An application gives a refresh token back (RFC 7009).
    pub(super) fn give_back(&self, client_id: &str, refresh: &str) {
        let mut books = self.books.lock();
        for grant in books.grants.values_mut().filter(|grant| grant.client_id == client_id) {
            grant.refresh_tokens.retain(|token| token.text != refresh);
        }
    }

    /// Brings a revoked grant back to life with its current refresh token.
    pub fn reconnect(&self, account: &str) -> bool {
        let mut books = self.books.lock();
        books.grants.get_mut(account).map(|grant| grant.is_revoked = false).is_some()
    }

    /// The advertiser consents anew: returns the new refresh token; the older ones are dead.
    pub fn consent_again(&self, account: &str) -> Option<String> {
        let mut books = self.books.lock();
        let grant = books.grants.get_mut(account)?;
        let refresh = new_refresh_token();
        grant.refresh_tokens = vec![IssuedRefreshToken::new(&refresh, grant.generation)];
        grant.is_revoked = false;
        Some(refresh)
    }

    /// Kills the access tokens of one account, or of all; without notice to their owners.
    pub fn expire_access_tokens(&self, account: Option<&str>) {
        self.books.lock().kill_tokens(account);
    }

    /// How many access tokens work right now.
    pub fn live_access_tokens(&self) -> usize {
        let now = self.now();
        self.books.lock().tokens.values().filter(|issued| issued.is_live(now)).count()
    }

    /// Whose token this is and its generation, dead or alive.
    pub(super) fn generation(&self, access: &str) -> Option<(String, u64)> {
        let books = self.books.lock();
        books.tokens.get(access).map(|issued| (issued.account.clone(), issued.generation))
    }

    /// The owner of a live access token.
    pub(super) fn owner(&self, access: &str) -> Option<TokenOwner> {
        let now = self.now();
        let books = &mut *self.books.lock();
        let issued = books.tokens.get(access).filter(|issued| issued.is_live(now))?;
        let grant = books.grants.get_mut(&issued.account).filter(|grant| !grant.is_revoked)?;
        if books.settings.rotation == Rotation::OldDiesOnceUsed {
            grant.used(issued.generation, now);
        }
        Some(TokenOwner { account: issued.account.clone(), client_id: grant.client_id.clone() })
    }

    /// Says whether the application and one of its secrets match.
    pub(super) fn is_client(&self, client_id: &str, secret: &str) -> bool {
        let books = self.books.lock();
        let secrets = books.applications.get(client_id);
        secrets.is_some_and(|secrets| secrets.iter().any(|have| have == secret))
    }

    pub(super) fn is_application(&self, client_id: &str) -> bool {
        self.books.lock().applications.contains_key(client_id)
    }

    pub(super) fn refresh(
        &self,
        client_id: &str,
        refresh: &str,
    ) -> Result<IssuedTokens, TokenRefusal> {
        let now = self.now();
        let books = &mut *self.books.lock();
        let settings = &books.settings;
        let owner = books.grants.iter_mut().find(|(_, grant)| {
            grant.client_id == client_id && !grant.is_revoked && grant.accepts(refresh, now)
        });
        let (account, grant) = owner.ok_or(TokenRefusal::RefreshToken)?;
        if settings.rotation == Rotation::OldDiesOnceUsed {
            let used = grant.refresh_tokens.iter().find(|token| token.text == refresh);
            let came_with = used.map_or(0, |token| token.came_with);
            grant.used(came_with, now);
        }
        grant.rotate(settings.rotation, now);
        let refresh = (!settings.omit_refresh_token).then(|| grant.current().to_owned());
        let (account, expires_in) = (account.clone(), settings.expires_in());
        Ok(IssuedTokens { access: books.issue(&account, now), refresh, expires_in })
    }

    /// Makes a code for the consent of `account`.
    pub(super) fn new_code(
        &self,
        account: &str,
        redirect_uri: &str,
        challenge: Option<PkceChallenge>,
    ) -> String {
        let code = format!("AN{}", random_text(12));
        let expires = self.now().plus(self.settings().code_lifetime);
        let (account, redirect_uri) = (account.to_owned(), redirect_uri.to_owned());
        let entry = AuthorizationCode { account, redirect_uri, challenge, expires };
        self.books.lock().codes.insert(code.clone(), entry);
        code
    }

    /// The code grant. `proves` says whether the verifier sent belongs to a challenge.
    pub(super) fn redeem(
        &self,
        code: &str,
        redirect_uri: &str,
        proves: impl Fn(&PkceChallenge) -> bool,
        is_public: bool,
    ) -> Result<IssuedTokens, TokenRefusal> {
        let now = self.now();
        let mut books = self.books.lock();
        // A code works once, also when the rest of the request is wrong.
        let code = books.codes.remove(code).ok_or(TokenRefusal::Code)?;
        let is_proven = code.challenge.as_ref().map_or(!is_public, proves);
        if now.mono >= code.expires.mono {
            return Err(TokenRefusal::LateCode);
        }
        if code.redirect_uri != redirect_uri || !is_proven {
            return Err(TokenRefusal::Code);
        }
        let grant = books.grants.get_mut(&code.account).ok_or(TokenRefusal::Code)?;
        grant.is_revoked = false;
        // A client without a secret gets no refresh token from Amazon either.
        let refresh = (!is_public).then(new_refresh_token);
        let generation = grant.generation + 1;
        let added = refresh.iter().map(|text| IssuedRefreshToken::new(text, generation));
        grant.refresh_tokens.extend(added);
        let access = books.issue(&code.account, now);
        Ok(IssuedTokens { access, refresh, expires_in: books.settings.expires_in() })
    }
}

impl SandboxGrant {
    /// The refresh token that was issued last.
    pub fn current(&self) -> &str {
        self.refresh_tokens.last().map_or("", |token| &token.text)
    }

    fn accepts(&self, refresh: &str, now: Now) -> bool {
        self.refresh_tokens.iter().any(|token| token.text == refresh && token.is_live(now))
    }

    fn rotate(&mut self, rotation: Rotation, now: Now) {
        let dies = match rotation {
            Rotation::Off => return,
            Rotation::OldLives | Rotation::OldDiesOnceUsed => None,
            Rotation::OldDiesAfter(after) => Some(now.plus(after)),
            Rotation::OldDies => Some(now),
        };
        self.refresh_tokens.retain(|token| token.is_live(now));
        for old in &mut self.refresh_tokens {
            old.dies = old.dies.or(dies);
        }
        self.refresh_tokens
            .push(IssuedRefreshToken::new(&new_refresh_token(), self.generation + 1));
    }

    /// The response with the access token of `generation` arrived: what came before it is dead.
    fn used(&mut self, generation: u64, now: Now) {
        if self.refresh_tokens.iter().any(|token| token.came_with == generation) {
            let older = self.refresh_tokens.iter_mut();
            for token in older.filter(|token| token.came_with < generation) {
                token.dies = token.dies.or(Some(now));
            }
        }
    }
}

impl IssuedRefreshToken {
    fn new(text: &str, came_with: u64) -> Self {
        Self { text: text.to_owned(), dies: None, came_with }
    }

    fn is_live(&self, now: Now) -> bool {
        self.dies.is_none_or(|dies| now.mono < dies.mono)
    }
}

impl LwaBooks {
    fn issue(&mut self, account: &str, now: Now) -> String {
        let grant = self.grants.get_mut(account).expect("the caller found the grant");
        grant.generation += 1;
        let generation = grant.generation;
        // 270 random bytes are 360 characters: Amazon promises at least 350.
        let access = format!("Atza|{}", random_text(270));
        let expires = Some(now.plus(self.settings.token_lifetime));
        let issued = IssuedAccessToken { account: account.to_owned(), generation, expires };
        self.tokens.insert(access.clone(), issued);
        self.order.push_back(access.clone());
        if self.order.len() > TOKENS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.tokens.remove(&oldest);
        }
        access
    }

    fn kill_tokens(&mut self, account: Option<&str>) {
        for issued in self.tokens.values_mut() {
            if account.is_none_or(|account| issued.account == account) {
                issued.expires = None;
            }
        }
    }
}

impl IssuedAccessToken {
    /// Either clock may say that it is over, as with the real tokens' owners.
    fn is_live(&self, now: Now) -> bool {
        self.expires.is_some_and(|expires| now.mono < expires.mono && now.wall < expires.wall)
    }
}

fn new_refresh_token() -> String {
    format!("Atzr|{}", random_text(240))
}

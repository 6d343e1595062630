//! Fuzzes the files to import: what is taken from them can be an account, and nothing shows a secret.

use super::{
    formats,
    record::{Raw, RecordReader},
    source,
};
use crate::{
    config::{
        Config,
        load::{self, Environment},
    },
    fuzz::{assert_hides, text},
    grants::given::Replace,
    id::AccountId,
    secret::RefreshToken,
};
use std::{collections::BTreeSet, sync::LazyLock};

/// 2026-11-20 00:00 UTC.
const NOW: u64 = 1_795_132_800;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = "[store]\nkind = \"memory\"\n[lwa]\nclient_id = \"first\"\n\
                client_secret = { env = \"SECRET\" }\n[accounts.acme]\nregion = \"eu\"\n";
    let environment: Environment = [("SECRET".to_owned(), "s".to_owned())].into_iter().collect();
    load::parse(None, text, &environment, &[]).expect("it is right").config
});

pub fn csv(input: &[u8]) {
    text(input).into_iter().for_each(|text| check(formats::table(text)));
}

pub fn json(input: &[u8]) {
    text(input).into_iter().for_each(|text| check(formats::json(text)));
}

pub fn yaml(input: &[u8]) {
    text(input).into_iter().for_each(|text| check(formats::yaml(text)));
}

pub fn environment(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(variables) = formats::variables(text) {
        assert!(variables.keys().all(|name| !name.contains(['\n', '='])));
    }
    check(source::variables(text).map(|(raws, _)| raws));
}

fn check(read: anyhow::Result<Vec<Raw>>) {
    let raws = match read {
        Ok(raws) => raws,
        Err(error) => return assert_hides(&format!("{error:#}")),
    };
    let known = BTreeSet::from(["shop".parse().expect("an alias")]);
    let reader = RecordReader {
        keys: None,
        known,
        account: None,
        unnamed: Some("default"),
        config: &CONFIG,
        region: None,
        application: None,
        replace: Replace::Never,
        now: NOW,
    };
    let mut records: Vec<_> = raws.iter().map(|raw| reader.read(raw)).collect();
    super::plan::settle_duplicates(&mut records);
    reader.resolve_all(&mut records);
    for record in &records {
        assert_hides(&record.note);
        let Some(entry) = &record.entry else { continue };
        assert!(AccountId::is_id(entry.alias.as_str()));
        let token = &entry.given.refresh_token;
        let again = RefreshToken::parse(token).expect("it was taken for one");
        assert_eq!(again.secret.expose(), token.expose());
        let id = entry.profile_id.as_deref().unwrap_or("1");
        assert!((1..=20).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit()));
        assert!(entry.given.consented_at.is_none_or(|at| at <= NOW + 86_400));
        let access = entry.given.access_token.as_ref();
        assert!(access.is_none_or(|token| (token.issued_at..token.expires_at).contains(&NOW)));
        // Where a secret is in the place of a name, it is shown as one.
        let is_named = entry.alias.as_str().contains("CANARY") || has_canary_name(&record.name);
        let of_application =
            entry.given.application.as_deref().is_some_and(|it| it.contains("CANARY"));
        if !is_named && !of_application {
            assert_hides(&format!("{record:?}"));
        }
    }
}

fn has_canary_name(name: &Option<String>) -> bool {
    name.as_deref().is_some_and(|name| name.contains("CANARY"))
}

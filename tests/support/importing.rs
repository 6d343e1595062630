//! A user's home in which accounts are imported, with secrets that must come out nowhere.

use super::{
    canary::Canaries,
    program::{Home, Said, said},
};
use adsproxy::testing::{
    Credential, Encryption, EncryptionKey, Secret, Store, StoreConfig, StoreKind,
};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

pub const CLIENT_SECRET: &str = "CANARY-configured-client-secret";
pub const OTHER_SECRET: &str = "CANARY-client-secret-of-the-source";
pub const OTHER_ID: &str = "amzn1.application-oa2-client.CANARY";
pub const ONE: &str = "Atzr|CANARY-refresh-token-one";
pub const TWO: &str = "Atzr|CANARY-refresh-token-two";
pub const ACCESS: &str = "Atza|CANARY-access-token";

/// A home with a key, a store and the application `id`; what is said there is searched for secrets.
pub struct Scene {
    pub home: Home,
    pub canaries: Canaries,
}

impl Scene {
    pub fn new() -> Self {
        let home = Home::new();
        let made = home.run("key init");
        let (_, lines) = made.out.split_once("\n\n").expect("the lines to add");
        let application = "[lwa]\nclient_id = \"id\"\nclient_secret = { file = \"~/secret\" }\n";
        home.write("secret", CLIENT_SECRET, 0o600);
        home.write("proxy.toml", &format!("{application}{lines}"), 0o644);
        let mut canaries = Canaries::default();
        for secret in [CLIENT_SECRET, OTHER_SECRET, OTHER_ID, ONE, TWO, ACCESS] {
            canaries.add(secret);
        }
        canaries.add(fs::read_to_string(home.path(".config/adsproxy/key")).expect("a key").trim());
        Self { home, canaries }
    }

    /// Runs `adsproxy import` with `arguments`.
    pub fn import(&self, arguments: &str) -> Said {
        self.judge(self.home.run(&format!("import {arguments}")))
    }

    pub fn import_with(&self, arguments: &str, variables: &[(&str, &str)]) -> Said {
        let mut command = self.home.command(&format!("import {arguments}"));
        command.envs(variables.iter().copied());
        self.judge(said(&mut command))
    }

    pub fn judge(&self, said: Said) -> Said {
        for text in [&said.out, &said.err] {
            self.canaries.assert_none_in("what import said", text.as_bytes());
            assert!(!text.contains("CANARY"), "{text}");
        }
        said
    }

    /// The report of `import --json`, by account.
    pub fn report(&self, arguments: &str) -> (Option<i32>, BTreeMap<String, Value>) {
        let said = self.import(&format!("--json {arguments}"));
        let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
        assert_eq!(report["version"], 1);
        let records = report["records"].as_array().expect("records").iter();
        let by_name = records.map(|row| {
            let name = row["account"].as_str().or(row["name"].as_str()).unwrap_or_default();
            (name.to_owned(), row.clone())
        });
        (said.code, by_name.collect())
    }

    pub fn write(&self, name: &str, text: &str) {
        self.home.write(name, text, 0o600);
    }

    pub fn store(&self) -> Store {
        let key = fs::read_to_string(self.home.path(".config/adsproxy/key")).expect("the key");
        let config = fs::read_to_string(self.home.path("proxy.toml")).expect("the configuration");
        let id = config.split("id = \"").nth(2).expect("a key id").split('"').next();
        let id = id.expect("a key id");
        let key = EncryptionKey::new(id, Secret::new(key));
        let path = self.home.path(".local/state/adsproxy");
        let config = StoreConfig { kind: StoreKind::File, path, ..Default::default() };
        Store::open(&config, &Encryption { keys: vec![key] }).expect("it opens")
    }

    pub async fn record(&self, alias: &str) -> Credential {
        let alias = alias.parse().expect("an alias");
        self.store().load(&alias).await.expect("it reads").expect("a record")
    }

    /// Every file of the store with its content.
    pub fn bytes(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.home.path(".local"), &mut files);
        files
    }
}

fn collect(path: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.insert(path.display().to_string(), Vec::new());
            collect(&path, files);
        } else {
            files.insert(path.display().to_string(), fs::read(&path).expect("a file"));
        }
    }
}

/// Every account with what became of it.
pub fn outcomes(records: &BTreeMap<String, Value>) -> Vec<(&str, &str)> {
    let outcome = |row: &'_ Value| match row["outcome"].as_str().expect("an outcome") {
        "added" => "added",
        "unchanged" => "unchanged",
        "differs" => "differs",
        "replaced" => "replaced",
        "rejected" => "rejected",
        other => panic!("{other}"),
    };
    records.iter().map(|(name, row)| (name.as_str(), outcome(row))).collect()
}

/// A table of `acme` and `shop`.
pub fn csv(one: &str, two: &str) -> String {
    format!("account,refresh_token,region,consented_at\nacme,{one},na,2026-01-02\nshop,{two},DE,\n")
}

//! TLS to PostgreSQL, with an authority of its own: verified in full, or no connection.

use crate::support::{
    postgres::{Cluster, Session, backend, config},
    secure::localhost,
};
use adsproxy::testing::{
    Error,
    backend::{Backend, Postgres},
};
use std::{error::Error as _, fs, path::PathBuf};
use tempfile::TempDir;

struct World {
    cluster: Cluster,
    dir: TempDir,
}

/// A server called `localhost`; none where there is no PostgreSQL.
fn world() -> Option<World> {
    let (issuer, leaf, leaf_key) = localhost();
    let cluster = Cluster::start_tls(&leaf.pem(), &leaf_key.serialize_pem())?;
    let world = World { cluster, dir: tempfile::tempdir().expect("a directory") };
    fs::write(world.ca(), issuer.pem()).expect("written");
    Some(world)
}

impl World {
    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn database(&self, host: &str, options: &str) -> (String, String) {
        let port = self.cluster.port.expect("it listens");
        let url = format!("postgres://adsproxy@{host}:{port}/postgres?hostaddr=127.0.0.1{options}");
        (url, "adsproxy".to_owned())
    }

    /// With the authority configured.
    fn with_ca(&self, host: &str) -> Postgres {
        let config = config(&self.database(host, "&sslmode=verify-full"));
        let config = adsproxy::testing::StoreConfig { ca_file: Some(self.ca()), ..config };
        Postgres::open(&config).expect("judged")
    }

    /// Whether the connections of the program are encrypted, as the server says.
    fn are_encrypted(&self) -> Vec<Vec<String>> {
        let url = self.database("localhost", "").0;
        let ssl = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                   WHERE application_name = 'adsproxy'";
        Session::open(&url).run("", ssl)
    }
}

fn refusal(backend: &Postgres) -> String {
    let error = backend.prepare().expect_err("refused");
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

#[test]
fn the_configured_authority_is_trusted() {
    let Some(world) = world() else { return };
    let backend = world.with_ca("localhost");
    backend.prepare().expect("tables are made");
    assert_eq!(world.are_encrypted(), [["t"]]);
}

#[test]
fn the_authority_that_the_url_names_is_trusted() {
    let Some(world) = world() else { return };
    let options = format!("&sslrootcert={}&sslmode=require", world.ca().display());
    let backend = backend(&world.database("localhost", &options));
    backend.prepare().expect("tables are made");
    assert_eq!(world.are_encrypted(), [["t"]]);
}

#[test]
fn another_authority_is_refused_with_what_to_do() {
    let Some(world) = world() else { return };
    let said = refusal(&backend(&world.database("localhost", "&sslmode=require")));
    assert!(said.contains("UnknownIssuer") && said.contains("store.ca_file"), "{said}");
    assert_eq!(world.are_encrypted(), Vec::<Vec<String>>::new(), "nothing was sent");
}

#[test]
fn another_name_is_refused_with_what_to_do() {
    let Some(world) = world() else { return };
    let said = refusal(&world.with_ca("db.example"));
    assert!(said.contains("db.example") && said.contains("store.url"), "{said}");
}

#[test]
fn a_server_without_tls_is_refused() {
    let Some(cluster) = Cluster::start() else { return };
    let url = format!("{}&sslmode=require", cluster.url());
    let said = refusal(&backend(&(url, "adsproxy".to_owned())));
    assert!(said.contains("TLS"), "{said}");
}

//! Which keys take effect, which wait for a restart, and that no secret is named.

use super::*;
use crate::config::load::{LoadError, Options, load};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};
use tempfile::TempDir;

struct Scene {
    directory: TempDir,
    running: Loaded,
}

const BASE: &str = "[accounts.acme]\nregion = \"na\"\n";

fn options(directory: &TempDir) -> Options {
    Options { path: Some(directory.path().join("p.toml")), ..Options::default() }
}

/// Writes a configuration with `more`, and the client secret.
fn write(directory: &TempDir, more: &str, secret: &str) {
    let at = |name: &str| -> PathBuf { directory.path().join(name) };
    let text = format!(
        "[lwa]\nclient_id = \"id\"\nclient_secret = {{ file = {:?} }}\n\
         [store]\nkind = \"memory\"\n{more}",
        at("secret")
    );
    fs::write(at("p.toml"), text).unwrap();
    fs::write(at("secret"), secret).unwrap();
    fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
}

impl Scene {
    fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write(&directory, more, "CANARY-1");
        let running = load(&options(&directory)).unwrap();
        Self { directory, running }
    }

    fn try_plan(&self, more: &str, secret: &str) -> Result<ReloadPlan, LoadError> {
        write(&self.directory, more, secret);
        Ok(self.running.plan(load(&options(&self.directory))?))
    }

    /// The keys that are applied, and those that wait.
    fn plan(&self, more: &str) -> (String, String) {
        let plan = self.try_plan(more, "CANARY-1").unwrap();
        (joined(plan.applied), joined(plan.restart))
    }
}

fn joined(keys: BTreeSet<String>) -> String {
    keys.into_iter().collect::<Vec<_>>().join(" ")
}

fn pair(applied: &str, restart: &str) -> (String, String) {
    (applied.to_owned(), restart.to_owned())
}

#[test]
fn the_keys_whose_values_changed_are_named_and_no_secret() {
    let scene = Scene::new("");
    assert_eq!(scene.plan(""), pair("", ""));
    let more = "[log]\nfilter = \"debug\"\n[accounts.b]\nregion = \"eu\"\n";
    let plan = scene.try_plan(more, "CANARY-2").unwrap();
    assert_eq!(joined(plan.applied), "accounts.b log.filter lwa.client_secret");
    let error = scene.try_plan("[log]\nfilter = \"inof\"\n", "CANARY-2").unwrap_err();
    assert!(matches!(error, LoadError::Invalid(_)) && !error.to_string().contains("CANARY"));
}

#[test]
fn each_key_either_takes_effect_or_waits_for_a_restart() {
    let scene = Scene::new(BASE);
    for (more, applied, restart) in [
        ("[listen]\nproxy = [\"127.0.0.1:1\"]\n", "", "listen.proxy"),
        ("[proxy]\nworkers = 63\n", "", "proxy.workers"),
        ("[proxy]\ndefault_account = \"acme\"\n", "proxy.default_account", ""),
        (
            "[limits]\nheaders_max = 7\nconnections_max = 7\n",
            "limits.headers_max",
            "limits.connections_max",
        ),
        (
            "[replay]\nmax_replays = 0\ntotal_max_bytes = 7\n",
            "replay.max_replays",
            "replay.total_max_bytes",
        ),
        ("[log]\nfilter = \"debug\"\naccess = false\n", "log.filter", "log.access"),
        ("[login]\npending_max = 7\n", "login.pending_max", ""),
        ("[token]\nrefresh_buffer_secs = 7\n", "", "token.refresh_buffer_secs"),
        ("[upstream]\nhttp2 = false\n", "", "upstream.http2"),
        ("[[callers]]\nname = \"a\"\n", "callers", ""),
        ("[auth]\nrequired = true\n", "auth.required", ""),
        ("[dashboard]\nurl = \"http://localhost\"\n", "dashboard.url", ""),
    ] {
        let more = format!("{BASE}{more}");
        assert_eq!(scene.plan(&more), pair(applied, restart), "{more}");
    }
    assert_eq!(scene.plan("[accounts.acme]\nregion = \"eu\"\n"), pair("accounts.acme.region", ""));
    assert_eq!(scene.plan(""), pair("accounts.acme", ""));
}

#[test]
fn what_waits_is_named_again_until_it_is_taken_back() {
    let mut scene = Scene::new("");
    let more = "[proxy]\nworkers = 63\n";
    let plan = scene.try_plan(more, "CANARY-2").unwrap();
    assert_ne!(plan.loaded.config.proxy.workers, 63);
    scene.running = plan.loaded;
    let plan = scene.try_plan(more, "CANARY-2").unwrap();
    assert_eq!((joined(plan.applied), joined(plan.restart)), pair("", "proxy.workers"));
    let plan = scene.try_plan("", "CANARY-2").unwrap();
    assert_eq!((joined(plan.applied), joined(plan.restart)), pair("", ""));
}

#[test]
fn a_return_address_waits_for_a_restart_and_the_rest_of_its_application_does_not() {
    let scene = Scene::new("");
    let named = "[applications.b]\nclient_id = \"b\"\nclient_secret = { file = \"SECRET\" }\n";
    let named = named.replace("SECRET", scene.directory.path().join("secret").to_str().unwrap());
    assert_eq!(scene.plan(&named), pair("applications.b", ""));
    let other = named + "redirect_uri = \"http://localhost:9/api/auth/amazon/callback\"\n";
    assert_eq!(scene.plan(&other), pair("applications.b", "applications.b.redirect_uri"));
}

#[test]
fn the_files_of_roots_wait_for_a_restart_whose_content_changes() {
    let directory = tempfile::tempdir().unwrap();
    let roots = directory.path().join("roots.pem");
    fs::write(&roots, "one").unwrap();
    let more = format!("[tls]\nca_file = {roots:?}\n");
    let mut scene = Scene::new(&more);
    assert_eq!(scene.plan(&more), pair("", ""));
    fs::write(&roots, "two").unwrap();
    for _ in 0..2 {
        let plan = scene.try_plan(&more, "CANARY-1").unwrap();
        assert_eq!((joined(plan.applied), joined(plan.restart)), pair("", "tls.ca_file"));
        scene.running = plan.loaded;
    }
}

#[test]
fn files_that_are_read_are_known_also_where_the_configuration_is_wrong() {
    let scene = Scene::new("");
    let missing = scene.directory.path().join("missing");
    let more = format!("[accounts.a]\nregion = \"na\"\nrefresh_token = {{ file = {missing:?} }}\n");
    write(&scene.directory, &more, "CANARY-1");
    let mut files = crate::config::read_files::ReadFiles::default();
    let error = crate::config::load::load_noting(&options(&scene.directory), &mut files);
    assert!(error.is_err());
    assert_eq!(files.look(), files);
    fs::write(&missing, "Atzr|CANARY").unwrap();
    assert_ne!(files.look(), files);
}

//! What lies in `deploy/` is accepted by the tools that will read it, and its mistakes are not.

use crate::support::{
    deploy::{
        assert_accepted, assert_refused, deploy, read, replaced, run, said, scratch, written,
    },
    extras,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// `systemd-analyze security`: tenths of its exposure level, 0 the safest, 100 the least safe.
const EXPOSURE_MAX: &str = "--threshold=15";

#[test]
fn the_dockerfile_passes_the_linter() {
    if !extras::required("hadolint") {
        return;
    }
    assert_accepted(&run(Command::new("hadolint").arg(deploy("Dockerfile"))));
}

#[test]
fn an_unpinned_base_image_does_not_pass_the_linter() {
    if !extras::required("hadolint") {
        return;
    }
    let directory = scratch();
    let text = replaced(&read("Dockerfile"), "rust:1.95.0-bookworm", "rust");
    let file = written(&directory, "Dockerfile", &text);
    assert_refused(&run(Command::new("hadolint").arg(file)), "DL3006");
}

#[test]
fn the_image_has_one_static_program_and_nothing_else() {
    let dockerfile = read("Dockerfile");
    let (build, image) = dockerfile.split_once("\nFROM scratch\n").expect("an image from nothing");
    assert!(build.contains("RUSTFLAGS=-Ctarget-feature=+crt-static"), "{build}");
    assert_eq!(image.matches("COPY").count(), 1, "{image}");
    assert!(image.contains("USER 65532:65532") && !image.contains("RUN"), "{image}");
    // The build script is a part of the build.
    assert!(build.contains("COPY Cargo.toml Cargo.lock build.rs"), "{build}");
    assert!(read("Dockerfile.dockerignore").contains("!build.rs\n"));
}

#[test]
fn the_image_is_built_by_the_profile_guided_build() {
    let dockerfile = read("Dockerfile");
    assert!(
        dockerfile.contains("$(deploy/build-pgo --no-default-features --features \"$FEATURES\")")
    );
    // Railway refuses mounted caches whose ids are not its own.
    assert!(!dockerfile.contains("--mount"));
    assert!(dockerfile.contains("ARG FEATURES=\"jemalloc postgres\"\n"));
    // What is copied must reach the builder, and what it runs must be copied.
    for file in ["build-pgo", "pgo_workload.py"] {
        assert!(read("Dockerfile.dockerignore").contains(&format!("!deploy/{file}\n")));
        assert!(dockerfile.contains(&format!("deploy/{file} ")));
    }
    assert!(read("build-pgo").contains("python3 deploy/pgo_workload.py "));
    assert_accepted(&run(Command::new("bash").arg("-n").arg(deploy("build-pgo"))));
    let directory = scratch();
    let broken = replaced(&read("build-pgo"), "\nfi\n", "\n");
    let broken = written(&directory, "build-pgo", &broken);
    assert_refused(&run(Command::new("bash").arg("-n").arg(broken)), "syntax error");
}

/// The workload of the profile-guided build, with this program as it is; the three builds are too
/// slow for a test.
#[cfg(feature = "sandbox")]
fn workload(proxy: &str) -> Option<Output> {
    if !extras::required("openssl") {
        return None;
    }
    let emulator = env!("CARGO_BIN_EXE_adsproxy");
    Some(run(extras::python()?.arg(deploy("pgo_workload.py")).args([proxy, emulator, "1"])))
}

#[cfg(feature = "sandbox")]
#[test]
fn the_profile_is_taken_from_requests_that_are_served() {
    let Some(output) = workload(env!("CARGO_BIN_EXE_adsproxy")) else { return };
    assert_accepted(&output);
    assert_eq!(said(&output).trim(), "864 requests served");
}

#[cfg(feature = "sandbox")]
#[test]
fn a_proxy_that_does_not_start_gives_no_profile() {
    let Some(output) = workload("false") else { return };
    assert_refused(&output, "the proxy does not start");
}

/// The unit with a program that exists here, as systemd looks for it.
fn unit(directory: &TempDir, from: &str, to: &str) -> PathBuf {
    let program = env!("CARGO_BIN_EXE_adsproxy");
    let text = replaced(&read("adsproxy.service"), "/usr/bin/adsproxy serve", program);
    written(directory, "adsproxy.socket", &read("adsproxy.socket"));
    written(directory, "adsproxy.service", &replaced(&text, from, to))
}

fn verify(unit: &Path) -> Output {
    let mut output = run(Command::new("systemd-analyze").arg("verify").arg(unit));
    // It only warns of a directive that it does not know; to us that is a mistake.
    if !output.stderr.is_empty() {
        output.status = run(&mut Command::new("false")).status;
    }
    output
}

fn exposure(unit: &Path) -> Output {
    let arguments = ["security", "--offline=true", EXPOSURE_MAX];
    run(Command::new("systemd-analyze").args(arguments).arg(unit))
}

#[test]
fn the_systemd_unit_is_valid_and_tight() {
    if !extras::required("systemd-analyze") {
        return;
    }
    let directory = scratch();
    let unit = unit(&directory, "Type=notify", "Type=notify");
    assert_accepted(&verify(&unit));
    assert_accepted(&verify(&directory.path().join("adsproxy.socket")));
    assert_accepted(&exposure(&unit));
}

#[test]
fn the_unit_is_watched_and_starts_without_credentials() {
    let unit = read("adsproxy.service");
    let directive = |name: &str| {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(directive("Type"), ["notify"]);
    assert_eq!(directive("WatchdogSec"), ["30"]);
    assert_eq!(directive("ExecReload"), ["/bin/kill -HUP $MAINPID"]);
    // With an absolute path a missing file is a failure (systemd.exec(5)); each is named in the head.
    let credentials = directive("LoadCredential");
    assert_eq!(credentials.len(), 2);
    for name in credentials {
        assert!(!name.contains([':', '/']), "{name}");
        assert!(unit.contains(&format!("/etc/credstore/{name}\n")), "{name}");
        assert!(unit.contains(&format!("/run/credentials/adsproxy.service/{name}\"")), "{name}");
    }
    let socket = read("adsproxy.socket");
    let name = socket.lines().find_map(|line| line.strip_prefix("FileDescriptorName="));
    assert!(socket.contains(&format!("proxy = [\"systemd:{}\"]", name.expect("a name"))));
}

#[test]
fn an_unknown_directive_does_not_pass_as_a_unit() {
    if !extras::required("systemd-analyze") {
        return;
    }
    let directory = scratch();
    assert_refused(&verify(&unit(&directory, "LimitCORE=", "LimitKORE=")), "LimitKORE");
}

#[test]
fn a_unit_with_capabilities_is_not_tight() {
    if !extras::required("systemd-analyze") {
        return;
    }
    let directory = scratch();
    let unit = unit(&directory, "CapabilityBoundingSet=\n", "");
    assert_accepted(&verify(&unit));
    assert_refused(&exposure(&unit), "exposure level");
}

#[test]
fn the_alerts_are_valid_and_fire_when_they_should() {
    if !extras::required("promtool") {
        return;
    }
    assert_accepted(&run(Command::new("promtool")
        .args(["check", "rules"])
        .arg(deploy("alerts.yml"))));
    let tests = deploy("alerts_test.yml");
    assert_accepted(&run(Command::new("promtool").args(["test", "rules"]).arg(tests)));
}

#[test]
fn no_alert_drops_the_namespace_and_the_pod() {
    let rules = read("alerts.yml");
    assert!(!rules.contains("sum(") && !rules.contains(" by ("), "{rules}");
    assert!(rules.matches("- alert:").count() > 9);
}

#[test]
fn an_alert_on_another_state_does_not_pass_its_test() {
    if !extras::required("promtool") {
        return;
    }
    let directory = scratch();
    let rules = replaced(&read("alerts.yml"), r#"state=~"sealed|unreadable""#, r#"state="fresh""#);
    written(&directory, "alerts.yml", &rules);
    let tests = written(&directory, "alerts_test.yml", &read("alerts_test.yml"));
    let output = run(Command::new("promtool").args(["test", "rules"]).arg(tests));
    assert_refused(&output, "AdsproxyRecordSealed");
}

#[test]
fn a_licence_that_is_not_on_the_list_is_refused() {
    let Some(mut python) = extras::python() else { return };
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = scratch();
    let rules = fs::read_to_string(top.join("deny.toml")).expect("a file of ours");
    let rules = replaced(&rules, "\"CDLA-Permissive-2.0\",", "");
    let file = written(&directory, "deny.toml", &rules);
    let output = run(python.arg("tests/tools/dependencies.py").arg(file).current_dir(top));
    assert_refused(&output, "webpki-root-certs");
}

/// What the checker of compose files says of the file with `from` replaced.
fn check_compose(from: &str, to: &str) -> Option<Output> {
    let directory = scratch();
    let file = written(&directory, "compose.yaml", &replaced(&read("compose.yaml"), from, to));
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    Some(run(extras::python()?.arg(top.join("tests/tools/compose.py")).arg(file)))
}

#[test]
fn the_compose_file_passes_the_strict_schema_and_its_mistakes_do_not() {
    let Some(good) = check_compose("name: adsproxy", "name: adsproxy") else { return };
    assert_accepted(&good);
    assert_eq!(said(&good).trim(), "services: adsproxy database migrate sandbox");
    for (from, to, because) in [
        ("read_only:", "readonly:", "readonly"),
        ("secrets: [database-url]", "secrets: [database-ur]", "database-ur"),
        ("      database:\n        condition", "      databas:\n        condition", "depends on"),
        ("condition: service_healthy", "conditon: service_healthy", "condition"),
    ] {
        let bad = check_compose(from, to).expect("as before");
        assert_refused(&bad, because);
    }
}

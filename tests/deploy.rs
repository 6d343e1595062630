//! What lies in `deploy/` is accepted by the tools that will read it, and its mistakes are not.

use crate::support::extras;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// The oldest version with native sidecars switched on, a current one, the newest known.
const KUBERNETES_VERSIONS: [&str; 3] = ["1.29", "1.33", "1.37"];

/// `systemd-analyze security`: tenths of its exposure level, 0 the safest, 100 the least safe.
const EXPOSURE_MAX: &str = "--threshold=15";

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).expect("a file of ours")
}

/// `text` with `from` replaced, which must be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the file any more");
    text.replace(from, to)
}

fn written(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().expect("a file in a directory")).expect("a directory");
    fs::write(&path, text).expect("a file in a directory of ours");
    // Some of them are secrets, which adsproxy does not read if others can.
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a file of ours");
    path
}

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), b"\n", &output.stderr].concat()).into()
}

fn assert_accepted(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

/// The tool refuses, and because of what the test broke.
fn assert_refused(output: &Output, because: &str) {
    let said = said(output);
    assert!(!output.status.success(), "accepted: {said}");
    assert!(said.contains(because), "refused, but not because of {because:?}: {said}");
}

fn render(example: &Path) -> String {
    let output = run(Command::new("kubectl").arg("kustomize").arg(example));
    assert_accepted(&output);
    String::from_utf8(output.stdout).expect("YAML in UTF-8")
}

/// A copy of `deploy/kustomize` whose file at `path` is changed.
fn kustomize_with(path: &str, from: &str, to: &str) -> TempDir {
    let directory = scratch();
    for file in [
        "sidecar/kustomization.yaml",
        "sidecar/sidecar.yaml",
        "sidecar/sidecar-cronjob.yaml",
        "example/kustomization.yaml",
        "example/deployment.yaml",
        "example/proxy.toml",
    ] {
        let text = read(&format!("kustomize/{file}"));
        let text = if file == path { replaced(&text, from, to) } else { text };
        written(&directory, file, &text);
    }
    directory
}

fn validate(manifest: &str, version: &str) -> Output {
    let directory = scratch();
    let file = written(&directory, "manifest.yaml", manifest);
    run(Command::new("kubernetes-validate").args(["--strict", "-k", version]).arg(file))
}

#[test]
fn the_example_renders_a_restricted_sidecar_with_probes() {
    if !extras::required("kubectl") {
        return;
    }
    let manifest = render(&deploy("kustomize/example"));
    let sidecar = manifest.split("initContainers:").nth(1).expect("an init container");
    for line in [
        "restartPolicy: Always",
        "image: registry.example.com/adsproxy:0.1.0",
        "path: /startupz",
        "path: /livez",
        "path: /readyz",
        "containerPort: 8790",
        "runAsNonRoot: true",
        "runAsUser: 65532",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "type: RuntimeDefault",
        "terminationMessagePolicy: FallbackToLogsOnError",
        // 0440, and the group that may read.
        "defaultMode: 288",
        "fsGroup: 65532",
    ] {
        assert!(sidecar.contains(line), "{line} is missing in:\n{sidecar}");
    }
    assert!(!manifest.contains("subPath"), "a subPath mount is never updated");
    assert!(!manifest.contains("kind: Secret"), "secrets do not belong into a repository");
    // The hash in its name makes a changed configuration roll the pods.
    let config = manifest.matches("name: adsproxy-config-").count();
    assert_eq!(config, 2, "the ConfigMap and its mount:\n{manifest}");
}

#[test]
fn a_workload_without_the_label_gets_no_sidecar() {
    if !extras::required("kubectl") {
        return;
    }
    let directory = kustomize_with("example/deployment.yaml", "    adsproxy: sidecar\n", "");
    assert!(!render(&directory.path().join("example")).contains("initContainers"));
}

#[test]
fn every_kind_of_workload_can_have_the_sidecar() {
    if !extras::required("kubectl") {
        return;
    }
    for (kind, group) in [("StatefulSet", "apps/v1"), ("DaemonSet", "apps/v1"), ("Job", "batch/v1")]
    {
        let header = format!("apiVersion: {group}\nkind: {kind}\n");
        let from = "apiVersion: apps/v1\nkind: Deployment\n";
        let directory = kustomize_with("example/deployment.yaml", from, &header);
        let manifest = render(&directory.path().join("example"));
        assert!(manifest.contains("path: /startupz"), "{kind}:\n{manifest}");
    }
}

/// The example as a CronJob.
fn cron_job() -> TempDir {
    let text = read("kustomize/example/deployment.yaml");
    let (_, template) = text.split_once("  template:\n").expect("a template");
    let deeper = |line: &str| format!("    {line}\n");
    let template: String = template.lines().map(deeper).collect();
    let template = replaced(
        &template,
        "automountServiceAccountToken: false\n",
        "automountServiceAccountToken: false\n          restartPolicy: Never\n",
    );
    let directory = kustomize_with("example/deployment.yaml", "reports", "reports");
    let cron_job = format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata:\n  name: reports\n  labels: {{app: reports, adsproxy: sidecar}}\nspec:\n  schedule: \"@daily\"\n  jobTemplate:\n    spec:\n      template:\n{template}"
    );
    written(&directory, "example/deployment.yaml", &cron_job);
    directory
}

#[test]
fn a_cron_job_has_the_sidecar_too() {
    if !extras::required("kubectl") {
        return;
    }
    let manifest = render(&cron_job().path().join("example"));
    let template = manifest.split("jobTemplate:").nth(1).expect("a template");
    for line in
        ["restartPolicy: Always", "path: /startupz", "image: registry.example.com/adsproxy:0.1.0"]
    {
        assert!(template.contains(line), "{line} is missing in:\n{manifest}");
    }
    assert_eq!(manifest.matches("name: adsproxy-config-").count(), 2, "{manifest}");
    if extras::required("kubernetes-validate") {
        assert_accepted(&validate(&manifest, KUBERNETES_VERSIONS[0]));
    }
}

#[test]
fn the_sidecar_of_a_cron_job_is_that_of_the_others() {
    let template = |file: &str| {
        let text = read(&format!("kustomize/sidecar/{file}"));
        let (_, template) = text.split_once("template:\n").expect("a template");
        template.lines().map(|line| line.trim_start().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(template("sidecar-cronjob.yaml"), template("sidecar.yaml"));
}

#[test]
fn a_changed_secret_of_the_generator_rolls_the_pods() {
    if !extras::required("kubectl") {
        return;
    }
    let name = |secret: &str| {
        let generator = "components:\n  - ../sidecar\n\nsecretGenerator:\n  - name: adsproxy-secrets\n    files: [client-secret]\n";
        let directory = kustomize_with(
            "example/kustomization.yaml",
            "components:\n  - ../sidecar\n",
            generator,
        );
        written(&directory, "example/client-secret", secret);
        let manifest = render(&directory.path().join("example"));
        let (_, after) = manifest.split_once("secret:\n").expect("the volume");
        let line = after.lines().find(|line| line.contains("name: adsproxy-secrets-"));
        line.expect("a name with a hash").trim().to_owned()
    };
    assert_ne!(name("one"), name("two"));
    assert_eq!(name("one"), name("one"));
}

#[test]
fn the_rendered_manifests_pass_the_strict_schema() {
    if !extras::required("kubectl") || !extras::required("kubernetes-validate") {
        return;
    }
    let manifest = render(&deploy("kustomize/example"));
    for version in KUBERNETES_VERSIONS {
        assert_accepted(&validate(&manifest, version));
    }
}

#[test]
fn a_misspelt_probe_does_not_pass_the_strict_schema() {
    if !extras::required("kubectl") || !extras::required("kubernetes-validate") {
        return;
    }
    let directory = kustomize_with("sidecar/sidecar.yaml", "startupProbe:", "startupprobe:");
    let manifest = render(&directory.path().join("example"));
    for version in KUBERNETES_VERSIONS {
        assert_refused(&validate(&manifest, version), "startupprobe");
    }
}

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
    let text = replaced(&read("Dockerfile"), "cc-debian12:nonroot", "cc-debian12");
    let file = written(&directory, "Dockerfile", &text);
    assert_refused(&run(Command::new("hadolint").arg(file)), "DL3006");
}

#[test]
fn the_image_is_built_by_the_profile_guided_build() {
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains("$(deploy/build-pgo --no-default-features --features jemalloc)"));
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
    let unit = unit(&directory, "Type=exec", "Type=exec");
    assert_accepted(&verify(&unit));
    assert_accepted(&exposure(&unit));
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

/// The sidecar's configuration with its secrets in a directory of the test.
fn check_config(from: &str, to: &str) -> Output {
    let directory = scratch();
    let secrets = directory.path().join("secrets");
    written(&directory, "secrets/client-secret", "a-client-secret");
    written(&directory, "secrets/acme.refresh-token", "Atzr|a-refresh-token");
    let text = replaced(&read("kustomize/example/proxy.toml"), from, to);
    let text = replaced(&text, "/etc/adsproxy/secrets", &secrets.to_string_lossy());
    let file = written(&directory, "proxy.toml", &text);
    run(Command::new(env!("CARGO_BIN_EXE_adsproxy")).arg("check-config").arg("--config").arg(file))
}

#[test]
fn the_sidecar_configuration_is_accepted() {
    assert_accepted(&check_config("[listen]", "[listen]"));
}

#[test]
fn a_misspelt_key_in_the_sidecar_configuration_is_refused() {
    let output = check_config("health =", "healt =");
    assert_refused(&output, "health");
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
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

#[test]
fn the_manifests_on_the_page_are_those_of_the_files_they_name() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join("docs/kubernetes.md")).expect("a file of ours");
    let mut blocks = 0;
    for block in page.split("```yaml\n# ").skip(1) {
        let (path, rest) = block.split_once('\n').expect("a path in the first line");
        let (text, _) = rest.split_once("```").expect("an end of the block");
        let file = fs::read_to_string(top.join(path)).expect("the file that the block names");
        assert!(file.contains(text), "{path} does not hold this any more:\n{text}");
        blocks += 1;
    }
    assert_eq!(blocks, 3);
}

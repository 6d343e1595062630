//! The manifests in `deploy/`: rendered as they lie there, accepted by strict schemas, restricted; and
//! their mistakes are not.

use crate::support::{
    deploy::{
        assert_accepted, assert_refused, deploy, read, replaced, run, said, scratch, written,
    },
    extras,
};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use tempfile::TempDir;

/// The oldest version with native sidecars switched on, a current one, the newest known.
const KUBERNETES_VERSIONS: [&str; 3] = ["1.29", "1.33", "1.37"];

/// The oldest version that there is a schema of.
const BEFORE_NATIVE_SIDECARS: &str = "1.25";

const SIDECAR_CONFIG: &str = "kustomize/example/proxy.toml";

/// What is rendered into `deploy/kubernetes`, and from which directory.
const VARIANTS: [(&str, &str); 5] = [
    ("sidecar", "example"),
    ("cronjob", "cronjob"),
    ("job-before-1.29", "job"),
    ("central", "central"),
    ("external-secrets", "secrets"),
];

/// The manifest of a variant as it lies in the tree.
fn rendered(variant: &str) -> String {
    read(&format!("kubernetes/{variant}.yaml"))
}

fn render(example: &Path) -> String {
    let output = run(Command::new("kubectl").arg("kustomize").arg(example));
    assert_accepted(&output);
    String::from_utf8(output.stdout).expect("YAML in UTF-8")
}

/// A copy of `deploy/kustomize` whose file at `path` is changed.
fn kustomize_with(path: &str, from: &str, to: &str) -> TempDir {
    let directory = scratch();
    for folder in fs::read_dir(deploy("kustomize")).expect("a directory") {
        let folder = folder.expect("a folder").path();
        for file in fs::read_dir(&folder).expect("a directory") {
            let file = file.expect("a file").path();
            let name = file.strip_prefix(deploy("kustomize")).expect("below it");
            let name = name.to_str().expect("ASCII");
            let text = fs::read_to_string(&file).expect("text");
            let text = if name == path { replaced(&text, from, to) } else { text };
            written(&directory, name, &text);
        }
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
        "image: registry.example.com/adsproxy@sha256:",
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
        ["restartPolicy: Always", "path: /startupz", "image: registry.example.com/adsproxy@sha256:"]
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
fn the_manifests_in_the_tree_are_those_that_kustomize_prints() {
    if !extras::required("kubectl") {
        return;
    }
    for (variant, from) in VARIANTS {
        let printed = render(&deploy("kustomize").join(from));
        let how =
            format!("kubectl kustomize deploy/kustomize/{from} > deploy/kubernetes/{variant}.yaml");
        assert_eq!(printed, rendered(variant), "if it is meant: {how}");
    }
    let files = fs::read_dir(deploy("kubernetes")).expect("a directory").count();
    assert_eq!(files, VARIANTS.len());
}

#[test]
fn the_rendered_manifests_pass_the_strict_schema() {
    if !extras::required("kubernetes-validate") {
        return;
    }
    for (variant, _) in VARIANTS {
        for version in KUBERNETES_VERSIONS {
            assert_accepted(&validate(&rendered(variant), version));
        }
    }
    assert_accepted(&validate(&rendered("job-before-1.29"), BEFORE_NATIVE_SIDECARS));
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

/// The configuration in `path` with its secrets in a directory of the test.
fn check_config(path: &str, from: &str, to: &str) -> Output {
    let directory = scratch();
    let secrets = directory.path().join("secrets").to_string_lossy().into_owned();
    written(&directory, "secrets/client-secret", "a-client-secret");
    written(&directory, "secrets/acme.refresh-token", "Atzr|a-refresh-token");
    written(&directory, "secrets/encryption-key", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=");
    written(&directory, "secrets/url", "postgres://adsproxy:secret@db.example.com/adsproxy");
    written(&directory, "secrets/database-url", "postgres://adsproxy:secret@database/adsproxy");
    let mut text = replaced(&read(path), from, to);
    for place in ["/etc/adsproxy/secrets", "/etc/adsproxy/database", "/run/secrets"] {
        text = text.replace(place, &secrets);
    }
    let file = written(&directory, "proxy.toml", &text);
    run(Command::new(env!("CARGO_BIN_EXE_adsproxy")).arg("check-config").arg("--config").arg(file))
}

#[test]
fn the_configurations_of_the_variants_are_accepted() {
    assert_accepted(&check_config(SIDECAR_CONFIG, "[listen]", "[listen]"));
    assert_eq!(read(SIDECAR_CONFIG), read("kustomize/config/proxy.toml"));
    if cfg!(feature = "postgres") {
        for path in ["kustomize/central/proxy.toml", "compose.toml"] {
            assert_accepted(&check_config(path, "[listen]", "[listen]"));
        }
    }
}

#[test]
fn a_misspelt_key_in_the_sidecar_configuration_is_refused() {
    let output = check_config(SIDECAR_CONFIG, "health =", "healt =");
    assert_refused(&output, "health");
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
}

/// What the checker of pod security says of a manifest.
fn check_security(manifest: &str) -> Option<Output> {
    let directory = scratch();
    let file = written(&directory, "manifest.yaml", manifest);
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    Some(run(extras::python()?.arg(top.join("tests/tools/restricted.py")).arg(file)))
}

#[test]
fn every_pod_is_restricted_and_every_container_of_ours_pinned_limited_and_probed() {
    for (variant, _) in VARIANTS {
        let Some(output) = check_security(&rendered(variant)) else { return };
        assert_accepted(&output);
        let ours = if variant == "central" { 2 } else { 1 };
        assert_eq!(said(&output).matches("adsproxy: ").count(), ours, "{}", said(&output));
    }
    for (from, to, because) in [
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "root filesystem"),
        ("          drop:\n            - ALL", "          drop:\n            - NET_RAW", "drop"),
        ("runAsUser: 65532", "runAsUser: 0", "user"),
        ("adsproxy@sha256:", "adsproxy:0.1.0 #", "digest"),
        ("livenessProbe:", "livenessprobe:", "livenessProbe"),
        ("type: RuntimeDefault", "type: Unconfined", "seccomp"),
        ("memory: 512Mi", "cpu: 1", "memory"),
    ] {
        let broken = replaced(&rendered("central"), from, to);
        assert_refused(&check_security(&broken).expect("as before"), because);
    }
}

#[test]
fn only_the_init_container_of_the_central_deployment_may_change_the_schema() {
    let manifest = rendered("central");
    let (_, pod) = manifest.split_once("kind: Deployment").expect("a deployment");
    let (serving, init) = pod.split_once("initContainers:").expect("an init container");
    assert!(!serving.contains("adsproxy-migrate") && serving.contains("/etc/adsproxy/database"));
    let (init, volumes) = init.split_once("      volumes:").expect("volumes");
    assert!(init.contains("- migrate\n") && init.contains("name: adsproxy-migrate"));
    assert!(!init.contains("/etc/adsproxy/secrets") && !volumes.contains("adsproxy-migrate"));
    for kind in
        ["Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "ConfigMap"]
    {
        assert!(manifest.contains(&format!("\nkind: {kind}\n")), "{kind}");
    }
    assert!(manifest.contains("topologySpreadConstraints:"));
    assert!(!manifest.contains("  replicas:"), "the autoscaler's number");
}

#[test]
fn without_native_sidecars_the_app_starts_after_adsproxy_whatever_the_kind() {
    if !extras::required("kubectl") {
        return;
    }
    let component = "components:\n  - ../before-1.29\n";
    let job = rendered("job-before-1.29");
    let directory =
        kustomize_with("cronjob/kustomization.yaml", "components:\n  - ../sidecar\n", component);
    let cron_job = render(&directory.path().join("cronjob"));
    for manifest in [&job, &cron_job] {
        let (_, containers) = manifest.split_once("containers:").expect("containers");
        let (first, _) = containers.split_once("name: app\n").expect("the app");
        for part in ["name: adsproxy\n", "postStart:", "- wait\n", "value: /run/adsproxy"] {
            assert!(first.contains(part), "{part} is missing in:\n{first}");
        }
        assert!(!manifest.contains("restartPolicy: Always"), "{manifest}");
    }
    if extras::required("kubernetes-validate") {
        assert_accepted(&validate(&cron_job, BEFORE_NATIVE_SIDECARS));
    }
    // The app's own init containers are not taken for adsproxy.
    let other = kustomize_with("before-1.29/container.yaml", "value: adsproxy", "value: other");
    let output = run(Command::new("kubectl").arg("kustomize").arg(other.path().join("job")));
    assert_refused(&output, "test failed");
    let (plain, deeper) = (
        read("kustomize/before-1.29/container.yaml"),
        read("kustomize/before-1.29/container-cronjob.yaml"),
    );
    let operations = |text: &str| text.split_once('\n').expect("a comment").1.to_owned();
    let deeper = operations(&deeper).replace("/spec/jobTemplate", "");
    assert_eq!(operations(&plain), deeper);
}

#[test]
fn secrets_from_elsewhere_have_the_names_that_the_configuration_reads() {
    let config = read(SIDECAR_CONFIG);
    let files = config.split("/etc/adsproxy/secrets/").skip(1);
    let files: Vec<&str> = files.filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(files, ["client-secret", "acme.refresh-token"]);
    let external = rendered("external-secrets");
    for file in &files {
        assert!(external.contains(&format!("secretKey: {file}\n")), "{file}");
    }
    assert!(external.contains("kind: ExternalSecret\n"));
    if !extras::required("kubectl") {
        return;
    }
    let directory = kustomize_with(
        "secrets/kustomization.yaml",
        "  - external-secret.yaml\n\n# patches:\n#   - path",
        "\npatches:\n  - path",
    );
    let vault = render(&directory.path().join("secrets"));
    for file in files {
        assert!(vault.contains(&format!("agent-inject-secret-{file}: ")), "{file}");
    }
    assert!(vault.contains("secret-volume-path: /etc/adsproxy/secrets\n"));
    assert!(
        !vault.contains("name: adsproxy-secrets")
            && !vault.contains("mountPath: /etc/adsproxy/secrets")
    );
    if extras::required("kubernetes-validate") {
        assert_accepted(&validate(&vault, KUBERNETES_VERSIONS[1]));
    }
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
    assert_eq!(blocks, 4);
}

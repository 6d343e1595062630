//! `tests/run` waits for other users of apt, says what it could not check, and runs once more what failed.

use crate::support::program::{Said, said};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Command,
};
use tempfile::TempDir;

/// Programs that stand in for those of the system, by name and text.
struct Stubs(TempDir);

impl Stubs {
    fn new(programs: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in programs {
            let path = directory.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a program");
            fs::set_permissions(path, Permissions::from_mode(0o755)).expect("its mode");
        }
        Self(directory)
    }

    fn run(&self, script: &str) -> Said {
        let path = std::env::var("PATH").unwrap_or_default();
        said(
            Command::new("bash")
                .args(["-Eeuo", "pipefail", "-c", script])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .env("PATH", format!("{}:{path}", self.0.path().display()))
                .env("CALLS", self.0.path().join("calls")),
        )
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

const UPDATE: &str = ". tests/tools/apt.sh; apt_as=(); apt_retry_secs=0; apt_update";

#[test]
fn another_apt_is_waited_for() {
    let stubs = Stubs::new(&[(
        "apt-get",
        "echo \"$*\" >>\"$CALLS\"; [ \"$(wc -l <\"$CALLS\")\" -ge 3 ] && exit 0\n\
         echo 'E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1' >&2; exit 100",
    )]);
    let update = stubs.run(UPDATE);
    assert_eq!(update.code, Some(0), "{update:?}");
    assert_eq!(stubs.calls(), ["-qq -o DPkg::Lock::Timeout=600 update"; 3]);
}

#[test]
fn a_failure_that_is_no_lock_is_reported_at_once() {
    let stubs =
        Stubs::new(&[("apt-get", "echo x >>\"$CALLS\"; echo 'E: no network' >&2; exit 100")]);
    let update = stubs.run(UPDATE);
    assert_eq!((update.code, update.err.as_str()), (Some(1), "E: no network\n"));
    assert_eq!(stubs.calls().len(), 1);
}

#[test]
fn apt_get_is_called_in_one_place_only() {
    let places = [include_str!("run"), include_str!("tools/apt.sh"), include_str!("../.ci/run")];
    let lines = places.iter().flat_map(|text| text.lines());
    let calls = lines.filter(|line| {
        let is_text = line.trim_start().starts_with(['#']) || line.contains("echo ");
        line.contains("apt-get ") && !is_text
    });
    assert_eq!(calls.count(), 1);
}

#[test]
fn advisories_that_could_not_be_looked_up_are_named() {
    let stubs = Stubs::new(&[("git", "exit 128"), ("cargo", "echo \"$*\" >>\"$CALLS\"; exit 1")]);
    let run = stubs.run("tests/run advisories");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.err.contains("NOT CHECKED: security advisories"), "{run:?}");
    assert!(stubs.calls().is_empty());
}

#[test]
fn an_advisory_that_applies_fails_the_run() {
    for (code, expected) in [(0, Some(0)), (4, Some(4))] {
        let cargo = format!("echo \"$*\" >>\"$CALLS\"; exit {code}");
        let stubs = Stubs::new(&[("git", "exit 0"), ("cargo", &cargo), ("cargo-deny", "exit 9")]);
        let run = stubs.run("tests/run advisories");
        assert_eq!(run.code, expected, "{run:?}");
        assert_eq!(stubs.calls(), ["deny --all-features check advisories"]);
        assert!(!run.err.contains("NOT CHECKED"), "{run:?}");
    }
}

/// `cargo` whose tests fail, with `list` at the end of what it says, and the exit code of those that are run again.
fn failing_cargo(list: &str, again: u8) -> Stubs {
    let text = format!(
        "case \"$*\" in\n*--exact*) echo \"$*\" >>\"$CALLS\"; exit {again};;\n\
         test*) printf 'failures:\\n\\n---- a::b stdout ----\\nx\\n\\nfailures:\\n{list}\\ntest result: FAILED.\\n'; exit 101;;\n\
         esac"
    );
    Stubs::new(&[("cargo", &text)])
}

fn run_fast(stubs: &Stubs) -> Said {
    stubs.run("CARGO_TARGET_DIR=$(dirname \"$CALLS\") tests/run fast")
}

#[test]
fn a_test_that_fails_beside_others_is_run_once_more_and_shown() {
    for (again, is_passed) in [(0, true), (101, false)] {
        let stubs = failing_cargo("    a::b\\n    c::d_1\\n", again);
        let run = run_fast(&stubs);
        assert_eq!(run.code == Some(0), is_passed, "{run:?}");
        let once = "test --locked --all-targets -- --exact a::b c::d_1 --test-threads 1";
        assert_eq!(stubs.calls(), [once]);
        assert!(run.err.contains("FAILED ONCE: a::b\nFAILED ONCE: c::d_1\n"), "{run:?}");
    }
}

#[test]
fn what_has_no_name_or_is_much_fails_at_once() {
    let many: String = (0..11).map(|number| format!("    a::b_{number}\\n")).collect();
    for list in ["", &many] {
        let stubs = failing_cargo(list, 0);
        let run = run_fast(&stubs);
        assert!(run.code != Some(0) && run.err.contains("FAILED in: cargo test"), "{run:?}");
        assert!(stubs.calls().is_empty());
    }
}

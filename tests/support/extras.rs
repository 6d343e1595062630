//! Tests that need more than Rust: plain `cargo test` leaves them out and says so.
//!
//! `tests/run` installs everything and sets `ADSPROXY_TESTS=all`; then what is missing is a
//! failure, so that no such test can be left out unnoticed.

use std::{
    env,
    fs::Metadata,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    thread,
};

/// Says whether the program `tool` is here; if not, the calling test has nothing to do.
pub fn required(tool: &str) -> bool {
    is_executable(tool) || left_out(tool)
}

/// Says whether tests that take minutes are wanted, too.
#[cfg(feature = "sandbox")]
pub fn long() -> bool {
    let wanted = env::var_os("ADSPROXY_TESTS").is_some_and(|tests| tests == "all");
    wanted || left_out("ADSPROXY_TESTS=all")
}

/// Says whether the tests run as root; if not, the calling test has nothing to do.
#[cfg(feature = "sandbox")]
pub fn root() -> bool {
    rustix::process::geteuid().is_root() || left_out("root")
}

/// A shared library of the system, by the end of its path; none if the calling test is to be left
/// out.
#[cfg(feature = "sandbox")]
pub fn library(name: &str) -> Option<std::path::PathBuf> {
    let machine = env::consts::ARCH;
    let found = ["/usr/lib", "/usr/lib64"].map(Path::new).into_iter().flat_map(|directory| {
        [directory.join(name), directory.join(format!("{machine}-linux-gnu")).join(name)]
    });
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        left_out(name);
    }
    found
}

/// The statically linked program; none if the calling test is to be left out.
#[cfg(feature = "sandbox")]
pub fn static_program() -> Option<std::path::PathBuf> {
    let program = env::var_os("ADSPROXY_STATIC").map(Into::into);
    if program.is_none() {
        left_out("ADSPROXY_STATIC");
    }
    program
}

/// The interpreter that has the SDKs and validators; none if the calling test is to be left out.
///
/// Proxy settings of the machine are not for requests to loopback.
pub fn python() -> Option<Command> {
    let Some(python) = env::var_os("ADSPROXY_PYTHON") else {
        left_out("ADSPROXY_PYTHON");
        return None;
    };
    let mut command = Command::new(python);
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    Some(command)
}

/// Node, started in the directory whose `node_modules` has the clients; none if the calling test
/// is to be left out.
#[cfg(feature = "sandbox")]
pub fn node() -> Option<Command> {
    let modules = node_modules()?;
    let mut command = Command::new("node");
    // Modules are found from the directory that the program runs in, when it is given with `-e`.
    command.current_dir(Path::new(&modules).parent().expect("a directory above"));
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").env("NODE_PATH", modules);
    required("node").then_some(command)
}

/// Where the packages of Node are; none if the calling test is to be left out.
#[cfg(feature = "sandbox")]
pub fn node_modules() -> Option<std::path::PathBuf> {
    let modules = env::var_os("ADSPROXY_NODE_MODULES");
    if modules.is_none() {
        left_out("ADSPROXY_NODE_MODULES");
    }
    modules.map(Into::into)
}

fn is_executable(tool: &str) -> bool {
    let may_run = |file: Metadata| file.is_file() && file.permissions().mode() & 0o111 != 0;
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|directory| directory.join(Path::new(tool)))
        .any(|program| program.metadata().is_ok_and(may_run))
}

fn left_out(what: &str) -> bool {
    let wanted = env::var_os("ADSPROXY_TESTS").is_some_and(|tests| tests == "all");
    assert!(!wanted, "{what} is missing, and ADSPROXY_TESTS=all wants every test");
    let current = thread::current();
    let test = current.name().unwrap_or("a test");
    // The test harness swallows what a passing test prints with `print!` and `eprint!`.
    writeln!(io::stderr(), "left out: {test} needs {what} (run tests/run)").ok();
    false
}

#[cfg(test)]
mod tests {
    use super::is_executable;

    #[test]
    fn finds_programs_on_the_path_only() {
        assert!(is_executable("sh"));
        assert!(!is_executable("no-such-program-anywhere"));
    }
}

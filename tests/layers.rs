//! The structure: who may use whom, and what only one file may do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Who may use whom, callers above those they call. An entry with a path allows that part only.
///
/// A new edge is a decision: it gets its line here in a commit of its own.
const MODULES: &[(&str, &str)] = &[
    ("main", EVERYTHING),
    ("cli", EVERYTHING),
    ("sandbox", "app callers::key clock config id named"),
    ("app", EVERYTHING),
    // `inbound` keeps browsers off both listeners in the same way, `proxy` describes a rejection.
    // Commands bring grants over the control socket, which is recorded, and look at what waits for
    // hooks.
    (
        "admin",
        "callers inbound login lwa::authorize store problem proxy named audit config sync account engine token \
         throttling recent provider secret clock id error_chain grants::given hooks metrics",
    ),
    // Stands on what the server, the commands and the library share.
    // Its errors are rows of the one table.
    (
        "login",
        "engine problem forward::headers grants lwa store audit https provider config \
         error_chain secret id",
    ),
    // Puts together what needs no listener.
    (
        "engine",
        "throttling recent sync account audit token reports grants store lwa https metrics config event \
         secret clock error_chain id",
    ),
    (
        "proxy",
        "audit callers problem inbound caller_body telemetry throttling recent sync forward token log metrics \
         provider config deadline clock error_chain trace_context id",
    ),
    // Says which calls are hopeless; knows no requests, only their scopes.
    ("throttling", "metrics provider clock id"),
    // Sees the head of a request and its connection; knows no account, only names of some. What a
    // request to the MCP server is pinned to are fields of Amazon's.
    ("callers", "inbound store metrics https provider config secret clock error_chain id named"),
    ("sync", "audit token reports store lwa config secret error_chain event id"),
    (
        "token",
        "account reports grants lwa store telemetry metrics config secret clock error_chain event \
         trace_context id",
    ),
    // What follows from a change of a grant or token, besides the change.
    ("reports", "audit hooks event"),
    // The only writer of credentials.
    ("grants", "audit store config secret error_chain id"),
    // Its keys are kept in the store.
    ("audit", "store metrics config clock backoff durable_file error_chain id named"),
    // Knows no tokens.
    ("hooks", "store metrics https config secret backoff clock error_chain event id"),
    ("store", "https config secret clock backoff durable_file error_chain id named trusted_path"),
    ("lwa", "https provider config secret backoff id named"),
    (
        "forward",
        "caller_body metrics https provider config deadline executor trace_context id small_write",
    ),
    // Is handed notes of what has ended, and the metrics page.
    ("telemetry", "recent metrics https config backoff clock error_chain trace_context"),
    // What requests were, for who asks later; knows only their names.
    ("recent", "id"),
    // Is handed a service; does not know what is behind it.
    ("listen", "inbound::peer caller_body metrics config executor small_write"),
    ("problem", "inbound"),
    ("inbound", "config"),
    ("log", "config clock id"),
    ("metrics", "account config provider id named"),
    ("account", "id named"),
    ("https", ""),
    ("config", "provider secret event id named trusted_path"),
    // Facts about Amazon; a second provider would be a second file.
    ("provider", "id named"),
    ("backoff", ""),
    ("caller_body", ""),
    ("clock", ""),
    ("deadline", ""),
    ("durable_file", ""),
    ("error_chain", ""),
    ("event", "id named"),
    ("executor", ""),
    ("secret", ""),
    ("small_write", ""),
    ("trace_context", ""),
    ("trusted_path", ""),
    ("id", "named"),
    ("named", ""),
];

/// For the command line and the composition root.
const EVERYTHING: &str = "";

/// A file longer than this has a second job, a function a part with a name of its own.
const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Files and functions that are longer still.
const LONG: &[&str] = &[];

/// Type names that more than one module still defines.
const DUPLICATES: &[&str] = &[];

/// Each module has types of these names.
const COMMON: [&str; 2] = ["Error", "Config"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).expect("a file of ours")
}

/// A source file: its path below `src`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The top-level module it belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().expect("a path");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("_tests.rs") || self.path.ends_with("fuzz.rs")
    }

    /// What runs: no comments, no tests (which come last in a file), no white space.
    fn code(&self) -> String {
        let text = self.text.split("#[cfg(test)]\n").next().expect("a first part");
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.flat_map(str::split_whitespace).collect()
    }

    /// What it takes from other modules: `config`, `forward::body`, …
    fn uses(&self) -> Vec<String> {
        let code = self.code();
        let mut uses = Vec::new();
        for (at, _) in code.match_indices("crate::") {
            uses.extend(paths(&code[at + "crate::".len()..]));
        }
        uses.retain(|used| used.split("::").next() != Some(self.module()));
        uses
    }
}

/// The path that `text` begins with, or all of them if it ends in a group.
fn paths(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
    let (head, rest) = text.split_at(end.unwrap_or(text.len()));
    let Some(group) = rest.strip_prefix('{').filter(|_| head.is_empty() || head.ends_with("::"))
    else {
        return vec![head.trim_end_matches(':').to_owned()];
    };
    let items = items(group);
    let inner = items.iter().flat_map(|item| paths(item));
    inner.map(|path| format!("{head}{path}")).collect()
}

/// What stands between the commas of a group whose brace has been opened.
fn items(group: &str) -> Vec<String> {
    let (mut depth, mut items) = (1, vec![String::new()]);
    for c in group.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match c {
            _ if depth == 0 => break,
            ',' if depth == 1 => items.push(String::new()),
            _ => items.last_mut().expect("never empty").push(c),
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

/// All of `src`.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut directories = vec![root().join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root().join("src")).expect("below src");
                let below = below.to_str().expect("ASCII").to_owned();
                sources.push(Source { path: below, text: read(&path) });
            }
        }
    }
    assert!(sources.len() > 50, "{} files only", sources.len());
    sources
}

/// The places in `src`, but for those that may, where `sign` stands in code.
fn elsewhere(sign: &str, may: &[&str]) -> Vec<String> {
    let sources = sources();
    let others = sources.iter().filter(|source| {
        !source.is_test() && !may.iter().any(|path| source.path.starts_with(path))
    });
    others.filter(|one| one.code().contains(sign)).map(|one| one.path.clone()).collect()
}

#[test]
fn every_use_is_in_the_table() {
    for source in sources().iter().filter(|source| !source.is_test() && source.path != "lib.rs") {
        let module = source.module();
        let entry = MODULES.iter().find(|(name, _)| *name == module);
        let (_, allowed) = entry.unwrap_or_else(|| panic!("{module} is not in the table"));
        if ["main", "cli", "app"].contains(&module) {
            continue;
        }
        for used in source.uses() {
            let is_allowed = allowed
                .split_whitespace()
                .any(|part| used == part || used.starts_with(&format!("{part}::")));
            assert!(is_allowed, "{} uses {used}, which is a new edge", source.path);
        }
    }
}

#[test]
fn the_table_goes_downwards_and_has_no_edge_that_nobody_uses() {
    let sources = sources();
    for (place, (module, allowed)) in MODULES.iter().enumerate() {
        for part in allowed.split_whitespace() {
            let target = part.split("::").next().expect("a name");
            let below = MODULES.iter().position(|(name, _)| *name == target);
            assert!(below.is_some_and(|below| below > place), "{module} uses {target} above it");
            let is_used = sources
                .iter()
                .filter(|source| source.module() == *module)
                .any(|source| source.uses().iter().any(|used| used.starts_with(part)));
            assert!(is_used, "{module} does not use {part} any more");
        }
    }
}

#[test]
fn the_reader_of_uses_sees_groups_and_paths() {
    let text = "//! x\nuse crate::{\n    a::{B, c::D},\n    e,\n};\nuse crate::f::G;\n\
                // crate::h\nfn x() { crate::i::j(); }\n#[cfg(test)]\nmod tests { use crate::k; }\n";
    let source = Source { path: "m/x.rs".into(), text: text.into() };
    assert_eq!(source.uses(), ["a::B", "a::c::D", "e", "f::G", "i::j"]);
    assert_eq!(source.module(), "m");
}

#[test]
fn only_one_module_writes_credentials() {
    for call in [".put_grant(", ".update_grant(", ".remove_grant("] {
        assert!(elsewhere(call, &["store/", "grants.rs"]).is_empty(), "{call}");
        assert!(!elsewhere(call, &["store/"]).is_empty(), "{call}");
    }
}

#[test]
fn only_the_header_rules_write_authorization() {
    for call in ["insert(", "append(", "entry(", "header("] {
        for name in ["AUTHORIZATION", "header::AUTHORIZATION", "\"authorization\""] {
            let found = elsewhere(&format!("{call}{name}"), &["forward/headers.rs", "sandbox/"]);
            assert!(found.is_empty(), "{found:?}");
        }
    }
    assert!(elsewhere("bearer_auth(", &[]).is_empty());
    assert_eq!(elsewhere("insert(AUTHORIZATION", &["sandbox/"]), ["forward/headers.rs"]);
}

#[test]
fn only_the_clock_asks_the_system_for_the_time_of_day() {
    assert_eq!(elsewhere("SystemTime::now(", &[]), ["clock.rs"]);
    assert!(elsewhere("Timestamp::now(", &[]).is_empty());
}

#[test]
fn only_one_file_uses_the_unmaintained_backoff_crate() {
    assert_eq!(elsewhere("use::backoff::", &[]), ["backoff.rs"]);
    assert!(elsewhere("usebackoff::", &[]).is_empty());
}

#[test]
fn unsafe_code_is_forbidden() {
    assert!(read("Cargo.toml").contains("unsafe_code = \"forbid\""));
    for sign in ["unsafe{", "unsafefn", "unsafeimpl", "allow(unsafe_code"] {
        assert!(elsewhere(sign, &[]).is_empty(), "{sign}");
    }
}

#[test]
fn every_file_says_its_job_first_and_has_one_only() {
    for Source { path, text } in &sources() {
        assert!(text.starts_with("//! "), "{path} does not begin with what it is for");
    }
}

/// Compares what was found with the exceptions from a rule, which only ever become fewer.
fn compare(found: &[String], exceptions: &[&str], rule: &str) {
    let new: Vec<_> = found.iter().filter(|one| !exceptions.contains(&one.as_str())).collect();
    assert!(new.is_empty(), "{rule}: {new:?}");
    let stale = exceptions.iter().filter(|one| !found.iter().any(|other| other == *one));
    let stale: Vec<_> = stale.collect();
    assert!(stale.is_empty(), "{rule}: no exception is needed any more for {stale:?}");
}

/// The name that `line` gives to a type or function, by one of `keywords`.
fn defined<'a>(line: &'a str, keywords: &[&str]) -> Option<&'a str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) => rest.split_once(' ')?.1,
        None => line,
    };
    let line = line.strip_prefix("const ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    let name = keywords.iter().find_map(|keyword| line.strip_prefix(keyword))?.strip_prefix(' ')?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.is_test() && source.path != "lib.rs") {
        let targets = source.uses().into_iter().filter_map(|used| {
            used.split("::").next().filter(|name| !name.is_empty()).map(str::to_owned)
        });
        uses.entry(source.module().to_owned()).or_default().extend(targets);
    }
    // What is left when the modules that use none of the others are taken away again and again.
    loop {
        let names: BTreeSet<String> = uses.keys().cloned().collect();
        let is_leaf = |used: &BTreeSet<String>| used.is_disjoint(&names);
        let leaves: Vec<_> =
            uses.iter().filter(|(_, used)| is_leaf(used)).map(|(name, _)| name.clone()).collect();
        if leaves.is_empty() {
            break;
        }
        uses.retain(|name, _| !leaves.contains(name));
    }
    assert!(uses.is_empty(), "in a circle, or above one: {:?}", uses.keys());
}

#[test]
fn a_type_name_is_defined_once() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let text = source.text.split("#[cfg(test)]\n").next().expect("a first part");
        for name in text.lines().filter_map(|line| defined(line, &["struct", "enum", "trait"])) {
            places.entry(name.to_owned()).or_default().insert(source.path.clone());
        }
    }
    assert!(places.len() > 200, "{} types only", places.len());
    let twice = places.into_iter().filter(|(_, places)| places.len() > 1).map(|(name, _)| name);
    let twice: Vec<_> = twice.filter(|name| !COMMON.contains(&name.as_str())).collect();
    compare(&twice, DUPLICATES, "rename one of those that share a name");
}

#[test]
fn no_file_or_function_is_too_long() {
    let mut long = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let text = source.text.split("#[cfg(test)]\n").next().expect("a first part");
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            long.push(source.path.clone());
        }
        for (start, line) in lines.iter().enumerate() {
            let Some(name) = defined(line, &["fn"]) else { continue };
            let indent = &line[..line.len() - line.trim_start().len()];
            let end = lines[start..].iter().position(|line| *line == format!("{indent}}}"));
            if !line.ends_with([';', '}']) && end.is_some_and(|end| end >= FUNCTION_LINES_MAX) {
                long.push(format!("{}: {name}", source.path));
            }
        }
    }
    compare(&long, LONG, "take a part out of these");
}

//! The pages say what the code does: tables, keys, commands, links and tests that they name.

use crate::support::program::Home;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const README_LINES_MAX: usize = 200;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every page, by its path from the top.
fn pages() -> Vec<(String, String)> {
    let docs = fs::read_dir(root().join("docs")).expect("a directory");
    let docs = docs.map(|page| page.expect("an entry").file_name().into_string().expect("UTF-8"));
    let docs = docs.filter(|name| name.ends_with(".md"));
    let mut paths: Vec<String> = docs.map(|name| format!("docs/{name}")).collect();
    paths.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned));
    assert!(paths.len() > 12, "{paths:?}");
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// The rows of the first table below `## section`, without its heading, cell by cell.
fn rows(path: &str, section: &str) -> Vec<Vec<String>> {
    let page = read(path);
    let (_, text) = page.split_once(&format!("\n## {section}\n")).expect("the section");
    table(text)
}

/// The first table in `text`.
fn table(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().skip_while(|line| !line.starts_with("| "));
    let lines = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| {
        let line = line.trim_matches('|').replace("\\|", "\u{0}");
        line.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
    };
    lines.map(cells).collect()
}

/// What stands between backticks.
fn code_spans(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A page without its fenced blocks.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines");
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let mut checked = 0;
    for (path, page) in pages() {
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let above = Path::new(&path).parent().expect("a directory");
            let target: PathBuf =
                if file.is_empty() { path.clone().into() } else { above.join(file) };
            let target = root().join(target);
            assert!(target.exists(), "{path} links to {link}");
            let headings = fs::read_to_string(target).unwrap_or_default();
            let slug = |line: &str| {
                let text = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                text.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect::<String>()
            };
            let is_there =
                headings.lines().any(|line| line.starts_with('#') && slug(line) == anchor);
            assert!(anchor.is_empty() || is_there, "{path} links to {link}");
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked} links");
}

#[test]
fn every_page_is_in_the_readmes_table() {
    let readme = read("README.md");
    for (path, _) in pages() {
        assert!(path == "README.md" || readme.contains(&format!("({path})")), "{path}");
    }
}

#[test]
fn the_modules_are_listed_in_reading_order() {
    let lib = read("src/lib.rs");
    let lines = lib.lines().map(|line| line.strip_prefix("pub ").unwrap_or(line));
    let modules = lines.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let listed: Vec<String> = rows("docs/architecture.md", "Modules")
        .iter()
        .flat_map(|row| code_spans(&row[0]))
        .collect();
    assert_eq!(listed, modules.collect::<Vec<_>>());
}

#[test]
fn the_table_of_errors_is_that_of_the_code() {
    let sections = ["Codes", "Codes of logins and the admin listener"];
    let rows = sections.map(|section| rows("docs/errors.md", section)).concat();
    let listed: BTreeSet<_> =
        rows.iter().map(|row| (row[0].clone(), row[1].trim_matches('`').to_owned())).collect();
    let table = adsproxy::testing::TABLE.iter();
    let table = table.map(|entry| (entry.status.as_str().to_owned(), entry.code.to_owned()));
    assert_eq!(listed, table.collect());
    assert_eq!(listed.len(), rows.len(), "a code is listed twice");
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    let help = read("tests/help.txt");
    let (_, list) = help.split_once("Exit codes:\n").expect("a list");
    let codes = list.lines().map_while(|line| line.strip_prefix("  ")?.split(' ').next());
    let listed = rows("docs/errors.md", "Exit codes");
    assert_eq!(
        listed.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(),
        codes.collect::<Vec<_>>()
    );
}

#[test]
fn the_table_of_routes_is_that_of_the_code() {
    let routes = adsproxy::testing::ROUTES.iter().map(|route| {
        [
            route.method.to_string(),
            format!("`{}`", route.path),
            route.audience.as_str().to_owned()
                + match (route.for_tenants, route.for_users) {
                    (false, false) => "",
                    (true, false) => " for tenants",
                    (false, true) => " for users",
                    (true, true) => " for tenants and users",
                },
            route.summary.into(),
        ]
    });
    let listed = table(&read("docs/admin.md"));
    assert_eq!(listed, routes.map(Vec::from).collect::<Vec<_>>());
}

#[test]
fn the_events_of_hooks_are_those_of_the_code() {
    let listed: Vec<_> = table(&read("docs/hooks.md"))
        .iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    let kinds = adsproxy::testing::Kind::ALL.map(|kind| kind.as_str().to_owned());
    assert_eq!(listed, kinds);
}

/// The keys of the example file: `section.key`, and the sections.
fn config_keys() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut keys, mut sections) = (BTreeSet::new(), BTreeSet::new());
    let mut section = String::new();
    for line in read("proxy.example.toml").lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('[') && line.ends_with(']') {
            section = line.trim_matches(['[', ']']).split('.').next().expect("a name").to_owned();
            sections.insert(section.clone());
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    assert!(keys.len() > 60 && sections.len() > 12, "{keys:?}");
    (keys, sections)
}

/// Files and entries of the audit log, which look like keys of `[audit]` and `[dashboard]`.
const AUDIT_NAMES: [&str; 8] = [
    "audit.jsonl",
    "audit.head",
    "audit.damage",
    "audit.expire",
    "audit.lost",
    "audit.repair",
    "dashboard.sign_in",
    "dashboard.sign_out",
];

#[test]
fn every_configuration_key_that_a_page_names_exists() {
    let (keys, sections) = config_keys();
    let events = adsproxy::testing::Kind::ALL.map(adsproxy::testing::Kind::as_str);
    let mut checked = 0;
    for (path, page) in pages() {
        for span in code_spans(&prose(&page)) {
            let name = span.split([' ', '=']).next().unwrap_or_default();
            let Some((section, key)) = name.split_once('.') else { continue };
            let is_key = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if sections.contains(section)
                && is_key
                && !AUDIT_NAMES.contains(&name)
                && !events.contains(&name)
            {
                assert!(keys.contains(name), "{path} names {name}, which is no key");
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "{checked} keys");
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let rows = rows("docs/security.md", "Promises, and the tests that hold them");
    assert!(rows.len() > 25, "{} promises", rows.len());
    for row in rows {
        let tests = code_spans(&row[1]);
        assert!(!tests.is_empty(), "no test holds: {}", row[0]);
        for test in tests {
            let (module, name) = test.rsplit_once("::").expect("a file and a test");
            let top = if module.contains("::") { "src" } else { "tests" };
            let text = read(&format!("{top}/{}.rs", module.replace("::", "/")));
            assert!(text.contains(&format!("fn {name}()")), "{test}: {}", row[0]);
        }
    }
}

#[test]
fn every_command_has_its_section_and_no_other_has() {
    let help = Home::new().run("--help").out;
    let (_, list) = help.split_once("Commands:\n").expect("a list");
    let commands =
        list.lines().map_while(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let commands: BTreeSet<_> =
        commands.filter(|name| *name != "help").map(str::to_owned).collect();
    let page = read("docs/commands.md");
    let headings = page.lines().filter_map(|line| line.strip_prefix("### "));
    let described: BTreeSet<_> = headings.flat_map(code_spans).collect();
    assert_eq!(described, commands);
}

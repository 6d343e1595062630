//! With the sandbox running, every command of `docs/commands.md` works as printed there.

use crate::support::{program::Said, sandbox::Sandbox};
use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

/// One command of the page and what is printed below it.
#[derive(Debug, PartialEq)]
struct Example {
    command: String,
    output: Vec<String>,
    /// From a comment at the end of the command: `# exits with 1`.
    code: i32,
}

/// The commands in the fenced blocks `console` of `page`, in order.
fn examples(page: &str) -> Vec<Example> {
    let blocks = page.split("```console\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines());
    let mut examples: Vec<Example> = Vec::new();
    for line in lines {
        if let Some(command) = line.strip_prefix("$ ") {
            let (command, code) = command.split_once("# exits with ").unwrap_or((command, "0"));
            let code = code.trim().parse().expect("a number");
            examples.push(Example { command: command.trim().to_owned(), output: Vec::new(), code });
        } else {
            examples.last_mut().expect("a command first").output.push(line.to_owned());
        }
    }
    examples
}

/// Says whether `line` is `pattern`, where `…` is any text, and so are the spaces around it.
fn line_matches(pattern: &str, line: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (pattern, line) = (squeeze(pattern).replace(" … ", "…"), squeeze(line));
    let parts: Vec<_> = pattern.split('…').collect();
    let [first, rest @ ..] = &parts[..] else { return false };
    let Some(mut left) = line.strip_prefix(first) else { return false };
    let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
    for part in middle {
        let Some((_, after)) = left.split_once(part) else { return false };
        left = after;
    }
    left.ends_with(last)
}

/// As [`line_matches`] for whole outputs; a line of `…` alone is any number of lines.
fn matches(pattern: &[String], output: &[&str]) -> bool {
    match pattern.split_first() {
        None => output.is_empty(),
        Some((first, rest)) if first == "…" => {
            (0..=output.len()).any(|skipped| matches(rest, &output[skipped..]))
        }
        Some((first, rest)) => output
            .split_first()
            .is_some_and(|(line, others)| line_matches(first, line) && matches(rest, others)),
    }
}

/// Follows the link of a login to the consent page, and consents as `acme`.
const BROWSER: &str = r#"
consent=$(curl -sc jar -H 'Accept: text/html' -o page.html -w '%{redirect_url}' "$0")
curl -sLb jar -c jar -H 'Accept: text/html' -o page.html "$consent&account=acme"
"#;

/// Runs a login, and plays the browser once it has printed its link.
fn log_in(sandbox: &Sandbox, command: &str) -> Said {
    let mut shell = Command::new("sh");
    let shell = sandbox.beside(shell.args(["-c", &format!("timeout 60 {command} 2>&1")]));
    let mut login = shell.stdout(Stdio::piped()).spawn().expect("there is a shell");
    let mut output = BufReader::new(login.stdout.take().expect("a pipe"));
    let mut out = String::new();
    while !out.contains("http://localhost") {
        assert_ne!(output.read_line(&mut out).expect("text"), 0, "no link: {out}");
    }
    let link = out.split_whitespace().find(|word| word.starts_with("http://localhost"));
    let mut browser = Command::new("sh");
    sandbox.beside(browser.args(["-c", BROWSER, link.expect("a link")])).status().expect("curl");
    output.read_to_string(&mut out).expect("text");
    Said { code: login.wait().expect("it ends").code(), out, err: String::new() }
}

#[test]
fn every_command_of_the_page_works_as_printed() {
    let sandbox = Sandbox::start(120);
    let page = include_str!("../docs/commands.md");
    let page = page.replace("127.0.0.1:8787", &sandbox.proxy.to_string());
    let page = page.replace("127.0.0.1:8788", &sandbox.admin.to_string());
    let page = page.replace("127.0.0.1:8789", &sandbox.emulator.to_string());
    let examples = examples(&page);
    assert!(examples.len() > 30, "{} commands", examples.len());
    let mut failed = Vec::new();
    for example in &examples {
        let said = if example.command.starts_with("adsproxy login ") {
            log_in(&sandbox, &example.command)
        } else {
            sandbox.shell(&example.command)
        };
        let Said { code, out, err } = said;
        let lines: Vec<_> = out.lines().chain(err.lines()).collect();
        if code != Some(example.code) || !matches(&example.output, &lines) {
            failed.push(format!("{example:#?}\nexit code {code:?}\n{out}{err}"));
        }
    }
    assert!(failed.is_empty(), "{}\n{}", failed.join("\n\n"), sandbox.log_end());
    every_file_of_the_store_is_described(&sandbox);
}

fn every_file_of_the_store_is_described(sandbox: &Sandbox) {
    let page = include_str!("../docs/architecture.md");
    let (_, list) = page.split_once("\n## Files on disk\n").expect("the section");
    let store = sandbox.config.parent().expect("a directory").join("store");
    let entries = std::fs::read_dir(store).expect("a directory").map(|entry| entry.expect("it"));
    for entry in entries {
        let name = entry.file_name().into_string().expect("UTF-8");
        let slash = if entry.path().is_dir() { "/" } else { "" };
        assert!(list.contains(&format!("`{name}{slash}`")), "{name} is in no line of the page");
    }
}

#[test]
fn an_output_that_is_not_as_printed_is_noticed() {
    let page =
        "x\n```console\n$ one   # exits with 3\na … c\n…\nend\n$ two\n```\n```sh\n$ no\n```\n";
    let examples = examples(page);
    let expected = Example {
        command: "one".into(),
        output: ["a … c", "…", "end"].map(str::to_owned).into(),
        code: 3,
    };
    assert_eq!(examples[0], expected);
    assert_eq!((examples.len(), examples[1].command.as_str()), (2, "two"));
    let pattern = &expected.output;
    assert!(
        matches(pattern, &["a  b b c", "end"]) && matches(pattern, &["a b c", "x", "y", "end"])
    );
    for other in [&["a b c"][..], &["a b d", "end"], &["a b c", "end", "more"], &[]] {
        assert!(!matches(pattern, other), "{other:?}");
    }
}

//! The audit log of the real program: who did what is on record, and every change of it is found.

use crate::support::{
    canary::Canaries,
    extras::required,
    program::{Home, Said, said},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

const CONFIG: &str = r#"
[lwa]
client_id = "amzn1.application-oa2-client.test"
client_secret = { env = "SECRET" }
[store]
path = "HOME/store"
[encryption]
keys = [{ id = "k1", secret = { file = "key" } }]
"#;
const TOKEN: &str = "Atzr|CANARY-audit-refresh-token";
const NEW_FILES: &str = "[audit]\nmax_bytes = 4096\n";
const LOG: &str = "store/audit.jsonl";

fn home() -> Home {
    home_with("")
}

fn home_with(config: &str) -> Home {
    let home = Home::new();
    configure(&home, config);
    home.write("key", &STANDARD.encode([7; 32]), 0o600);
    home
}

/// The store by its absolute path: strace knows a file that is not there yet by no other.
fn configure(home: &Home, config: &str) {
    let directory = home.path("");
    let directory = directory.to_str().expect("text").trim_end_matches('/');
    let text = format!("{CONFIG}{config}").replace("HOME", directory);
    home.write("proxy.toml", &text, 0o600);
}

/// A home with the same files as `template`.
fn copy_of(template: &Home) -> Home {
    let home = Home::new();
    let copied = Command::new("cp").arg("-a").arg(template.path(".")).arg(home.path("")).status();
    assert!(copied.expect("cp runs").success());
    configure(&home, NEW_FILES);
    home
}

fn command(home: &Home, arguments: &str) -> Command {
    let mut command = home.command(arguments);
    command.env("SECRET", "CANARY-client-secret");
    command
}

fn run(home: &Home, arguments: &str) -> Said {
    said(&mut command(home, arguments))
}

/// `account add` with its token on standard input.
fn add(home: &Home, alias: &str, more: &str) -> Said {
    let mut command = command(home, &format!("account add {alias} --region na {more}"));
    with_token(&mut command)
}

fn with_token(command: &mut Command) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // It may have ended before it read anything.
    let _ = child.stdin.take().expect("a pipe").write_all(TOKEN.as_bytes());
    child.wait_with_output().expect("it ends").into()
}

fn entries(home: &Home) -> Vec<Value> {
    let text = fs::read_to_string(home.path(LOG)).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// `action outcome` of every entry.
fn told(home: &Home) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    entries(home).iter().map(|e| text(&e["action"]) + " " + &text(&e["outcome"])).collect()
}

fn assert_clean(home: &Home) -> Value {
    let verified = run(home, "audit verify --json");
    assert_eq!(verified.code, Some(0), "{}\n{}", verified.out, verified.err);
    serde_json::from_str(&verified.out).expect("JSON")
}

#[test]
fn adding_replacing_and_removing_an_account_is_on_record_without_its_token() {
    let home = home();
    assert_eq!(add(&home, "acme", "").code, Some(0));
    assert_eq!(add(&home, "acme", "--replace").code, Some(0));
    assert_eq!(run(&home, "account remove acme --yes").code, Some(0));
    assert_eq!(
        told(&home),
        [
            "audit.begin ok",
            "account.add attempt",
            "account.add ok",
            "account.change attempt",
            "account.change ok",
            "account.remove attempt",
            "account.remove ok",
        ]
    );
    let uid = rustix::process::getuid().as_raw();
    for entry in &entries(&home)[1..] {
        assert_eq!((&entry["account"], &entry["actor"]), (&"acme".into(), &"cli".into()));
        assert_eq!(entry["uid"], uid);
        assert_eq!(entry["v"], 1);
    }
    assert_eq!(assert_clean(&home)["entries"], 7);
    let mut canaries = Canaries::default();
    for secret in [TOKEN, "CANARY-client-secret"] {
        canaries.add(secret);
    }
    for file in [LOG, "store/audit.head"] {
        canaries.assert_none_in(file, &fs::read(home.path(file)).expect("a file"));
        let mode = fs::metadata(home.path(file)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn nothing_changes_that_cannot_be_written_down() {
    let home = home();
    assert_eq!(add(&home, "acme", "").code, Some(0));
    let record = home.path("store/accounts/acme.json");
    let before = fs::read(&record).expect("a record");
    // Neither root nor anybody else writes to a directory as to a file.
    fs::rename(home.path(LOG), home.path("kept")).expect("moved");
    fs::create_dir(home.path(LOG)).expect("made");
    for refused in [
        add(&home, "acme", "--replace"),
        add(&home, "other", ""),
        run(&home, "account remove acme --yes"),
    ] {
        assert_eq!(refused.code, Some(1), "{}", refused.out);
        assert!(refused.err.contains("audit log"), "{}", refused.err);
    }
    assert_eq!(fs::read(&record).expect("still there"), before);
    assert!(!home.path("store/accounts/other.json").exists());
    fs::remove_dir(home.path(LOG)).expect("removed");
    fs::rename(home.path("kept"), home.path(LOG)).expect("moved back");
    assert_eq!(add(&home, "acme", "--replace").code, Some(0));
    assert_clean(&home);
}

#[test]
fn a_change_of_the_log_is_named_by_file_and_line_and_stays_on_record() {
    let home = home();
    assert_eq!(add(&home, "acme", "").code, Some(0));
    let whole = fs::read_to_string(home.path(LOG)).expect("a log");
    fs::write(home.path(LOG), whole.replacen("account.add", "account.bad", 1)).expect("written");
    let found = run(&home, "audit verify");
    assert_eq!(found.code, Some(1));
    assert!(found.out.contains("audit.jsonl:2: changed"), "{}", found.out);
    assert!(found.err.contains("not as adsproxy wrote it"), "{}", found.err);
    let found: Value = serde_json::from_str(&run(&home, "audit verify --json").out).expect("JSON");
    assert_eq!(found["clean"], false);
    assert_eq!(
        (&found["findings"][0]["line"], &found["findings"][0]["kind"]),
        (&2.into(), &"changed".into())
    );

    // Cut off, and then written to again: what was done is not forgotten.
    let lines: Vec<&str> = whole.lines().collect();
    fs::write(home.path(LOG), lines[..2].join("\n") + "\n").expect("written");
    let found = run(&home, "audit verify");
    assert!(found.out.contains("audit.jsonl:2: the end is cut off: entry 3"), "{}", found.out);
    assert_eq!(add(&home, "acme", "--replace").code, Some(0));
    let found = run(&home, "audit verify");
    assert_eq!(found.code, Some(1));
    assert!(found.out.contains("entry 3 is missing before it"), "{}", found.out);
    assert!(
        found.out.contains("found the log changed when it wrote this (end_cut_off)"),
        "{}",
        found.out
    );
}

#[test]
fn removed_files_are_found_and_expired_ones_are_not_missed() {
    for (keep, expected) in [(0, false), (2, true)] {
        let home = home_with(&format!("[audit]\nmax_bytes = 4096\nkeep = {keep}\nkeep_days = 0\n"));
        for _ in 0..32 {
            assert_eq!(add(&home, "acme", "--replace").code, Some(0));
        }
        let report = assert_clean(&home);
        assert!(report["files"].as_u64().expect("a number") >= 3, "{report}");
        assert_eq!(!home.path("store/audit.000001.jsonl").exists(), expected);
        let oldest = if expected { 2 } else { 1 };
        let mut segments: Vec<_> = (oldest..100)
            .map(|number| home.path(&format!("store/audit.{number:06}.jsonl")))
            .filter(|path| path.exists())
            .collect();
        // On its own, an older file is checked as far as that goes.
        let alone = run(&home, &format!("audit verify {}", segments[0].display()));
        assert_eq!(alone.code, Some(0), "{}", alone.out);
        assert!(alone.out.contains("checked on its own"), "{}", alone.out);
        fs::remove_file(segments.pop().expect("a file")).expect("removed");
        let found = run(&home, "audit verify");
        assert_eq!(found.code, Some(1));
        assert!(found.out.contains("is missing before it"), "{}", found.out);
    }
}

#[test]
fn tail_shows_the_end_one_account_and_what_is_added() {
    let home = home();
    for alias in ["acme", "globex"] {
        assert_eq!(add(&home, alias, "").code, Some(0));
    }
    let all = run(&home, "audit tail -n 2");
    let lines: Vec<&str> = all.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", all.out);
    assert!(lines[0].starts_with("TIME") && lines[0].ends_with("DETAILS"), "{}", all.out);
    for (title, cell) in [("ACTION", "account.add"), ("ACCOUNT", "globex")] {
        let at = lines[0].find(title).expect("a column");
        assert!(lines[1..].iter().all(|line| line[at..].starts_with(cell)), "{}", all.out);
    }
    let count = |flags: &str| run(&home, &format!("audit tail --json {flags}")).out.lines().count();
    assert_eq!(count("--action account"), 4);
    assert_eq!(count("--action account.add --account acme"), 2);
    assert_eq!((count("--action login"), count("--since 1h --action account")), (0, 4));
    assert_eq!(count("--since 2100-01-01T00:00:00Z"), 0);
    let odd = run(&home, "audit tail --since yesterday");
    assert!(odd.code == Some(2) && odd.err.contains("2026-11-20T09:00:00Z"), "{odd:?}");
    let acme = run(&home, "audit tail --account acme --json");
    let acme: Vec<Value> =
        acme.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(acme.len(), 2);
    assert!(acme.iter().all(|entry| entry["account"] == "acme"));

    let mut follow = command(&home, "audit tail -n 0 --follow");
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("it starts");
    let reader = thread::spawn({
        let out = follow.stdout.take().expect("a pipe");
        move || {
            use std::io::{BufRead as _, BufReader};
            BufReader::new(out).lines().nth(1).expect("a line").expect("text")
        }
    });
    // It begins with what is added after its start, whenever that is: add until it has seen one.
    while !reader.is_finished() {
        assert_eq!(add(&home, "late", "--replace").code, Some(0));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(reader.join().expect("a line").contains("late"));
    follow.kill().expect("it was running");
    follow.wait().expect("it ends");
}

#[test]
fn a_flood_of_entries_pushes_out_no_file_that_is_younger_than_it_may_be() {
    let home = home_with("[audit]\nmax_bytes = 4096\nkeep = 1\n");
    for _ in 0..32 {
        assert_eq!(add(&home, "acme", "--replace").code, Some(0));
    }
    assert!(home.path("store/audit.000001.jsonl").exists(), "a week has not passed");
    assert!(home.path("store/audit.000002.jsonl").exists());
    assert_clean(&home);
    // As after a week: the next file makes the older ones go.
    let week = std::time::SystemTime::now() - Duration::from_secs(8 * 86_400);
    for file in ["store/audit.000001.jsonl", "store/audit.000002.jsonl"] {
        let file = fs::File::options().append(true).open(home.path(file)).expect("a file");
        file.set_modified(week).expect("set");
    }
    for _ in 0..16 {
        assert_eq!(add(&home, "acme", "--replace").code, Some(0));
    }
    assert!(!home.path("store/audit.000001.jsonl").exists());
    assert_clean(&home);
}

#[test]
fn without_a_log_the_commands_say_so() {
    let home = home();
    for verb in ["tail", "verify"] {
        let said = run(&home, &format!("audit {verb}"));
        let expected = if verb == "tail" { Some(0) } else { Some(1) };
        assert_eq!(said.code, expected, "{verb}: {}{}", said.out, said.err);
    }
    let home = Home::new();
    home.write(
        "proxy.toml",
        "[lwa]\nclient_id = \"amzn1.application-oa2-client.x\"\n\
        client_secret = { env = \"SECRET\" }\n[store]\nkind = \"memory\"\n",
        0o600,
    );
    for verb in ["tail", "verify"] {
        let said = run(&home, &format!("audit {verb}"));
        assert_eq!(said.code, Some(1));
        assert!(said.err.contains("audit.path"), "{}", said.err);
    }
}

#[test]
fn many_processes_write_one_log_without_a_gap() {
    const PROCESSES: usize = 6;
    const EACH: usize = 5;
    let home = home_with("[audit]\nmax_bytes = 4096\n");
    thread::scope(|scope| {
        for process in 0..PROCESSES {
            let home = &home;
            scope.spawn(move || {
                for _ in 0..EACH {
                    let said = add(home, &format!("a{process}"), "--replace");
                    assert_eq!(said.code, Some(0), "{}", said.err);
                }
            });
        }
    });
    let report = assert_clean(&home);
    let files = report["files"].as_u64().expect("a number");
    assert!(files > 2, "{report}");
    assert_eq!(report["entries"], (PROCESSES * EACH * 2) as u64 + files);
}

/// Runs `arguments` under strace with `inject`, and says how it went and whether it was struck.
fn inject(home: &Home, inject: &str) -> (Said, bool) {
    let plain = command(home, "account add acme --region na --replace");
    let mut command = Command::new("strace");
    command.args(["-f", "-o"]).arg(home.path("trace"));
    for path in ["", "/audit.jsonl", "/audit.000001.jsonl", "/audit.head"] {
        command.arg("-P").arg(home.path(&format!("store{path}")));
    }
    command.args(["-e", "trace=openat,write,pwrite64,fsync,fdatasync,rename,ftruncate,flock"]);
    command.arg("-e").arg(format!("inject={inject}"));
    command.arg(plain.get_program()).args(plain.get_args());
    command.current_dir(home.path("")).env("HOME", home.path("")).env("SECRET", "x");
    command.env("ADSPROXY_CONFIG", home.path("proxy.toml"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace starts");
    let _ = child.stdin.take().expect("a pipe").write_all(TOKEN.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let killed = output.status.signal().is_some();
    let trace = fs::read_to_string(home.path("trace")).unwrap_or_default();
    (output.into(), killed || trace.contains("(INJECTED)"))
}

const CALLS: [&str; 7] =
    ["openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "ftruncate"];

/// A home whose log begins a new file with about the next entry.
fn home_near_the_end_of_a_file() -> Home {
    let home = home_with(NEW_FILES);
    while fs::metadata(home.path(LOG)).map_or(0, |log| log.len()) < 3600 {
        assert_eq!(add(&home, "acme", "--replace").code, Some(0));
    }
    assert!(!home.path("store/audit.000001.jsonl").exists());
    home
}

#[test]
fn a_kill_at_any_call_leaves_a_log_that_verifies() {
    if !required("strace") {
        return;
    }
    let mut kills = 0;
    for template in [home_with(NEW_FILES), home_near_the_end_of_a_file()] {
        for call in CALLS {
            for nth in 1.. {
                let home = copy_of(&template);
                let (_, struck) = inject(&home, &format!("{call}:signal=KILL:when={nth}"));
                if !struck {
                    break;
                }
                kills += 1;
                if home.path("store/audit.jsonl").exists() {
                    assert_clean(&home);
                }
                let said = add(&home, "acme", "--replace");
                assert_eq!(said.code, Some(0), "{call} {nth}: {}", said.err);
                assert_clean(&home);
            }
        }
    }
    eprintln!("{kills} kills");
    // How many depends on how the calls fall to threads, which strace counts one by one.
    assert!(kills >= 20, "{kills}");
}

#[test]
fn a_full_or_broken_disk_refuses_the_change_and_harms_no_entry() {
    if !required("strace") {
        return;
    }
    let template = home_near_the_end_of_a_file();
    let (mut refused, mut errors) = (0, 0);
    for error in ["ENOSPC", "EIO"] {
        for call in CALLS {
            for nth in 1.. {
                let home = copy_of(&template);
                let record = fs::read(home.path("store/accounts/acme.json")).expect("a record");
                let (said, struck) = inject(&home, &format!("{call}:error={error}:when={nth}"));
                if !struck {
                    break;
                }
                errors += 1;
                let now = fs::read(home.path("store/accounts/acme.json")).expect("a record");
                if said.code != Some(0) && said.err.contains("audit log") {
                    refused += 1;
                    assert_eq!(now, record, "{error} {call} {nth}");
                }
                assert_clean(&home);
                assert_eq!(add(&home, "acme", "--replace").code, Some(0));
                assert_clean(&home);
            }
        }
    }
    eprintln!("{errors} errors, {refused} refused");
    assert!(refused >= 10, "{refused}");
}

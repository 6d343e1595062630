//! What a key may be made of, and that making and changing one is written down.

use crate::support::program::{Home, Said, said};
use std::{fs, io::Write, process::Stdio};

#[test]
fn a_passphrase_is_made_a_key_and_a_wrong_one_changes_nothing() {
    let home = Home::new();
    let toml =
        "[lwa]\nclient_id = \"id\"\nclient_secret = { env = \"S\" }\n[store]\npath = \"~/store\"\n";
    home.write("proxy.toml", toml, 0o600);
    let run = |arguments: &str, passphrase: Option<&str>, input: &str| {
        let mut command = home.command(arguments);
        command.env("S", "s").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(passphrase) = passphrase {
            command.env("ADSPROXY_PASSPHRASE", passphrase);
        }
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let said = Said::from(child.wait_with_output().unwrap());
        assert!(!format!("{said:?}").contains("battery"), "{said:?}");
        said
    };
    let (right, wrong) =
        (Some("correct horse battery staple"), Some("correct horse battery stable"));
    let none = run("key init --passphrase", None, "");
    assert!(none.code == Some(78) && none.err.contains("ADSPROXY_PASSPHRASE"), "{none:?}");
    let short = run("key init --passphrase", Some("battery"), "");
    assert!(short.err.contains("shorter than 12"), "{short:?}");
    let early = run("account add acme --region na", right, "Atzr|token");
    assert!(early.code == Some(78) && early.err.contains("key init --passphrase"), "{early:?}");
    assert_eq!(run("key init --passphrase", right, "").code, Some(0));
    assert_eq!(run("account add acme --region na", right, "Atzr|token").code, Some(0));
    assert!(run("key init --passphrase", right, "").out.contains("was ready before"));
    let log = fs::read_to_string(home.path("store/audit.jsonl")).unwrap();
    let made = log.lines().find(|line| line.contains("key.init")).unwrap();
    assert!(made.contains("\"about\":\"default\"") && made.contains("\"ok\""), "{made}");
    let record = fs::read(home.path("store/accounts/acme.json")).unwrap();
    for command in ["account list", "key rotate", "serve"] {
        let refused = run(command, wrong, "");
        assert_eq!(refused.code, Some(78), "{command}: {refused:?}");
        assert!(refused.err.contains("passphrase of key \"default\" is wrong"), "{refused:?}");
    }
    assert_eq!(fs::read(home.path("store/accounts/acme.json")).unwrap(), record);
    fs::remove_dir_all(home.path("store/keys")).unwrap();
    let listed = run("account list", right, "");
    assert!(listed.out.contains("idle"), "the salt is in the record: {listed:?}");
    home.write("store/keys/default.json", "{\"version\":1,", 0o600);
    let listed = run("account list", right, "");
    assert!(listed.out.contains("idle"), "also if the file was cut off: {listed:?}");
    fs::remove_dir_all(home.path("store/keys")).unwrap();
    // From a file, as containers have it.
    home.write("phrase", "correct horse battery staple\n", 0o600);
    let mut command = home.command("account list");
    command.env("S", "s").env("ADSPROXY_PASSPHRASE_FILE", home.path("phrase"));
    assert!(said(&mut command).out.contains("idle"));
}

#[test]
fn keys_are_changed_only_if_that_can_be_written_down() {
    let home = Home::new();
    let made = home.run("key init");
    let (_, lines) = made.out.split_once("\n\n").unwrap();
    let application = "[lwa]\nclient_id = \"id\"\nclient_secret = { file = \"~/secret\" }\n";
    home.write("secret", "s", 0o600);
    home.write("proxy.toml", &format!("{application}{lines}"), 0o600);
    assert_eq!(home.run("key rotate").code, Some(0));
    let log = fs::read_to_string(home.path(".local/state/adsproxy/audit.jsonl")).unwrap();
    assert!(log.contains("\"action\":\"key.rotate\"") && log.contains("\"outcome\":\"attempt\""));
    let toml = fs::read_to_string(home.path("proxy.toml")).unwrap();
    home.write(
        "proxy.toml",
        &format!("{toml}\n[audit]\npath = \"/proc/none/audit.jsonl\"\n"),
        0o600,
    );
    for command in ["key rotate", "key init --path other --id other"] {
        let refused = home.run(command);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains("audit"), "{refused:?}");
    }
    assert!(!home.path("other").exists());
}

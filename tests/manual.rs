//! `adsproxy man`: pages that a reader of manuals can show, one for every command.

use crate::support::{extras, program::Home};
use std::{collections::BTreeSet, fs, process::Command};

/// The commands that the help tells, with those below them: `account`, `account-add`, …
fn commands(home: &Home, above: &str) -> BTreeSet<String> {
    let help = home.run(&format!("{above} --help")).out;
    let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    let lines = list.lines().take_while(|line| !line.trim().is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut all = BTreeSet::new();
    for name in names.filter_map(|line| line.split_whitespace().next()) {
        if name != "help" {
            let name = format!("{above} {name}").trim().to_owned();
            all.extend(commands(home, &name));
            all.insert(name);
        }
    }
    all
}

#[test]
fn there_is_a_page_for_every_command_and_no_other() {
    let home = Home::new();
    let said = home.run("man --dir pages");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let pages = fs::read_dir(home.path("pages")).expect("a directory");
    let pages: BTreeSet<String> =
        pages.map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    let known = commands(&home, "");
    assert!(known.len() > 20 && known.contains("key init"), "{known:?}");
    let mut expected: BTreeSet<String> =
        known.iter().map(|name| format!("adsproxy-{}.1", name.replace(' ', "-"))).collect();
    expected.insert("adsproxy.1".to_owned());
    assert_eq!(pages, expected);
    for name in &known {
        let page = home.run(&format!("man {name}"));
        let file = format!("pages/adsproxy-{}.1", name.replace(' ', "-"));
        assert_eq!(page.out, fs::read_to_string(home.path(&file)).unwrap(), "{name}");
    }
}

#[test]
fn a_command_that_does_not_exist_has_no_page() {
    let said = Home::new().run("man account forget");
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("adsproxy account --help"), "{said:?}");
}

#[test]
fn a_reader_of_manuals_shows_every_page_without_a_warning() {
    if !extras::required("groff") {
        return;
    }
    let home = Home::new();
    home.run("man --dir pages");
    for page in fs::read_dir(home.path("pages")).expect("a directory") {
        let page = page.unwrap().path();
        let shown = Command::new("groff")
            .args(["-man", "-Kutf8", "-Tutf8", "-P-cbou", "-ww"])
            .arg(&page)
            .output();
        let shown = shown.expect("groff runs");
        let (out, err) = (String::from_utf8_lossy(&shown.stdout), shown.stderr);
        assert!(shown.status.success() && err.is_empty(), "{page:?}: {}", err.escape_ascii());
        assert!(out.contains("SYNOPSIS") && out.contains("adsproxy"), "{page:?}: {out}");
    }
}

//! Every shape of one record or many is read, and nothing is quoted when it cannot be.

use super::*;

/// Line, key and refresh token of every record, or why it is broken.
fn read(raws: anyhow::Result<Vec<Raw>>) -> Vec<(usize, Option<String>, String)> {
    let token = |raw: &Raw| raw.text("refresh_token").unwrap_or_default().to_owned();
    let raws = raws.expect("records").into_iter();
    raws.map(|raw| {
        let text = raw.broken.clone().unwrap_or_else(|| token(&raw));
        (raw.line.expect("a line"), raw.key, text)
    })
    .collect()
}

#[test]
fn every_shape_of_one_or_many_is_read() {
    let one =
        |line, key: Option<&str>, token: &str| (line, key.map(str::to_owned), token.to_owned());
    for (text, expected) in [
        (r#"{"refresh_token":"a"}"#, vec![one(1, None, "a")]),
        (
            "[\n{\"refresh_token\":\"a\"},\n\n{\"refresh_token\":\"b\"}]",
            vec![one(2, None, "a"), one(4, None, "b")],
        ),
        (
            "{\"refresh_token\":\"a\"}\n\n{\"refreshToken\":\"b\"}\n",
            vec![one(1, None, "a"), one(3, None, "b")],
        ),
        (
            "{\n\"x\": {\"refresh_token\":\"a\"},\n\"y\": {\"refresh_token\":\"b\"}\n}",
            vec![one(2, Some("x"), "a"), one(3, Some("y"), "b")],
        ),
        ("{\"accounts\": [\n{\"refresh_token\":\"a\"}]}", vec![one(2, None, "a")]),
        ("{\"tokens\": {\"x\": {\"refresh_token\":\"a\"}}}", vec![one(1, Some("x"), "a")]),
        ("{\"tokens\": {\"refresh_token\":\"a\"}}", vec![one(1, None, "a")]),
        ("{\"web\": {\"refresh_token\":\"a\"}}", vec![one(1, None, "a")]),
        ("{\"oauth\": {\"refresh_token\":\"a\"}, \"lwa\": {}}", vec![one(1, None, "a")]),
        ("{\"x\": {\"oauth\": {\"refresh_token\":\"a\"}}}", vec![one(1, Some("x"), "a")]),
        (
            "{\"version\": 1, \"accounts\": [\n{\"refresh_token\":\"a\"}], \"at\": \"x\"}",
            vec![one(2, None, "a")],
        ),
        ("[]", vec![]),
    ] {
        assert_eq!(read(json(text)), expected, "{text}");
    }
}

#[test]
fn a_broken_record_costs_no_other() {
    let text = "{\"refresh_token\":\"a\"}\n{\"refresh_token\":\n[1]\n{\"refresh_token\":\"b\"}";
    let texts: Vec<_> = read(json(text)).into_iter().map(|(_, _, text)| text).collect();
    assert_eq!(texts, ["a", "this line is not JSON (column 17)", "it is not an object", "b"]);
    let text = r#"[1, {"refresh_token":[]}, {"refresh_token":"a","refresh_token":"b"}]"#;
    let texts: Vec<_> = read(json(text)).into_iter().map(|(_, _, text)| text).collect();
    let other = "refresh_token is neither text nor a number";
    assert_eq!(texts, ["it is not an object", other, "refresh_token is there twice"]);
}

#[test]
fn what_stands_around_the_records_holds_for_all_that_do_not_say_it_themselves() {
    let text = r#"{"lwa_client_id":"x","name":"export","accounts":[
        {"refresh_token":"a"}, {"refresh_token":"b","client":{"id":"y"}}]}"#;
    let raws = json(text).expect("records");
    let of = |field| raws.iter().map(|raw| raw.text(field)).collect::<Vec<_>>();
    assert_eq!(of("client_id"), [Some("x"), Some("y")]);
    assert_eq!(of("account"), [None, None]);
    let only = r#"{"name":"acme","token":{"refresh_token":"a","scope":"s","more":{"x":1}}}"#;
    let raws = json(only).expect("records");
    assert_eq!(raws[0].text("account"), Some("acme"));
    assert_eq!(raws[0].unused.iter().collect::<Vec<_>>(), ["more.x", "scope"]);
}

#[test]
fn a_hostile_file_costs_no_more_time_than_it_is_long() {
    let nested = |n| "{\"data\":".repeat(n) + "1" + &"}".repeat(n);
    assert!(json(&nested(3)).is_err(), "no record");
    // Quadratic, this would take hours.
    assert_eq!(json(&nested(100_000)).expect("an object that is none of ours").len(), 1);
    let many = format!("[{}]", vec!["\n{\"refresh_token\":\"a\"}"; 50_000].join(","));
    assert_eq!(json(&many).expect("JSON")[49_999].line, Some(50_001));
}

#[test]
fn what_holds_no_record_is_refused_without_its_content() {
    for text in ["", "\"CANARY\"", "1", "{}", "{\"CANARY\":1}", "{\"a\":\"CANARY", "CANARY"] {
        let error = format!("{:#}", json(text).expect_err("no records"));
        assert!(!error.contains("CANARY"), "{error}");
    }
    for text in ["", "acme,Atzr|CANARY,eu\n"] {
        let error = format!("{:#}", table(text).expect_err("no heading"));
        assert!(!error.contains("CANARY"), "{error}");
    }
    let error = format!("{:#}", variables("A=b\nCANARY").expect_err("no variable"));
    assert!(error.contains("line 2") && !error.contains("CANARY"), "{error}");
}

#[test]
fn every_usual_table_is_read() {
    for text in [
        "account,refresh_token,region\nacme,Atzr|x,eu\n",
        "account;Refresh Token;region;note\r\nacme;Atzr|x;eu;\"a;b\"\r\n",
        "region\trefreshToken\taccount\n\neu\tAtzr|x\tacme",
        "\"account\", \"refresh_token\", \"region\"\n\"acme\", \"Atzr|x\", eu\n",
    ] {
        let raws = table(text).expect("a table");
        let [raw] = &raws[..] else { panic!("{text}") };
        let found = ["account", "refresh_token", "region"].map(|field| raw.text(field));
        assert_eq!(found, [Some("acme"), Some("Atzr|x"), Some("eu")], "{text}");
    }
}

#[test]
fn a_row_knows_its_line() {
    let rows = read(table("account,refresh_token\n\"a\nb\",x\n\n,\nc,y,z\nd\n"));
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [2, 6, 7]);
    assert_eq!(rows[0].2, "x");
    assert!(rows[1].2.starts_with("it has 3 fields, the heading has 2"), "{rows:?}");
    assert!(rows[2].2.starts_with("it has 1 fields"), "{rows:?}");
}

#[test]
fn every_mapping_of_yaml_is_an_account() {
    let text = "version: '1.0'\n\ndefault:\n  refresh_token: Atzr|a\n  profile_id: 123\n\
                germany:\n  <<: {client_id: x}\n  refresh_token: 'Atzr|b'\n  more: [1]\n";
    let raws = yaml(text).expect("YAML");
    let names: Vec<_> = raws.iter().map(|raw| raw.key.as_deref()).collect();
    assert_eq!(names, [Some("default"), Some("germany")]);
    assert_eq!(raws[1].text("refresh_token"), Some("Atzr|b"));
    assert_eq!(raws[1].text("client_id"), Some("x"));
    assert!(raws[1].unused.contains("more"));
}

#[test]
fn variables_are_read_as_shells_and_tools_write_them() {
    let text = "# a comment\n\nA=1\nexport B='two # words'\nC = \"x\" # why\nD=a#b # c\nE=\n";
    let found = variables(text).expect("variables");
    let of = |name: &str| found[name].as_str();
    assert_eq!(["A", "B", "C", "D", "E"].map(of), ["1", "two # words", "x", "a#b", ""]);
}

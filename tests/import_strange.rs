//! Files as spreadsheets, other tools and haste write them: what is clear is taken, the rest is
//! refused with what to do about it.

use crate::support::importing::{ACCESS, ONE, OTHER_ID, Scene, TWO, csv, outcomes};
use serde_json::{Value, json};

/// Imports one record of `values` with a name, a token and a region.
fn one(scene: &Scene, values: &[(&str, Value)]) -> crate::support::program::Said {
    let mut record = json!({ "account": "acme", "refresh_token": ONE, "region": "na" });
    for (key, value) in values {
        record[*key] = value.clone();
    }
    scene.write("one.json", &record.to_string());
    scene.import("--replace one.json")
}

#[test]
fn a_row_of_delimiters_alone_is_an_empty_line() {
    let scene = Scene::new();
    scene.write("a.csv", &format!("{},,,\n , ,\n\"\",\"\",\n;\n", csv(ONE, TWO)));
    let (code, records) = scene.report("a.csv");
    assert_eq!(records.len(), 3, "{records:?}");
    assert_eq!(code, Some(1), "`;` is a value in a table with commas");
    scene.write("a.csv", &format!("{},,,\n , ,\n\"\",\"\",\n", csv(ONE, TWO)));
    let (code, records) = scene.report("a.csv");
    let expected = [("acme", "unchanged"), ("shop", "unchanged")];
    assert_eq!((code, outcomes(&records)), (Some(0), expected.to_vec()));
}

#[tokio::test]
async fn a_day_of_consent_is_the_same_day_however_it_is_written() {
    let scene = Scene::new();
    for day in [
        json!("20260815"),
        json!(20_260_815),
        json!("2026-08-15"),
        json!("2026/08/15"),
        json!(1_786_752_000),
        json!("1786752000"),
        json!(1_786_752_000_000_u64),
        json!("2026-08-15T00:00:00Z"),
    ] {
        let said = one(&scene, &[("consented_at", day.clone())]);
        assert_eq!(said.code, Some(0), "{day}: {said:?}");
        assert_eq!(scene.record("acme").await.consented_at, Some(1_786_752_000), "{day}");
        assert_eq!(scene.home.run("account remove acme --yes").code, Some(0));
    }
    // The same parser reads the flag.
    let add = "account add acme --region na --consented-at 20260815";
    let added = scene.home.run_with_input(add, ONE);
    assert_eq!(added.code, Some(0), "{added:?}");
    assert_eq!(scene.record("acme").await.consented_at, Some(1_786_752_000));
}

#[test]
fn a_day_before_login_with_amazon_existed_is_refused() {
    let scene = Scene::new();
    for day in ["1970-08-23", "2012-12-31", "46249", "0", "15.08.2026", "08/15/2026"] {
        let said = one(&scene, &[("consented_at", json!(day))]);
        assert!(said.code == Some(1) && said.out.contains("(2013)"), "{day}: {said:?}");
        let mut add = scene.home.command("account add acme --region na --consented-at");
        let said = crate::support::program::said(add.arg(day));
        assert!(said.code == Some(2) && said.err.contains("2013"), "{day}: {said:?}");
    }
}

#[test]
fn a_profile_id_that_a_spreadsheet_rounded_says_so() {
    let scene = Scene::new();
    for profile in ["1.2E+15", "1.2e15", "1234567890.0", "1,2E+15"] {
        let said = one(&scene, &[("profile_id", json!(profile))]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(
            said.out.contains("as spreadsheets do") && said.out.contains("to text"),
            "{said:?}"
        );
    }
    let said = one(&scene, &[("profile_id", json!("ENTITY1"))]);
    assert!(said.code == Some(1) && said.out.contains("/v2/profiles"), "{said:?}");
    assert_eq!(one(&scene, &[("profile_id", json!("1200000000000000"))]).code, Some(0));
}

#[test]
fn the_flag_names_the_only_record_and_a_wrapper_names_none() {
    let record = json!({ "refresh_token": ONE, "region": "na" });
    for text in [
        json!({ "web": record }),
        json!({ "installed": record }),
        json!({ "tokens": { "credentials": record } }),
        json!({ "Token": record, "expires": 3600 }),
        json!([record]),
    ] {
        let scene = Scene::new();
        scene.write("x.json", &text.to_string());
        let said = scene.import("x.json");
        assert!(said.code == Some(1) && said.out.contains("names no account"), "{text}: {said:?}");
        let (code, records) = scene.report("--account acme x.json");
        assert_eq!((code, outcomes(&records)), (Some(0), vec![("acme", "added")]), "{text}");
    }
}

#[test]
fn a_flag_that_contradicts_the_records_name_is_refused_with_both() {
    let scene = Scene::new();
    for text in [
        json!({ "shop": { "refresh_token": ONE, "region": "na" } }),
        json!({ "account": "shop", "refresh_token": ONE, "region": "na" }),
    ] {
        scene.write("x.json", &text.to_string());
        let said = scene.import("--account acme x.json");
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.out.contains("called shop") && said.out.contains("acme"), "{said:?}");
        assert_eq!(scene.import("--dry-run --account shop x.json").code, Some(0));
    }
    scene.write("a.csv", &csv(ONE, TWO));
    let said = scene.import("--account acme a.csv");
    assert!(said.code == Some(1) && said.err.contains("here are 2"), "{said:?}");
    assert!(scene.home.run("account list").out.starts_with("no accounts"));
}

#[test]
fn a_region_may_be_a_marketplace_wherever_it_is_said() {
    let scene = Scene::new();
    for (name, region) in [("US", "na"), ("DE", "eu"), ("jp", "fe"), ("EU", "eu")] {
        let add = format!("account add acme --replace --region {name}");
        assert_eq!(scene.home.run_with_input(&add, ONE).code, Some(0), "{name}");
        let shown = scene.home.run("account list");
        assert!(shown.out.contains(&format!("idle   {region} ")), "{name}: {shown:?}");
    }
    let said = scene.home.run("account add acme --region moon");
    assert!(said.code == Some(2) && said.err.contains("na, eu or fe"), "{said:?}");
}

#[test]
fn every_spelling_of_another_applications_client_id_keeps_the_grant_out() {
    let scene = Scene::new();
    for key in [
        "lwa_client_id",
        "lwaClientId",
        "amazon_client_id",
        "AMAZON_ADS_CLIENT_ID",
        "Amazon-Advertising-API-ClientId",
        "oauthClientId",
        "app_client_id",
        "whatever_it_is_called",
    ] {
        let said = one(&scene, &[(key, json!(OTHER_ID))]);
        assert!(said.code == Some(1) && said.out.contains("add one, see below"), "{key}: {said:?}");
    }
    let record = json!({ "refresh_token": ONE, "region": "na", "account": "acme" });
    let mut nested = record.clone();
    nested["lwa"] = json!({ "client": { "id": OTHER_ID }, "client_id": OTHER_ID });
    for text in [
        nested,
        json!({ "client_id": OTHER_ID, "accounts": [record] }),
        json!({ "client_id": OTHER_ID, "acme": record }),
        json!({ "credentials": record, "lwa": { "client_id": OTHER_ID } }),
    ] {
        scene.write("x.json", &text.to_string());
        let said = scene.import("x.json");
        assert!(said.code == Some(1) && said.out.contains("see below"), "{text}: {said:?}");
    }
    assert!(scene.home.run("account list").out.starts_with("no accounts"));
    // The twin: the client id of the configured application.
    let said = one(&scene, &[("lwa_client_id", json!("id"))]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), "1 added\n"), "{said:?}");
}

#[test]
fn what_is_not_used_is_named_once() {
    let scene = Scene::new();
    let rows = format!("acme,{ONE},na,x,y\nshop,{TWO},eu,x,\n");
    scene.write("a.csv", &format!("account,refresh_token,region,seller,Atzr|odd\n{rows}"));
    let said = scene.import("a.csv");
    assert_eq!(said.code, Some(0), "{said:?}");
    let note = "note: not used: a name that looks like a secret, \"seller\"\n";
    assert!(said.err.contains(note) && said.err.matches("seller").count() == 1, "{said:?}");
    let token = json!({ "refresh_token": ONE, "region": "na", "scope": "s", "other": [1] });
    scene.write("a.json", &json!({ "made": "today", "tokens": { "acme": token } }).to_string());
    let said = scene.import("a.json");
    assert!(said.err.contains("not used: \"made\", \"other\", \"scope\"\n"), "{said:?}");
}

#[test]
fn what_cannot_be_a_refresh_token_is_refused_and_an_unusual_one_is_named() {
    let scene = Scene::new();
    for (token, why) in [
        (format!("\"{ONE}\""), "remove the quotes"),
        (format!("'{ONE}'"), "remove the quotes"),
        (ACCESS.to_owned(), "this is an access token"),
        (OTHER_ID.to_owned(), "belongs to the application"),
        (format!("Bearer {ONE}"), "visible ASCII"),
    ] {
        let said = one(&scene, &[("refresh_token", json!(token))]);
        assert!(said.code == Some(1) && said.out.contains(why), "{why}: {said:?}");
    }
    let said = one(&scene, &[("refresh_token", json!("CANNED-token-of-an-unusual-kind"))]);
    assert!(said.code == Some(0) && said.err.contains("Amazon's do, of: acme"), "{said:?}");
    scene.write("bom.json", &format!("\u{feff}{}", json!({ "a": { "refresh_token": ONE } })));
    assert_eq!(scene.import("--region na bom.json").code, Some(0));
}

#[tokio::test]
async fn a_file_of_variables_is_one_account_whatever_client_reads_it() {
    for (text, expected) in [
        (format!("AMAZON_ADS_REFRESH_TOKEN={ONE}\nAMAZON_ADS_CLIENT_ID=id\n"), "added"),
        (format!("export AD_API_REFRESH_TOKEN='{ONE}'\nAD_API_CLIENT_ID=\"id\" # mine\n"), "added"),
        (format!("LWA_REFRESH_TOKEN={ONE}\nLWA_CLIENT_ID=id\nDATABASE_URL=x\n"), "added"),
        (format!("REFRESH_TOKEN={ONE}\nCLIENT_ID=id\nPORT=1\n"), "added"),
        (format!("AD_API_REFRESH_TOKEN={ONE}\nAMAZON_ADS_REFRESH_TOKEN={ONE}\n"), "added"),
        // Another application's, under another tool's name.
        (format!("AMAZON_ADS_REFRESH_TOKEN={ONE}\nLWA_CLIENT_ID={OTHER_ID}\n"), "see below"),
    ] {
        let scene = Scene::new();
        scene.write(".env", &format!("# made by hand\n\n{text}"));
        let said = scene.import("--region na --account acme .env");
        assert!(said.out.contains(expected), "{text}: {said:?}");
        assert_eq!(said.code, Some(i32::from(expected != "added")), "{text}: {said:?}");
        assert!(!said.err.contains("DATABASE_URL") && !said.err.contains("PORT"), "{said:?}");
    }
    let scene = Scene::new();
    scene.write("ads.env", &format!("AMAZON_ADS_REFRESH_TOKEN={ONE}\nAMAZON_ADS_SCOPE=x\n"));
    let said = scene.import("--from env --region DE ads.env");
    assert!(said.err.contains("not used: \"AMAZON_ADS_SCOPE\""), "{said:?}");
    assert_eq!(scene.record("default").await.region.as_str(), "eu");
    for (text, why) in [
        (format!("AMAZON_REFRESH_TOKEN={ONE}\nLWA_REFRESH_TOKEN={TWO}\n"), "unset the one"),
        ("AMAZON_CLIENT_ID=x\n".to_owned(), "there is no account to import"),
        (format!("{{\"refresh_token\": \"{ONE}\"}}\n"), "line 1 is no NAME=value"),
    ] {
        scene.write(".env.local", &text);
        let said = scene.import("--region na .env.local");
        assert!(said.code == Some(1) && said.err.contains(why), "{why}: {said:?}");
    }
}

#[test]
fn variables_of_every_known_client_are_taken_from_the_environment() {
    let scene = Scene::new();
    for prefix in ["AD_API_", "AMAZON_", "AMAZON_ADS_", "AMAZON_ADVERTISING_", "ADS_API_", "LWA_"] {
        let names =
            ["REFRESH_TOKEN", "CLIENT_ID", "PROFILE_ID"].map(|name| prefix.to_owned() + name);
        let [token, client_id, profile] = names.each_ref().map(String::as_str);
        let variables = [(token, ONE), (client_id, OTHER_ID), (profile, "123")];
        let said = scene.import_with("--from env --region na", &variables);
        assert!(said.code == Some(1) && said.out.contains("see below"), "{said:?}");
        assert!(said.err.contains(&format!("the value of ${client_id}")), "{said:?}");
        let variables = [(token, ONE), (client_id, "id"), (profile, "123")];
        let said = scene.import_with("--from env --region na --dry-run", &variables);
        assert!(said.code == Some(0) && said.err.contains("\"123\""), "{said:?}");
    }
}

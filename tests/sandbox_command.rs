//! `adsproxy sandbox`: the command lines it prints work, and so do our commands beside it.

use crate::support::sandbox::Sandbox;
use adsproxy::sandbox::{
    banner,
    run::{self, RunOptions},
};
use std::{fs, path::Path};

/// The lines of the banner below each title, in order.
fn printed(sandbox: &Sandbox) -> Vec<String> {
    let proxy = sandbox.proxy.to_string();
    let mut printed = banner::requests(&proxy);
    printed.extend(banner::administration(sandbox.admin, &sandbox.key));
    printed.extend(banner::faults(&proxy, sandbox.emulator));
    printed.into_iter().map(|(_, lines)| lines).collect()
}

#[test]
fn every_printed_command_line_does_what_its_title_says() {
    let sandbox = Sandbox::start(120);
    let printed = printed(&sandbox);
    let shell = |lines: &String| sandbox.shell(lines).out;
    let shown: Vec<_> = printed.iter().map(shell).collect();

    assert_eq!(shown[0].matches("\"profileId\":1234567890123456").count(), 3, "{}", shown[0]);
    assert!(shown[1].contains("Sandbox campaign") && shown[1].contains("\"success\":[{"));
    assert!(shown[2].contains("\"status\":\"PENDING\"") && shown[2].contains("\"impressions\""));
    assert_eq!(shown[3].matches("\"progressToken\":\"mine\"").count(), 3, "{}", shown[3]);
    assert_eq!(shown[3].matches("data: ").count(), 4, "{}", shown[3]);
    assert!(shown[4].contains("\"account\":\"globex\"") && shown[4].contains("server.start"));
    assert!(shown[5].contains("/api/auth/amazon/login?account=initech&reconnect="), "{}", shown[5]);
    assert!(shown[6].starts_with("HTTP/1.1 200"), "{}", shown[6]);
    assert!(shown[7].contains("x-ads-proxy-error: reauthorization_required"), "{}", shown[7]);
    assert!(shown[8].starts_with("HTTP/1.1 200"), "{}", shown[8]);
    assert_eq!(shown.len(), 9, "a new command line needs its line here");
    for (_, lines) in banner::requests(&sandbox.proxy.to_string()) {
        assert!(sandbox.banner().contains(&lines), "{lines} is not printed");
    }
}

#[test]
fn the_report_lines_work_again_and_show_the_time_of_day() {
    let sandbox = Sandbox::start(120);
    let lines = &printed(&sandbox)[2];
    // Not downloaded, not even looked at: the next request is for a report of its own.
    let request_only = lines.lines().next().expect("a line");
    for lines in [request_only, lines, lines] {
        let said = sandbox.shell(&format!("{lines}; test ${{#id}} = 36"));
        assert_eq!(said.code, Some(0), "{lines}\n{said:?}");
    }
    let today = jiff::Timestamp::now().to_string();
    let today = today.split('T').next().expect("a date");
    let said = sandbox.shell(lines).out;
    assert!(said.contains(&format!("\"createdAt\":\"{today}")), "{said}");
    assert!(!said.contains("\"impressions\":1011") && said.contains("\"impressions\":1010"));
}

#[cfg(feature = "dashboard")]
#[test]
fn the_banner_names_the_dashboard_which_takes_its_key() {
    let sandbox = Sandbox::start(120);
    let url = format!("http://localhost:{}/dashboard", sandbox.admin.port());
    let line = format!("dashboard {url}   sign in with the key, or run adsproxy dashboard\n");
    assert!(sandbox.banner().contains(&line), "{}", sandbox.banner());
    let sign_in = "curl -s -o /dev/null -w '%{http_code} %{redirect_url}' -H 'Origin: ORIGIN' \
        -d key=KEY URL/sign-in"
        .replace("ORIGIN", url.strip_suffix("/dashboard").expect("a path"))
        .replace("KEY", &sandbox.key)
        .replace("URL", &url);
    let said = sandbox.shell(&sign_in);
    assert_eq!(said.out, format!("303 {url}"), "{said:?}");
    let link = sandbox.adsproxy("dashboard --no-browser");
    assert!(link.out.contains("/dashboard/sign-in?link="), "{link:?}");
}

#[test]
fn our_commands_work_with_the_configuration_that_the_banner_exports() {
    let sandbox = Sandbox::start(120);
    let last = format!("export ADSPROXY_CONFIG='{}'\n", sandbox.config.display());
    assert!(sandbox.banner().ends_with(&last));
    for (command, expected) in [
        ("check-config", ""),
        ("curl acme /v2/profiles", "\"profileId\":1234567890123456"),
        ("token acme", "Atza|"),
        ("exec acme -- printenv ADSPROXY_ACCOUNT", "acme\n"),
        ("env acme", "ADS_API_BASE_URL"),
        ("account list", "globex"),
        ("account show acme", "acme"),
        ("hooks list", ""),
        ("hooks test log", "log"),
        ("key status", "sandbox"),
        ("status", "acme"),
        ("doctor --offline", ""),
        ("wait --max 5s", ""),
        ("healthcheck", ""),
        ("audit tail", "server.start"),
        ("audit verify", ""),
        ("account remove globex --yes", "globex"),
        ("account list", "acme"),
    ] {
        let said = sandbox.adsproxy(command);
        assert_eq!(said.code, Some(0), "{command}: {said:?}\n{}", sandbox.log_end());
        assert!(said.out.contains(expected), "{command}: {said:?}");
    }
}

#[test]
fn the_temporary_directory_goes_with_the_sandbox() {
    let mut sandbox = Sandbox::start(120);
    let home = sandbox.config.parent().expect("a directory").to_owned();
    assert!(home.join("store").is_dir());
    assert_eq!(sandbox.stop(), Some(0), "{}", sandbox.log());
    assert!(!home.exists(), "{:?}", fs::read_dir(home).map(Iterator::count));
}

#[test]
fn a_taken_port_is_refused_with_the_flag_that_changes_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port();
    let free = RunOptions { port: 0, admin_port: 0, emulator_port: 0, token_lifetime_secs: 120 };
    for (options, flag) in [
        (RunOptions { port, ..free.clone() }, "--port"),
        (RunOptions { admin_port: port, ..free.clone() }, "--admin-port"),
        (RunOptions { emulator_port: port, ..free.clone() }, "--emulator-port"),
    ] {
        let error = run::Sandbox::start(&options, &[]).expect_err("the port is taken").to_string();
        assert!(error.ends_with(flag), "{error}");
    }
}

#[test]
fn no_file_of_the_sandbox_can_be_read_by_other_users() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::start(120);
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o077;
    let home = sandbox.config.parent().expect("a directory");
    assert_eq!(mode(home), 0);
    let files = fs::read_dir(home).expect("a directory").map(|entry| entry.unwrap().path());
    let open: Vec<_> = files.filter(|path| path.is_file() && mode(path) != 0).collect();
    assert!(open.is_empty(), "{open:?}");
}

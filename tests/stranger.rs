//! The behaviour tests with a stranger beside each request, who has accounts of the same names: nothing
//! is different but what the stranger is told, that its own has no grant, or that there is none.

use crate::support::{
    proxy::{Proxy, amazon},
    stranger::{VARIABLE, sent},
};
use std::{collections::BTreeSet, fs, process::Command};

/// Files that are not run again, by the reason. All others are.
const LEFT_OUT: [(&str, &str); 6] = [
    (
        "no request of theirs goes to the data plane by the helpers that a stranger listens to",
        "release static_binary account_verify admin_bodies admin_schema audit audit_expiry cli clock_and_sleep closed_streams cmd_caller cmd_curl \
         cmd_doctor cmd_env cmd_exec cmd_policy cmd_policy_session commands_page config dashboard_browser dashboard_details dashboard_live dashboard_browsers dashboard_oidc dashboard_outage dashboard_pages dashboard_pictures dashboard_postgres dashboard_sign_in dashboard_tenants dashboard_canaries dashboard_ways dashboard_fit deploy docs fleet held_elsewhere \
         hostile_directory import import_sources import_strange key_material keyring kubernetes layers \
         library manual monitoring newer_records oauth_answers oauth_browser oauth_command oauth_meanwhile oauth_state \
         postgres_changes postgres_crash postgres_listen postgres_outage postgres_restored \
         postgres_schema postgres_statements postgres_tls public_listener real_clients reconnect_page run_script sandbox sandbox_command scale schemathesis \
         sdk store_behaviour \
         store_crash store_power_cut two_processes version",
    ),
    (
        "they are about other listeners, and commands; a request shows whether a grant works",
        "account_states accounts_change admin admin_address audit_server cmd_status cmd_token \
         crash_points hooks_outbox import_served key_rotation oauth_accounts probes shared_postgres \
         store_copy store_faults throttling_shared wall_clock",
    ),
    (
        "each request has a credential of its own, and who is rejected is counted",
        "admin_matrix tenant_matrix admin_pages admin_sessions caller_certificates caller_jwt caller_keys \
         caller_mcp caller_revocation caller_rules caller_sdk caller_sessions caller_unix callers \
         operate_from_elsewhere requests tenants user_sessions",
    ),
    (
        "attacks, of which each is counted or measured",
        "browser_attacks cpu_of_attacks cpu_of_heads http2_attacks memory mutations",
    ),
    ("every request is recorded, a stranger's too", "telemetry_export telemetry_traces"),
    ("they run the others", "stranger support"),
];

/// Tests that count connections, responses or lines of the log, of which a second caller makes more,
/// or that want a grant for each account.
const COUNTING: [&str; 10] = [
    "bad_input::heads_that_are_no_http_get_a_marked_400_and_the_connection_ends",
    "bad_input::long_heads_get_a_marked_431_at_every_size",
    "control_socket::root_works_beside_a_server_of_another_user_and_leaves_it_as_it_was",
    "early_responses::a_stop_right_after_an_early_response_costs_no_caller_that_response",
    "http2::the_caps_on_headers_hold_in_http_2",
    "limits::bodies_over_the_cap_are_refused_whether_announced_or_not",
    "limits::connections_beyond_the_limit_get_a_503_until_others_end",
    "limits::requests_beyond_the_limit_in_flight_are_refused_at_once",
    "limits::the_caps_on_headers_are_the_configured_ones",
    "reload::a_limit_is_in_force_at_once_and_what_needs_a_restart_is_named",
];

/// Every file of tests.
fn files() -> BTreeSet<&'static str> {
    let lines = include_str!("main.rs").lines();
    lines.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_beside_a_request_where_one_is_asked_for() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let before = sent();
    assert_eq!(proxy.get("/_sink").await.status, 200);
    let is_asked_for = std::env::var_os(VARIABLE).is_some();
    assert_eq!(sent() > before, is_asked_for);
}

/// Run in a process of its own, which is this one with a variable.
#[test]
fn the_data_plane_behaves_the_same_with_a_stranger_beside_each_request() {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let mut run = files();
    let left_out = || LEFT_OUT.iter().flat_map(|(_, files)| files.split_whitespace());
    for file in left_out() {
        assert!(run.remove(file), "{file} is no file, or is left out twice");
    }
    // `outage::` is in the names of the tests of `postgres_outage::` too.
    let looks_run = |file: &&str| run.iter().any(|one| file.ends_with(one));
    let skipped: Vec<_> = left_out().filter(looks_run).map(|file| format!("{file}::")).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let beside = directory.path().join("beside");
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args(run.iter().map(|file| format!("{file}::"))).arg("stranger::a_stranger");
    again.args(COUNTING.iter().flat_map(|name| ["--skip", name]));
    again.args(skipped.iter().flat_map(|file| ["--skip", file]));
    // Most of the time they wait.
    again.args(["--test-threads", "4"]).env(VARIABLE, &beside);
    let said = again.output().expect("it runs");
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{text}\n{}", String::from_utf8_lossy(&said.stderr));
    let beside = fs::read_to_string(beside).expect("names of files");
    let beside: BTreeSet<_> = beside.lines().collect();
    run.insert("stranger");
    assert_eq!(
        run, beside,
        "had a stranger beside a request; any other file is named above, with the reason"
    );
}

//! `adsproxy sandbox`: the command lines it prints work as they stand.

use adsproxy::sandbox::{
    banner,
    run::{RunOptions, Sandbox},
};
use std::process::Command;

fn options() -> RunOptions {
    RunOptions { port: 0, admin_port: 0, emulator_port: 0, token_lifetime_secs: 120 }
}

fn shell(commands: &str) -> String {
    let done = Command::new("sh").args(["-c", commands]).output().expect("there is a shell");
    String::from_utf8(done.stdout).expect("the output is text")
}

#[test]
fn every_printed_command_line_does_what_its_title_says() {
    let sandbox = Sandbox::start(&options(), &[]).expect("the sandbox starts");
    let proxy = sandbox.proxy_address();
    let mut printed = banner::requests(proxy);
    printed.extend(banner::faults(proxy, sandbox.emulator().addr()));
    let shown: Vec<_> = printed.iter().map(|(_, commands)| shell(commands)).collect();

    assert_eq!(shown[0].matches("\"profileId\":1234567890123456").count(), 3, "{}", shown[0]);
    assert!(shown[1].contains("Sandbox campaign") && shown[1].contains("\"success\":[{"));
    assert!(shown[2].contains("\"status\":\"PENDING\"") && shown[2].contains("\"impressions\""));
    assert_eq!(shown[3].matches("data: ").count(), 4, "{}", shown[3]);
    assert!(shown[4].starts_with("HTTP/1.1 200"), "{}", shown[4]);
    assert!(shown[5].contains("x-ads-proxy-error: reauthorization_required"), "{}", shown[5]);
    assert!(shown[6].starts_with("HTTP/1.1 200"), "{}", shown[6]);
    assert_eq!(shown.len(), 7, "a new command line needs its line here");
}

#[test]
fn a_taken_port_is_refused_with_the_flag_that_changes_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port();
    for (options, flag) in [
        (RunOptions { port, ..options() }, "--port"),
        (RunOptions { admin_port: port, ..options() }, "--admin-port"),
        (RunOptions { emulator_port: port, ..options() }, "--emulator-port"),
    ] {
        let error = Sandbox::start(&options, &[]).expect_err("the port is taken").to_string();
        assert!(error.ends_with(flag), "{error}");
    }
}

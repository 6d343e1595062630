//! What hooks are to be told survives kills, bad receivers and people's patience.

use crate::support::{
    grants::open_store,
    program::{Said, said},
    proxy::{ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, amazon, eventually},
    receiver::{Manner, Receiver, SECRET},
};
use adsproxy::{
    sandbox::{CLIENT_SECRET, Emulator},
    testing::list_outbox,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, process::Command, time::Duration};

const KILLS: u64 = 12;

/// A hook that wants refreshes, and retries that a test can wait for.
fn setup(receiver: &Receiver, outbox: &str) -> Setup {
    let hook = receiver.hook("ops", r#"events = ["token.refreshed"]"#);
    let toml = format!(
        "{hook}[outbox]\nretry_min_secs = 0.05\nretry_max_secs = 0.2\n{outbox}\n\
         [token]\nforced_refresh_min_interval_secs = 0\n"
    );
    let env = vec![("HOOK_SECRET".to_owned(), SECRET.to_owned())];
    Setup { toml, file_store: true, env, ..Setup::default() }
}

/// Makes the proxy refresh `acme`'s token; returns the new token's generation.
async fn refresh(amazon: &Emulator, proxy: &Proxy) -> u64 {
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let status: Value = serde_json::from_str(
        proxy.ask_admin("/status").split_once("\r\n\r\n").expect("an answer").1,
    )
    .expect("JSON");
    let accounts = status["accounts"].as_array().expect("accounts");
    let acme = accounts.iter().find(|account| account["account"] == "acme").expect("acme");
    acme["generation"].as_u64().expect("a number")
}

/// The generations of `acme`'s tokens that the receiver was told, in order.
fn told(receiver: &Receiver) -> Vec<u64> {
    let taken = receiver.taken();
    let data = taken.iter().map(|one| one.json()["data"].clone());
    data.filter(|data| data["account"] == "acme")
        .filter_map(|data| data["generation"].as_u64())
        .collect()
}

/// The generations of `acme`'s tokens in the outbox on disk.
fn written(proxy: &Proxy) -> Vec<u64> {
    let store = open_store(proxy);
    let list = || tokio::runtime::Handle::current().block_on(list_outbox(&store));
    let waiting = tokio::task::block_in_place(list).expect("it reads");
    let acme = waiting.iter().filter(|message| message.account.as_deref() == Some("acme"));
    acme.filter_map(|message| message.generation).collect()
}

/// `adsproxy` with the configuration of `proxy`.
fn cli(proxy: &Proxy, arguments: &str) -> Said {
    said(&mut command(proxy, arguments))
}

fn command(proxy: &Proxy, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
    command.env("ADSPROXY_CONFIG", proxy.dir.path().join("proxy.toml"));
    command.args(arguments.split(' ')).env("HOOK_SECRET", SECRET);
    // The very ones of the server: another refresh token would be taken for a new grant.
    command.env("ACME_REFRESH", ACME_REFRESH).env("GLOBEX_REFRESH", GLOBEX_REFRESH);
    command.env("CLIENT_SECRET", CLIENT_SECRET);
    command
}

fn waiting(proxy: &Proxy) -> f64 {
    proxy.metric("adsproxy_hook_outbox_messages")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_arrives_at_least_once_through_kills_at_random_moments() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let mut proxy = Proxy::with(&amazon, setup(&receiver, ""));
    let mut due = BTreeSet::new();
    for kill in 0..KILLS {
        // Sometimes down, so that messages pile up, sometimes up, so that it is killed at work.
        receiver.be(if kill % 3 == 0 { Manner::Status(503) } else { Manner::Status(204) });
        for _ in 0..3 {
            let generation = refresh(&amazon, &proxy).await;
            eventually("it is written down or told", || {
                told(&receiver).contains(&generation) || written(&proxy).contains(&generation)
            })
            .await;
            due.insert(generation);
        }
        std::thread::sleep(Duration::from_micros(1700 * kill));
        proxy.kill();
        proxy = proxy.restart();
    }
    receiver.be(Manner::Status(204));
    let all = || {
        let told: BTreeSet<u64> = told(&receiver).into_iter().collect();
        due.iter().all(|generation| told.contains(generation))
    };
    eventually("everything has arrived", all).await;
    eventually("nothing waits any more", || waiting(&proxy) == 0.0).await;
    assert!(due.len() as u64 >= KILLS * 3);
    // At least once, and hardly ever twice: one attempt may be under way at each kill.
    let twice = told(&receiver).len() - told(&receiver).into_iter().collect::<BTreeSet<_>>().len();
    assert!(twice as u64 <= 4 * KILLS, "{twice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_left_is_delivered_by_another_on_the_same_store() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    receiver.be(Manner::Status(503));
    let mut first = Proxy::with(&amazon, setup(&receiver, ""));
    refresh(&amazon, &first).await;
    eventually("it waits", || waiting(&first) >= 1.0).await;
    // Another process on the same configuration and store.
    let second = Proxy::twin(&first);
    // Two looks of the second at what it may take over.
    eventually("the first still tries alone", || receiver.all().len() > 12).await;
    let ids: BTreeSet<String> = receiver.all().iter().map(|one| one.id().to_owned()).collect();
    let messages = waiting(&first) + waiting(&second);
    assert_eq!(ids.len() as f64, messages, "each message belongs to one process");
    first.kill();
    receiver.be(Manner::Status(204));
    eventually("the second delivers", || {
        receiver.taken().iter().any(|one| one.json()["data"]["account"] == "acme")
    })
    .await;
    eventually("all of it", || waiting(&second) == 0.0).await;
    assert_eq!(receiver.taken().len(), ids.len(), "none of it twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_and_sent_again_by_command() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    receiver.be(Manner::Status(500));
    let proxy = Proxy::with(&amazon, setup(&receiver, "attempts_max = 2\n"));
    for _ in 0..2 {
        refresh(&amazon, &proxy).await;
    }
    let dead = || proxy.metric("adsproxy_hook_dead_letters");
    eventually("two are given up", || dead() >= 2.0 && waiting(&proxy) == 0.0).await;
    assert_eq!(receiver.taken().len(), 0);
    let count = dead() as usize;

    let listed = cli(&proxy, "hooks list --dead --json");
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    let listed: Value = serde_json::from_str(&listed.out).expect("JSON");
    let messages = listed["messages"].as_array().expect("a list");
    assert_eq!(messages.len(), count);
    assert!(messages.iter().all(|one| one["state"] == "dead" && one["attempts"] == 2));
    assert_eq!(messages[0]["last_error"], "responded with 500");
    let table = cli(&proxy, "hooks list").out;
    assert!(table.starts_with("ID ") && table.contains("token.refreshed"), "{table}");

    let wrong = cli(&proxy, "hooks resend msg_of-nobody");
    assert!(wrong.code == Some(1) && wrong.err.contains("msg_of-nobody"), "{}", wrong.err);
    receiver.be(Manner::Status(204));
    let id = messages[0]["id"].as_str().expect("an id");
    let one = cli(&proxy, &format!("hooks resend {id}"));
    assert!(one.code == Some(0) && one.out.starts_with("1 message queued"), "{}", one.err);
    eventually("it arrives", || receiver.taken().iter().any(|one| one.id() == id)).await;
    assert_eq!(receiver.taken().len(), 1, "and no other");
    let rest = cli(&proxy, "hooks resend --all");
    assert_eq!(rest.code, Some(0), "{}", rest.err);
    eventually("the rest arrives", || receiver.taken().len() == count).await;
    eventually("none is left", || dead() == 0.0).await;
    eventually("nothing is listed", || cli(&proxy, "hooks list").out == "no messages\n").await;
    let tail = cli(&proxy, "audit tail --json").out;
    let entries: Vec<Value> =
        tail.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let resent = entries.iter().filter(|entry| entry["action"] == "hook.resend");
    let resent: Vec<_> = resent.map(|entry| (entry["about"].as_str(), &entry["count"])).collect();
    assert_eq!(resent, [(Some(id), &1.into()), (None, &(count - 1).into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_loses_the_oldest_and_says_so() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    receiver.be(Manner::Hang);
    let proxy = Proxy::with(&amazon, setup(&receiver, "messages_max = 3\n"));
    for _ in 0..12 {
        refresh(&amazon, &proxy).await;
    }
    let lost = || proxy.metric("adsproxy_hook_dropped_total{reason=\"outbox_full\"}");
    eventually("some are lost", || lost() >= 5.0).await;
    assert!(waiting(&proxy) <= 3.0);
    assert!(proxy.log().contains("messages to hooks were lost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_store_delivers_too_and_its_commands_say_what_it_cannot() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let setup = Setup { file_store: false, ..setup(&receiver, "") };
    let proxy = Proxy::with(&amazon, setup);
    refresh(&amazon, &proxy).await;
    eventually("it arrives", || !receiver.taken().is_empty()).await;
    let listed = cli(&proxy, "hooks list");
    assert_eq!(listed.code, Some(1));
    assert!(listed.err.contains("store.kind = \"memory\""), "{}", listed.err);
}

/// Makes the proxy report a refresh, until the message is a dead letter.
async fn refresh_in_vain(amazon: &Emulator, proxy: &Proxy) {
    refresh(amazon, proxy).await;
    let dead = || proxy.metric("adsproxy_hook_dead_letters");
    eventually("it is given up", || dead() >= 1.0 && waiting(proxy) == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_shows_and_resends_what_its_memory_has() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    receiver.be(Manner::Status(500));
    let runtime = tempfile::tempdir().expect("a directory");
    let name = "XDG_RUNTIME_DIR";
    let mut setup = Setup { file_store: false, ..setup(&receiver, "attempts_max = 1\n") };
    setup.env.push((name.to_owned(), runtime.path().display().to_string()));
    let mut proxy = Proxy::with(&amazon, setup);
    let run =
        |proxy: &Proxy, arguments: &str| said(command(proxy, arguments).env(name, runtime.path()));
    refresh_in_vain(&amazon, &proxy).await;
    let listed = run(&proxy, "hooks list --dead --json");
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    let listed: Value = serde_json::from_str(&listed.out).expect("JSON");
    assert_eq!(listed["version"], 1);
    assert_eq!(listed["messages"][0]["type"], "token.refreshed");
    assert_eq!(listed["messages"][0]["last_error"], "responded with 500");
    receiver.be(Manner::Status(204));
    let resent = run(&proxy, "hooks resend --all");
    assert!(resent.code == Some(0) && resent.out.contains("queued"), "{}", resent.err);
    eventually("it arrives", || !receiver.taken().is_empty()).await;
    eventually("none is left", || run(&proxy, "hooks list").out == "no messages\n").await;
    assert_eq!(run(&proxy, "hooks resend --all").out, "nothing was given up\n");
    proxy.kill();
    for arguments in ["hooks list", "hooks resend --all"] {
        let alone = run(&proxy, arguments);
        assert_eq!(alone.code, Some(1), "{}", alone.out);
        assert!(alone.err.contains("wait in the server's memory"), "{}", alone.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_a_resent_message_waits_for_the_next_one() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    receiver.be(Manner::Status(500));
    let mut proxy = Proxy::with(&amazon, setup(&receiver, "attempts_max = 1\n"));
    refresh_in_vain(&amazon, &proxy).await;
    proxy.kill();
    receiver.be(Manner::Status(204));
    assert!(cli(&proxy, "hooks list --dead").out.contains("responded with 500"));
    let resent = cli(&proxy, "hooks resend --all");
    assert!(resent.code == Some(0) && resent.out.contains("queued"), "{}", resent.err);
    let listed = cli(&proxy, "hooks list").out;
    assert!(listed.contains("waiting") && !listed.contains("dead"), "{listed}");
    assert_eq!(receiver.taken().len(), 0, "a command that lists or resends delivers nothing");
    let _proxy = proxy.restart();
    eventually("the next server delivers it", || !receiver.taken().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_resends_only_what_it_can_record_with_the_name_of_the_user() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    receiver.be(Manner::Status(500));
    let proxy = Proxy::with(&amazon, setup(&receiver, "attempts_max = 1\n"));
    refresh_in_vain(&amazon, &proxy).await;
    let log = proxy.dir.path().join("store/audit.jsonl");
    let kept = proxy.dir.path().join("kept");
    fs::rename(&log, &kept).expect("moved");
    fs::create_dir(&log).expect("made");
    let refused = cli(&proxy, "hooks resend --all");
    assert!(refused.code == Some(1) && refused.err.contains("audit log"), "{}", refused.err);
    assert!(cli(&proxy, "hooks list").out.contains("dead"), "as it was");
    fs::remove_dir(&log).expect("removed");
    fs::rename(&kept, &log).expect("moved back");
    assert_eq!(cli(&proxy, "hooks resend --all").code, Some(0));
    let text = fs::read_to_string(&log).expect("a log");
    let entries = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let resent: Vec<Value> = entries.filter(|one: &Value| one["action"] == "hook.resend").collect();
    assert_eq!(resent.len(), 1, "{text}");
    let user = rustix::process::geteuid().as_raw();
    assert_eq!((&resent[0]["actor"], &resent[0]["uid"]), (&"cli".into(), &user.into()));
    assert!(resent[0]["request_id"].is_string(), "the server's: {text}");
    // An empty id names no message, and not all of them.
    let empty = said(command(&proxy, "hooks resend").arg(""));
    assert_eq!(empty.code, Some(1), "{}", empty.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_just_before_the_end_is_told_after_it() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    receiver.be(Manner::Status(503));
    let proxy = Proxy::with(&amazon, setup(&receiver, ""));
    let generation = refresh(&amazon, &proxy).await;
    let proxy = proxy.restart();
    receiver.be(Manner::Status(204));
    eventually("it is told", || told(&receiver).contains(&generation)).await;
    drop(proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_a_hook_that_is_gone_is_a_dead_letter() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    receiver.be(Manner::Status(503));
    let mut proxy = Proxy::with(&amazon, setup(&receiver, ""));
    refresh(&amazon, &proxy).await;
    eventually("it waits", || waiting(&proxy) >= 1.0).await;
    proxy.kill();
    let path = proxy.dir.path().join("proxy.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    fs::write(&path, text.replace("name = \"ops\"", "name = \"other\"")).expect("written");
    let proxy = proxy.restart();
    eventually("it is given up", || proxy.metric("adsproxy_hook_dead_letters") >= 1.0).await;
    assert!(cli(&proxy, "hooks list --dead").out.contains("no hook has this name any more"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_can_be_tried_by_command() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let proxy = Proxy::with(&amazon, setup(&receiver, ""));
    let tried = cli(&proxy, "hooks test ops");
    assert!(tried.code == Some(0) && tried.out.starts_with("ops took"), "{}", tried.err);
    assert_eq!(receiver.kinds(), ["hook.test"]);
    receiver.be(Manner::Status(500));
    let tried = cli(&proxy, "hooks test ops");
    assert!(tried.code == Some(1) && tried.err.contains("responded with 500"), "{}", tried.err);
    let unknown = cli(&proxy, "hooks test nobody");
    assert!(unknown.code == Some(1) && unknown.err.contains("configured: ops"), "{}", unknown.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_found_dead_by_a_command_is_told_once() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let mut setup = setup(&receiver, "");
    setup.toml = setup.toml.replace("token.refreshed", "grant.reauthorization_required");
    let proxy = Proxy::with(&amazon, setup);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    amazon.state().lwa.revoke("acme");
    // More than a token ever lives: the command must ask for another one.
    let refused = cli(&proxy, "token acme --min-ttl 2h");
    assert_eq!(refused.code, Some(77), "{}", refused.err);
    eventually("it is told", || !receiver.taken().is_empty()).await;
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.error(), Some("reauthorization_required"));
    assert_eq!(receiver.kinds(), ["grant.reauthorization_required"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_ends_soon_is_told_once_a_day_whoever_starts() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let mut setup = setup(&receiver, "");
    setup.toml = setup.toml.replace("token.refreshed", "grant.expiring");
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    fs::write(&token, "Atzr|another").expect("written");
    let proxy = Proxy::with(&amazon, setup);
    let day = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(345 * 24);
    let arguments = format!(
        "account add soon --region na --consented-at {} --refresh-token-file {}",
        day.strftime("%F"),
        token.display()
    );
    let added = cli(&proxy, &arguments);
    assert_eq!(added.code, Some(0), "{}", added.err);
    eventually("it is told", || !receiver.taken().is_empty()).await;
    let days_left = receiver.taken()[0].json()["data"]["days_left"].clone();
    let remembered = proxy.dir.path().join("store/reminders/soon.json");
    eventually("it is remembered", || remembered.exists()).await;
    // A day may end in between: then that is told, and only that.
    let (proxy, before) = (proxy.restart(), receiver.all().len());
    let settled = || proxy.log().contains("accounts enrolled");
    eventually("it has started", settled).await;
    // Longer than two rounds of reminders.
    let other = cli(&proxy, "exec acme -- sleep 3");
    assert_eq!(other.code, Some(0), "{}", other.err);
    let told = receiver.taken();
    let again = told.iter().filter(|one| one.json()["data"]["days_left"] == days_left).count();
    assert_eq!(again, before, "{told:?}");
}

//! Ways through the dashboard in a real headless Chromium: in by the link of the command, messages to
//! hooks that are sent again, and two tenants side by side.

use crate::dashboard_browser::{World, is_good};
use crate::support::{
    callers::TestCaller,
    commands::Commands,
    dashboard::{PageEvents, Visitor},
    load::TEST_TIMEOUT,
    login::{INITECH, INITECH_PROFILE},
    proxy::eventually,
    receiver::{Manner, Receiver},
};
use adsproxy::sandbox::{CLIENT_ID, Country, Profile};
use serde_json::json;
use std::time::{Duration, Instant};

/// The profile of tenant `b`.
const ZEBRA_PROFILE: i64 = 7_700_000_000_000_077;

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_the_command_signs_a_browser_in_once_with_script_and_without() {
    let Some(mut world) = World::start("").await else { return };
    let uid = format!("user {} of this machine", rustix::process::getuid().as_raw());
    for (who, has_script) in [("anna", true), ("bob", false)] {
        let said = Commands::of(&world.proxy).run("dashboard --no-browser");
        assert_eq!(said.code, Some(0), "{}", said.err);
        let link = said.out.trim();
        let browser = &mut world.browser;
        browser.set_script(who, has_script);
        let page = if has_script {
            browser.open_through(who, link, "Connect an account")
        } else {
            let page = browser.open(who, link);
            is_good(&page, "Sign in · adsproxy");
            assert!(browser.cookies(who).is_empty(), "the link alone signs nobody in");
            browser.click(who, "Sign in with the link")
        };
        is_good(&page, "Accounts · adsproxy");
        assert!(page.text.contains(&uid) && page.text.contains("acme"), "{page:?}");
        assert!(!page.url.contains("link="), "{page:?}");
        // Other browsers come too late.
        for (late, has_script) in [("eve", true), ("mallory", false)] {
            browser.set_script(late, has_script);
            let page = if has_script {
                browser.open_through(late, link, "That is not accepted here")
            } else {
                browser.open(late, link);
                browser.click(late, "Sign in with the link")
            };
            assert!(page.text.contains("That is not accepted here"), "{late}: {page:?}");
            assert!(!page.text.contains("acme"), "{late}: {page:?}");
            assert!(browser.cookies(late).is_empty(), "{late}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_were_given_up_are_sent_again_by_a_button_one_or_all() {
    let receiver = Receiver::start().await;
    receiver.be(Manner::Status(500));
    let hook = receiver.hook("ops", "events = [\"token.refreshed\"]");
    let tenant = TestCaller::new("of-a", "tenant = \"a\"");
    let toml = format!("{hook}[outbox]\nattempts_max = 1\n{}", tenant.toml);
    let Some(mut world) = World::start(&toml).await else { return };
    for account in ["acme", "globex", "acme"] {
        world.amazon.state().lwa.expire_access_tokens(Some(account));
        let call = world.proxy.request(http::Method::GET, "/v2/profiles");
        assert_eq!(world.proxy.send(call.header("x-ads-account", account)).await.status, 200);
    }
    let letters = |world: &World| world.proxy.metric("adsproxy_hook_dead_letters");
    eventually("three are given up", || letters(&world) >= 3.0).await;
    let count = letters(&world) as usize;
    let user = Visitor::with_key(world.proxy.admin, &tenant.key).await;
    let refused = user.post("/dashboard/hooks/resend", &[]).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    let page = world.sign_in("/dashboard/health");
    is_good(&page, "Health · adsproxy");
    assert!(
        page.text.contains(&format!("{count} were given up"))
            && page.text.contains("responded with 500")
    );
    assert!(receiver.taken().is_empty());
    receiver.be(Manner::Status(204));
    let page = world.browser.click("anna", "Send again");
    is_good(&page, "Health · adsproxy");
    eventually("one has come", || receiver.taken().len() == 1).await;
    eventually("the others stay", || letters(&world) as usize == count - 1).await;
    let page = world.browser.click("anna", "Send all again");
    is_good(&page, "Health · adsproxy");
    eventually("all have come", || receiver.taken().len() == count).await;
    assert!(receiver.taken().iter().all(|one| one.kind() == "token.refreshed"));
    // The server learns that a message has come a little later than the receiver.
    let visitor = world.visitor().await;
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !visitor.page("/dashboard/health").await.contains("0 wait, 0 were given up") {
        assert!(Instant::now() < deadline, "some still wait");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let twin = world.visitor().await.post("/dashboard/hooks/resend", &[("id", "none")]).await;
    assert_eq!(twin.status, 404, "{}", twin.text);
}

/// Signs a tenant's user in by its key, and connects an account through the consent page.
fn connect(world: &mut World, key: &str, account: &str, user: &str) {
    let url = world.url("/dashboard/connect");
    let browser = &mut world.browser;
    browser.open(account, &url);
    let script = format!("document.getElementById('key').value = {}; 0", json!(key));
    browser.eval(account, &script);
    browser.click(account, "Sign in");
    let script = format!("document.getElementById('account').value = '{account}'; 0");
    browser.eval(account, &script);
    browser.click(account, "Continue at Amazon");
    let page = browser.click(account, &format!("Allow as {user}"));
    assert!(page.status == 200 && page.text.contains("is connected"), "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_side_by_side_see_nothing_of_each_other() {
    let [a, b] = ["a", "b"]
        .map(|name| TestCaller::new(&format!("of-{name}"), &format!("tenant = \"{name}\"")));
    let Some(mut world) = World::start(&[&*a.toml, &b.toml].concat()).await else { return };
    let zebra = Profile::seller(ZEBRA_PROFILE, Country::De, "Zebra Ltd");
    let lwa = &world.amazon.state().lwa;
    lwa.add_grant("mallory", CLIENT_ID, "Atzr|unused-mallory", vec![zebra]);
    // Each person is called as the account is.
    connect(&mut world, &a.key, "shop", INITECH);
    connect(&mut world, &b.key, "zoo", "mallory");
    let of_a = [
        "shop".to_owned(),
        "of-a".to_owned(),
        a.key[5..13].to_owned(),
        "Initech".to_owned(),
        INITECH_PROFILE.to_string(),
        "/first".to_owned(),
    ];
    let of_b = [
        "zoo".to_owned(),
        "of-b".to_owned(),
        b.key[5..13].to_owned(),
        "Zebra Ltd".to_owned(),
        ZEBRA_PROFILE.to_string(),
        "/second".to_owned(),
    ];
    let text = |world: &mut World, who: &str| {
        let html = world.browser.eval(who, "document.documentElement.outerHTML");
        html.as_str().expect("a text").to_owned()
    };
    let lacks = |text: &str, words: &[String]| {
        for word in words {
            assert!(!text.contains(word.as_str()), "{word} in {text}");
        }
    };
    // Streams that are open while the other one is busy, and what they bring.
    let mut streams = Vec::new();
    for key in [&a.key, &b.key] {
        let visitor = Visitor::with_key(world.proxy.admin, key).await;
        streams.push(
            ["/dashboard", "/dashboard/requests", "/dashboard/health"]
                .map(|path| PageEvents::of(&visitor, path)),
        );
    }
    let requests = world.url("/dashboard/requests");
    for who in ["shop", "zoo"] {
        world.browser.open(who, &requests);
        world.browser.eval(who, "window.mark = 1");
    }
    for (key, who, path) in
        [(&a.key, "shop", "/first"), (&b.key, "zoo", "/second"), (&a.key, "shop", "/first/again")]
    {
        let call = world.proxy.request(http::Method::GET, path).header("x-ads-key", key);
        world.proxy.send(call.header("x-ads-account", who)).await;
        eventually("the own request", || text(&mut world, who).contains(path)).await;
    }
    for (who, words) in [("shop", &of_b), ("zoo", &of_a)] {
        assert_eq!(world.browser.eval(who, "window.mark"), 1, "it is the same page");
        lacks(&text(&mut world, who), words);
    }
    for (who, own, other) in [("shop", &of_a, &of_b), ("zoo", &of_b, &of_a)] {
        let mut seen = String::new();
        for path in [
            "/dashboard".to_owned(),
            format!("/dashboard/accounts/{who}"),
            "/dashboard/requests".to_owned(),
            "/dashboard/callers".to_owned(),
            "/dashboard/health".to_owned(),
            "/dashboard/api".to_owned(),
            "/dashboard/connect".to_owned(),
            format!("/dashboard/accounts/{who}/refresh"),
            format!("/dashboard/accounts/{who}/disconnect"),
        ] {
            let url = world.url(&path);
            let page = world.browser.open(who, &url);
            assert_eq!(page.status, 200, "{page:?}");
            let text = text(&mut world, who);
            lacks(&text, other);
            seen += &text;
        }
        for word in own {
            assert!(seen.contains(word.as_str()), "the twin: {who} sees {word}");
        }
        let others = if who == "shop" { "zoo" } else { "shop" };
        let url = world.url(&format!("/dashboard/accounts/{others}"));
        assert_eq!(world.browser.open(who, &url).status, 404);
    }
    drop(world);
    for (streams, other) in streams.into_iter().zip([&of_b, &of_a]) {
        for stream in streams {
            let text = stream.rest();
            assert!(text.contains("event: part"), "{text}");
            lacks(&text, other);
        }
    }
}

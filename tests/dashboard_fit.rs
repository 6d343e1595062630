//! Each page of the dashboard and for advertisers, however it is reached: axe finds nothing in light and
//! in dark, a narrow window shows all of it, and the keyboard reaches everything.

use crate::dashboard_browser::{PAGES, World};
use crate::support::{
    browser::Browser,
    callers::OPERATOR,
    extras,
    login::{INITECH, beside},
    proxy::eventually,
    receiver::{Manner, Receiver},
};
use adsproxy::sandbox::{CLIENT_ID, Country, Profile};
use std::fs;

/// As long as a name of an account may be, and without a place to break a line.
const LONG: &str = "a1b2c3d4e5f6a1b2c3d4e5f6a1b2c3d4e5f6a1b2c3d4e5f6a1b2c3d4e5f6a1b2";

/// The script that judges pages; none if the calling test is to be left out.
pub fn axe() -> Option<String> {
    let script = extras::node_modules()?.join("axe-core/axe.min.js");
    Some(fs::read_to_string(script).expect("axe-core"))
}

/// What axe finds on the page that is shown, and how grave it is.
pub fn violations(browser: &mut Browser, axe: &str) -> Vec<String> {
    browser.eval("anna", &format!("{axe}; 0"));
    let run = "axe.run().then(found => found.violations.map(one => \
        `${one.impact} ${one.id}: ${one.nodes.map(node => node.html).join(' ')}`))";
    let found = browser.eval("anna", run);
    let found = found.as_array().expect("a list").iter();
    found.map(|one| one.as_str().expect("a text").to_owned()).collect()
}

/// A server whose pages have something of everything; none if the calling test is to be left out.
async fn full_world(receiver: &Receiver) -> Option<World> {
    receiver.be(Manner::Status(500));
    let hook = receiver.hook("ops", "events = [\"token.refreshed\"]");
    let toml = format!(
        "{hook}[outbox]\nattempts_max = 1\n[[callers]]\nname = \"reports\"\n\
         unix_uids = [4294967294]\nread_only = true\npaths = [\"/{LONG}/{LONG}/*\"]\n"
    );
    let world = World::start(&toml).await?;
    let lwa = &world.amazon.state().lwa;
    let profile = |id| Profile::seller(id, Country::De, &format!("{LONG} GmbH & Co. KG"));
    lwa.add_grant("mallory", CLIENT_ID, "Atzr|unused-mallory", vec![profile(77)]);
    for path in ["/v2/profiles", "/_status/403", "/_status/429"] {
        world.proxy.get(path).await;
    }
    let letters = || world.proxy.metric("adsproxy_hook_dead_letters");
    eventually("a message is given up", || letters() >= 1.0).await;
    // Another browser, which has a button.
    world.visitor().await;
    Some(world)
}

/// Calls `look` at each page, with its name.
async fn at_each_page(world: &mut World, look: &mut dyn FnMut(&mut World, &str)) {
    world.open("/dashboard");
    look(world, "sign-in");
    world.browser.eval("anna", "document.getElementById('key').value = 'x'; 0");
    world.browser.click("anna", "Sign in");
    look(world, "sign-in, refused");
    world.browser.set_script("anna", false);
    world.open("/dashboard/sign-in?link=x");
    world.browser.set_script("anna", true);
    look(world, "sign-in by a link");
    world.sign_in(&format!("/dashboard/connect?account={LONG}"));
    look(world, "connect again");
    at_amazon(world, look).await;
    let rules = "/dashboard/callers?rules=%5B%5Bcallers%5D%5D+reports";
    let of = |place: &str| place.replace("{}", LONG);
    for path in PAGES.map(str::to_owned).into_iter().chain([
        of("/dashboard/accounts/{}"),
        of("/dashboard/accounts/{}/refresh"),
        of("/dashboard/accounts/{}/disconnect"),
        of("/dashboard/accounts/{}{}"),
        of("/dashboard?q={}"),
        of("/dashboard/requests?account={}"),
        "/dashboard/accounts/missing".to_owned(),
        "/dashboard/sign-in?fresh=1&next=%2Fdashboard%2Fcallers".to_owned(),
        format!("/dashboard/keys/{}/revoke", &OPERATOR.key[5..13]),
        rules.to_owned(),
        of(&format!("{rules}&method=POST&path=%2F{{}}%2F{{}}&account={{}}")),
        of(&format!("{rules}&path=%2F{{}}%2F{{}}%2Fx")),
    ]) {
        world.open(&path);
        look(world, &path);
    }
    world.open("/dashboard/api");
    let unfold = "document.querySelectorAll('details').forEach(one => { one.open = true }); 0";
    world.browser.eval("anna", unfold);
    look(world, "API, all of it");
    world.open("/dashboard/callers");
    world.browser.eval("anna", &format!("document.getElementById('note').value = '{LONG}'; 0"));
    let page = world.browser.click("anna", "Make it");
    assert!(page.title.starts_with("The new session"), "{page:?}");
    look(world, "issued session");
    let key = page.text.split_whitespace().find(|word| word.starts_with("adss_")).expect("a key");
    world.open(&format!("/dashboard/sessions/{}/end", &key[5..13]));
    look(world, "end of a session");
    world.open("/dashboard/callers");
    look(world, "callers with a session");
}

/// The pages of logins and of reconnect links.
async fn at_amazon(world: &mut World, look: &mut dyn FnMut(&mut World, &str)) {
    let begin = |world: &mut World| {
        world.open(&format!("/dashboard/connect?account={LONG}"));
        world.browser.click("anna", "Continue at Amazon");
    };
    begin(world);
    let page = world.browser.click("anna", "Allow as mallory");
    assert!(page.text.contains("is connected"), "{page:?}");
    look(world, "connected");
    begin(world);
    let page = world.browser.click("anna", &format!("Allow as {INITECH}"));
    assert!(page.title.starts_with("Replace "), "{page:?}");
    look(world, "question");
    let page = world.browser.click("anna", "No, keep it");
    assert!(page.title.starts_with("Nothing was changed"), "{page:?}");
    look(world, "discarded");
    let link = beside(&world.proxy).reconnect_link(&LONG.parse().expect("an id")).await;
    let link = link.expect("a link").expose().to_owned();
    world.browser.open("anna", &link);
    look(world, "reconnect");
    world.browser.click("anna", "Continue to Amazon");
    let page = world.browser.click("anna", "Deny");
    assert_eq!(page.status, 403, "{page:?}");
    look(world, "denied");
    world.browser.open("anna", &format!("{link}x"));
    look(world, "link that is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_on_any_page_light_or_dark() {
    let Some(axe) = axe() else { return };
    let receiver = Receiver::start().await;
    let Some(mut world) = full_world(&receiver).await else { return };
    let mut found = Vec::new();
    at_each_page(&mut world, &mut |world, name| {
        for dark in [false, true] {
            world.browser.set_dark("anna", dark);
            let more = violations(&mut world.browser, &axe);
            found.extend(more.into_iter().map(|one| format!("{name}, dark: {dark}: {one}")));
        }
    })
    .await;
    assert!(found.is_empty(), "{found:#?}");
    world.browser.eval("anna", "document.body.innerHTML = '<img src=x>'; 0");
    let found = violations(&mut world.browser, &axe);
    assert!(found.iter().any(|one| one.contains("image-alt")), "the twin: {found:?}");
}

/// How wide a page is, and the widest of its parts.
const WIDTH: &str = "[document.documentElement.scrollWidth, [...document.querySelectorAll('body *')] \
    .filter(one => one.getBoundingClientRect().right > innerWidth && !one.closest('.wide')) \
    .map(one => one.outerHTML.slice(0, 200))]";

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_a_telephone_and_is_used_by_the_keyboard() {
    let receiver = Receiver::start().await;
    let Some(mut world) = full_world(&receiver).await else { return };
    world.browser.set_width("anna", 320);
    let mut found = Vec::new();
    at_each_page(&mut world, &mut |world, name| {
        let wide = world.browser.eval("anna", WIDTH);
        if wide[0].as_u64().is_none_or(|wide| wide > 320) {
            found.push(format!("{name} is wide: {wide}"));
        }
        let count = "[...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, \
            summary, [tabindex=\"0\"]')].filter(one => one.checkVisibility()).length";
        let count = world.browser.eval("anna", count).as_u64().expect("a number");
        world.browser.eval("anna", "document.activeElement.blur(); 0");
        let mut reached = 0;
        for _ in 0..count {
            world.browser.press_tab("anna");
            let seen = "(() => { const one = document.activeElement, style = getComputedStyle(one); \
                return one !== document.body && style.outlineStyle !== 'none' })()";
            reached += u64::from(world.browser.eval("anna", seen) == true);
        }
        if reached != count {
            found.push(format!("{name}: Tab reaches and shows {reached} of {count}"));
        }
    })
    .await;
    assert!(found.is_empty(), "{found:#?}");
    let add = "document.body.innerHTML = '<h1>' + 'x'.repeat(64) + '</h1>'; \
        document.querySelector('h1').style.overflowWrap = 'normal'; 0";
    world.browser.eval("anna", add);
    let wide = world.browser.eval("anna", WIDTH);
    assert!(wide[0].as_u64().is_some_and(|wide| wide > 320), "the twin: {wide}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_button_that_fixes_an_account_is_in_sight_on_a_telephone() {
    let toml = format!("[accounts.{LONG}]\nregion = \"na\"\n[accounts.short]\nregion = \"eu\"\n");
    let Some(mut world) = World::start(&toml).await else { return };
    let boxes = "[...document.querySelectorAll('td a.button')].map(one => \
        { const box = one.getBoundingClientRect(); return [box.left, box.right] })";
    for width in [390, 320] {
        world.browser.set_width("anna", width);
        world.sign_in("/dashboard");
        let page = world.open("/dashboard");
        assert!(page.text.contains(LONG) && page.text.contains("Not connected"), "{page:?}");
        let boxes = world.browser.eval("anna", boxes);
        let boxes = boxes.as_array().expect("a list");
        assert_eq!(boxes.len(), 2, "{boxes:?}");
        for at in boxes {
            let [left, right] = [&at[0], &at[1]].map(|it| it.as_f64().expect("a number"));
            assert!(0.0 <= left && right <= f64::from(width), "{at} in {width}");
        }
        world.browser.click("anna", "Sign out");
    }
}

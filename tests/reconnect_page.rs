//! The page that a reconnect link opens: it says who asks for which account, and begins nothing.

use crate::support::{
    browser::Browser,
    callers::OPERATOR,
    login::{
        INITECH, INITECH_PROFILE, Reply, ask, ask_with, at_amazon, beside, log_in, login_setup,
        proxy,
    },
    proxy::{Proxy, Setup, amazon, eventually},
    receiver::{Receiver, SECRET},
};
use http::Method;
use serde_json::json;

fn setup(toml: &str) -> Setup {
    Setup { toml: toml.to_owned(), file_store: true, ..Setup::default() }
}

async fn link_of(proxy: &Proxy, account: &str) -> String {
    let link = beside(proxy).reconnect_link(&account.parse().expect("an id")).await;
    link.expect("a link").expose().to_owned()
}

/// Opens `link` as a browser with a preferred language.
async fn open(proxy: &Proxy, link: &str, language: &str) -> Reply {
    let uri: http::Uri = link.parse().expect("a link");
    let path = uri.path_and_query().expect("a path").as_str();
    let fields = [("accept", "text/html"), ("accept-language", language)];
    ask(proxy.admin, Method::GET, path, &fields).await
}

fn logins_begun(proxy: &Proxy) -> usize {
    let audit = std::fs::read_to_string(proxy.dir.path().join("store/audit.jsonl"));
    audit.expect("an audit log").matches("\"login.start").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_who_asks_for_which_account_and_begins_nothing() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, setup("[login]\ncompany = \"Example & Sons\"\n"));
    assert_eq!(log_in(proxy.admin, INITECH, INITECH).await.status, 200);
    let link = link_of(&proxy, INITECH).await;
    let before = logins_begun(&proxy);
    assert_eq!(before, 1);
    let page = open(&proxy, &link, "en").await;
    assert_eq!(page.status, 200);
    for text in ["Example &amp; Sons asks you", "account initech", &INITECH_PROFILE.to_string()] {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
    assert!(!page.headers.contains_key("set-cookie"), "nothing has begun");
    assert_eq!(logins_begun(&proxy), before);
    let sent = open(&proxy, &format!("{link}&continue=true"), "en").await;
    assert_eq!((sent.status.as_u16(), logins_begun(&proxy)), (303, before + 1));
    assert!(sent.location().contains("/ap/oa?"), "{}", sent.location());
    // A wrong link says nothing of the account.
    let wrong = open(&proxy, &link[..link.len() - 1], "en").await;
    assert!(wrong.status == 410 && !wrong.text.contains("Sons"), "{}", wrong.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_speaks_the_readers_language() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, setup(""));
    let link = link_of(&proxy, "acme").await;
    for (accepts, language, text) in [
        ("de-AT,de;q=0.9", "de", "localhost bittet Sie"),
        ("fr", "fr", "localhost vous demande"),
        ("es-MX", "es", "localhost le pide"),
        ("it", "it", "localhost le chiede"),
        ("ja,en;q=0.5", "ja", "localhost が"),
        ("pt-BR", "pt", "localhost pede"),
        ("nl", "en", "localhost asks you"),
    ] {
        let page = open(&proxy, &link, accepts).await;
        let is_marked = page.text.contains(&format!("<html lang=\"{language}\">"));
        assert!(is_marked && page.text.contains(text), "{accepts}: {}", page.text);
        assert_eq!(page.headers["content-language"], language);
    }
}

/// Languages with the title of a refused consent, of a link that is over, of a consent of another Amazon
/// user, and of its end after a no.
const OUTCOMES: [(&str, [&str; 4]); 7] = [
    ("en", ["Access was denied", "This link is over", "Replace initech?", "Nothing was changed"]),
    (
        "de",
        [
            "Der Zugriff wurde abgelehnt",
            "Dieser Link gilt nicht mehr",
            "initech ersetzen?",
            "Es wurde nichts geändert",
        ],
    ),
    (
        "fr",
        [
            "L’accès a été refusé",
            "Ce lien n’est plus valable",
            "Remplacer initech ?",
            "Rien n’a été modifié",
        ],
    ),
    (
        "es",
        [
            "Se denegó el acceso",
            "Este enlace ya no vale",
            "¿Reemplazar initech?",
            "No se ha cambiado nada",
        ],
    ),
    (
        "it",
        [
            "L’accesso è stato negato",
            "Questo link non è più valido",
            "Sostituire initech?",
            "Non è cambiato nulla",
        ],
    ),
    (
        "ja",
        [
            "アクセスが拒否されました",
            "このリンクは無効です",
            "initech を置き換えますか?",
            "何も変更されませんでした",
        ],
    ),
    (
        "pt",
        [
            "O acesso foi negado",
            "Este link não vale mais",
            "Substituir initech?",
            "Nada foi alterado",
        ],
    ),
];

/// Follows the button of a reconnect link, and makes a choice at Amazon; what the browser gets.
async fn choose(proxy: &Proxy, link: &str, language: &str, choice: &str) -> Reply {
    let begun = open(proxy, &format!("{link}&continue=true"), language).await;
    let back = at_amazon(begun.location(), choice).await;
    let cookie = begun.cookie();
    let fields = [("accept", "text/html"), ("accept-language", language), ("cookie", &cookie)];
    ask(proxy.admin, Method::GET, &back, &fields).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_that_a_link_can_have_is_in_the_readers_language() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, setup(""));
    assert_eq!(log_in(proxy.admin, INITECH, INITECH).await.status, 200);
    let link = link_of(&proxy, INITECH).await;
    for (language, [denied, over, question, unchanged]) in OUTCOMES {
        let is_shown = |page: &Reply, status: u16, title: &str| {
            assert_eq!(page.status, status, "{}", page.text);
            assert_eq!(page.headers["content-language"], language);
            let is_marked = page.text.contains(&format!("<html lang=\"{language}\">"));
            let has_title = page.text.contains(&format!("<h1>{title}</h1>"));
            assert!(is_marked && has_title, "{language}: {}", page.text);
        };
        let page = choose(&proxy, &link, language, "deny=1").await;
        is_shown(&page, 403, denied);
        assert!(page.text.contains("<blockquote>Access not permitted.</blockquote>"));
        // What an operator is asked about is there in each language, and marked as English.
        let english = page.text.contains("lang=\"en\"><p>Access was denied on Amazon&#39;s page.");
        assert_eq!(english, language != "en", "{}", page.text);
        is_shown(&open(&proxy, &link[..link.len() - 1], language).await, 410, over);
        let page = choose(&proxy, &link, language, "account=acme").await;
        is_shown(&page, 200, question);
        let (_, token) = page.text.split_once("name=\"token\" value=\"").expect("a token");
        let token = token.split('"').next().expect("a value");
        let fields = [
            ("accept", "text/html"),
            ("accept-language", language),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let no = format!("token={token}&answer=no");
        let path = "/api/auth/amazon/confirm";
        is_shown(&ask_with(proxy.admin, Method::POST, path, &fields, no).await, 200, unchanged);
    }
    let page = choose(&proxy, &link, "fr", &format!("account={INITECH}")).await;
    assert!(page.text.contains("initech est reconnecté"), "the twin: {}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_and_the_link_of_a_command_go_on_at_once() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, setup(""));
    let link: http::Uri = link_of(&proxy, "acme").await.parse().expect("a link");
    let path = link.path_and_query().expect("a path").as_str();
    let begun = ask(proxy.admin, Method::GET, path, &[]).await;
    assert!(begun.json()["auth_url"].is_string(), "{}", begun.text);
    let fields = [("content-type", "application/json")];
    let body = "{\"account\":\"acme\"}".to_owned();
    let made = ask_with(proxy.admin, Method::POST, "/api/auth/amazon/logins", &fields, body).await;
    let sent = open(&proxy, made.json()["url"].as_str().expect("a link"), "en").await;
    assert_eq!(sent.status, 303, "{}", sent.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_advertiser_reconnects_with_a_browser_only() {
    let Some(mut browser) = Browser::start() else { return };
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, login_setup(&amazon, setup("")));
    assert_eq!(log_in(proxy.admin, INITECH, INITECH).await.status, 200);
    let link = link_of(&proxy, INITECH).await;
    let page = browser.open("anna", &link);
    assert!(page.status == 200 && page.title.starts_with("Connect initech again"), "{page:?}");
    assert!(page.messages.is_empty(), "{page:?}");
    assert!(browser.cookies("anna").is_empty());
    let page = browser.click("anna", "Continue to Amazon");
    assert_eq!(page.title, "Sandbox consent", "{page:?}");
    let page = browser.click("anna", "Allow as initech");
    assert!(page.status == 200 && page.text.contains("initech is connected anew"), "{page:?}");
    assert_eq!(browser.open("anna", &link).status, 410, "the link has done its work");
}

#[cfg(feature = "dashboard")]
/// The text of the dashboard's page that an operator has left open.
fn dashboard_text(browser: &mut Browser) -> String {
    let text = browser.eval("operator", "document.querySelector('main').innerText");
    text.as_str().expect("a text").to_owned()
}

#[cfg(feature = "dashboard")]
#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_a_webhook_brings_an_account_back_before_the_eyes_of_an_operator() {
    for has_script in [true, false] {
        reconnect_by_webhook(has_script).await;
    }
}

/// From the end of a grant to another one; whether pages of the advertiser run scripts.
#[cfg(feature = "dashboard")]
async fn reconnect_by_webhook(has_script: bool) {
    let Some(mut browser) = Browser::start() else { return };
    browser.set_script("advertiser", has_script);
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let hook = receiver.hook("ops", "events = [\"grant.reauthorization_required\"]");
    let env = vec![("HOOK_SECRET".to_owned(), SECRET.to_owned())];
    let proxy = Proxy::with(&amazon, login_setup(&amazon, Setup { env, ..setup(&hook) }));
    assert_eq!(log_in(proxy.admin, INITECH, INITECH).await.status, 200);
    let page = format!("http://localhost:{}/dashboard/accounts/{INITECH}", proxy.admin.port());
    browser.open("operator", &page);
    let key = format!("document.getElementById('key').value = {}; 0", json!(OPERATOR.key));
    browser.eval("operator", &key);
    assert_eq!(browser.click("operator", "Sign in").status, 200);
    browser.eval("operator", "window.mark = 1");
    let request = || proxy.request(Method::GET, "/v2/profiles").header("x-ads-account", INITECH);
    assert_eq!(proxy.send(request()).await.status, 200);
    amazon.state().lwa.revoke(INITECH);
    assert_eq!(proxy.send(request()).await.error(), Some("reauthorization_required"));
    eventually("the operator sees it", || dashboard_text(&mut browser).contains("Must reconnect"))
        .await;
    eventually("the receiver has the link", || !receiver.taken().is_empty()).await;
    let message = receiver.taken()[0].json();
    let link = message["data"]["reconnect_url"].as_str().expect("a link").to_owned();
    // The advertiser has a browser of another person, and nothing else.
    let page = browser.open("advertiser", &link);
    assert!(page.status == 200 && page.title.starts_with("Connect initech again"), "{page:?}");
    browser.click("advertiser", "Continue to Amazon");
    let page = browser.click("advertiser", "Allow as initech");
    assert!(page.status == 200 && page.text.contains("initech is connected anew"), "{page:?}");
    eventually("the operator sees that, too", || {
        !dashboard_text(&mut browser).contains("Must reconnect")
    })
    .await;
    assert_eq!(browser.eval("operator", "window.mark"), 1, "it is the same page");
    assert_eq!(proxy.send(request()).await.status, 200);
}

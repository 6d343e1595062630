//! Callers on the data plane: who is asked, what is accepted, which accounts each sees.

use crate::support::{
    callers::TestCaller,
    proxy::{Answer, Proxy, Setup, amazon, eventually},
    socket::Wire,
};
use adsproxy::sandbox::Surface;

const REQUIRED: &str = "\n[auth]\nrequired = true\n";

fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

fn ask(proxy: &Proxy, target: &str, lines: &str) -> Answer {
    Wire::open(proxy.addr).send(get(target, lines)).answer()
}

/// The answer without what differs from request to request.
fn shape(answer: &Answer) -> (u16, Option<String>, String) {
    let id = answer.headers["x-ads-proxy-request-id"].to_str().expect("ASCII");
    let error = answer.error().map(str::to_owned);
    (answer.status.as_u16(), error, answer.text().replace(id, "ID"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_accepted_in_each_of_its_places_and_never_reaches_amazon() {
    let amazon = amazon().await;
    let caller = TestCaller::new("reports", "");
    let proxy =
        Proxy::with(&amazon, Setup { toml: caller.toml.clone() + REQUIRED, ..Setup::default() });
    let key = &caller.key;
    for line in [
        format!("X-Ads-Key: {key}\r\n"),
        format!("Authorization: Bearer {key}\r\n"),
        format!("Authorization: Bearer Atza|{key}\r\n"),
        format!("Proxy-Authorization: Bearer {key}\r\n"),
    ] {
        amazon.state().record.clear();
        let answer = ask(&proxy, "/a/acme/_sink", &line);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = amazon.state().record.requests_for(Surface::Api);
        assert_eq!(seen[0].account.as_deref(), Some("acme"));
        assert!(!format!("{seen:?}").contains(key.as_str()));
    }
    eventually("the caller is logged", || proxy.log().contains("\"caller\":\"reports\"")).await;
    assert!(!proxy.log().contains(key.as_str()), "the log holds the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_credential_is_rejected_in_one_way_whichever_half_is_wrong() {
    let amazon = amazon().await;
    let (caller, other) = (TestCaller::new("reports", ""), TestCaller::new("others", ""));
    let proxy = Proxy::with(&amazon, Setup { toml: caller.toml.clone(), ..Setup::default() });
    let unknown_id = other.line();
    let broken = caller.line().replace("adsk_", "adss_");
    let rejected = shape(&ask(&proxy, "/a/acme/_sink", "X-Ads-Key: x\r\n"));
    assert_eq!((rejected.0, rejected.1.as_deref()), (403, Some("caller_rejected")));
    let secret = format!("X-Ads-Key: {}\r\n", caller.other_secret());
    for line in
        [secret.as_str(), &unknown_id, &broken, "X-Ads-Key:\r\n", "Authorization: Bearer adsk_\r\n"]
    {
        for target in ["/a/acme/_sink", "/a/nobody/_sink", "/a/acme/auth/o2/token"] {
            assert_eq!(shape(&ask(&proxy, target, line)), rejected, "{target} {line}");
        }
    }
    let two = caller.line() + &format!("Authorization: Bearer {}\r\n", caller.key);
    assert_eq!(ask(&proxy, "/a/acme/_sink", &two).error(), Some("bad_request"));
    assert!(amazon.state().record.requests_for(Surface::Api).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_credential_a_caller_is_served_only_where_none_is_asked_for() {
    let amazon = amazon().await;
    let caller = TestCaller::new("reports", "");
    let setup = |toml: String| Setup { toml, ..Setup::default() };
    let open = Proxy::with(&amazon, setup(caller.toml.clone()));
    assert_eq!(ask(&open, "/a/acme/_sink", "").status, 200);
    let closed = Proxy::with(&amazon, setup(caller.toml.clone() + REQUIRED));
    for target in ["/a/acme/_sink", "/a/nobody/_sink", "/auth/o2/token", "/a/acme/auth/o2/token"] {
        let answer = ask(&closed, target, "");
        assert_eq!((answer.status.as_u16(), answer.error()), (403, Some("caller_rejected")));
    }
    assert_eq!(ask(&closed, "/a/acme/_sink", &caller.line()).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_not_the_callers_is_not_there() {
    let amazon = amazon().await;
    let one = TestCaller::new("one", "accounts = [\"acme\"]");
    let stranger = TestCaller::new("stranger", "tenant = \"t1\"");
    let toml = one.toml.clone() + &stranger.toml + REQUIRED;
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let missing = shape(&ask(&proxy, "/a/nobody/_sink", &one.line()));
    assert_eq!((missing.0, missing.1.as_deref()), (404, Some("unknown_account")));
    assert_eq!(shape(&ask(&proxy, "/a/globex/_sink", &one.line())), missing);
    for target in ["/a/acme/_sink", "/a/globex/_sink", "/a/t1~acme/_sink", "/a/t2~acme/_sink"] {
        assert_eq!(shape(&ask(&proxy, target, &stranger.line())), missing, "{target}");
    }
    // The only account need not be named.
    assert_eq!(ask(&proxy, "/_sink", &one.line()).status, 200);
    assert_eq!(ask(&proxy, "/_sink", &stranger.line()).error(), Some("account_required"));
}

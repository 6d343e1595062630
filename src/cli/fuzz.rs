//! Fuzz targets of what commands read: lengths of time, days, pasted addresses, files to import.

use super::{
    day, duration,
    import::fuzz::{csv, environment, json, yaml},
    login::paste::query,
};
use crate::fuzz::{Target, text};

pub const TARGETS: &[Target] = &[
    Target {
        name: "times",
        run: times,
        seeds: &[
            "1h 30m",
            "250ms",
            "2026-11-20",
            "20261120",
            "20261120101112",
            "1795132800.75",
            "1795132800000",
            "2026-11-20T10:00:00+02:00[Europe/Berlin]",
            "Fri, 20 Nov 2026 00:00:07 +0100",
            "2026/11/20 10:11",
        ],
    },
    Target {
        name: "pasted_address",
        run: pasted_address,
        seeds: &[
            "http://localhost:8788/cb?code=AN1&scope=x&state=S",
            "https://amazon.com/?code=A&state=S#top",
            "ANabcdefghijklmnop|1",
            "code=ANabcdefghijklmnop",
        ],
    },
    Target { name: "import_csv", run: csv, seeds: TABLES },
    Target { name: "import_json", run: json, seeds: DOCUMENTS },
    Target { name: "import_yaml", run: yaml, seeds: FILES },
    Target { name: "import_env", run: environment, seeds: VARIABLES },
];

const TABLES: &[&str] = &[
    "account,refresh_token,region\nacme,Atzr|CANARY,eu\n\n\"b, c\" ,\"Atzr|CANARY2\",US\n",
    "Name;Refresh Token;profile id;consented_at\r\nacme;Atzr|CANARY;1234567890;2026-11-20\r\n",
    "alias\tlwaRefreshToken\taccess_token\texpires_at\tupdated_at\na\tAtzr|CANARY\tAtza|CANARY\t1795133000\t1795132000\n",
];

const DOCUMENTS: &[&str] = &[
    r#"{"accounts":[{"alias":"acme","refresh_token":"Atzr|CANARY","lwa":{"client_id":"first"}}],"version":1}"#,
    r#"{"acme":{"refresh_token":"Atzr|CANARY","region":"eu","expires_at":1795133000},"b":null}"#,
    "{\"account\":\"a\",\"refresh_token\":\"Atzr|CANARY\"}\n{\"account\":\"b\",\"refresh_token\":\"\\ud800\"}\n{",
];

const FILES: &[&str] = &[
    "version: '1.0'\nacme:\n  refresh_token: 'Atzr|CANARY'\n  client_id: first\n  profile_id: '1'\n",
    "base: &base {client_id: first}\na:\n  <<: *base\n  refresh_token: \"Atzr|CANARY\"\nb: {<<: [*base]}\n",
    "- refresh_token: >\n    Atzr|CANARY\n  name: |\n    a\n- ~\n",
];

const VARIABLES: &[&str] = &[
    "# a\nexport AD_API_REFRESH_TOKEN='Atzr|CANARY'\nAD_API_CLIENT_ID=first # b\nAD_API_PROFILE_ID=1\n",
    "REFRESH_TOKEN=\"Atzr|CANARY\"\nAD_API_DEFAULT_MARKETPLACE=DE\nAMAZON_REFRESH_TOKEN=Atzr|CANARY\nLWA_X=1\n",
];

/// A moment is not before Login with Amazon began, and one that is still to come is no consent.
fn times(input: &[u8]) {
    const NOW: u64 = 1_795_132_800;
    let Some(text) = text(input) else { return };
    let moment = day::moment(text);
    assert!(moment.is_none_or(|unix| unix >= 1_356_998_400), "{text:?}");
    let consent = day::consent_at(text, NOW);
    assert!(consent.is_err() || consent.ok() == moment && moment <= Some(NOW + 86_400), "{text:?}");
    if let Ok(length) = duration::parse(text) {
        assert_eq!(
            duration::parse(&length.as_secs().to_string()).map(|it| it.as_secs()),
            Ok(length.as_secs())
        );
    }
}

/// What is sent on is one query with the state of this login.
fn pasted_address(input: &[u8]) {
    let Some(Ok(query)) = text(input).map(|line| query(line.trim(), "S")) else { return };
    assert!(query.split('&').any(|pair| pair == "state=S"), "{query:?}");
    assert!(query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'), "{query:?}");
}

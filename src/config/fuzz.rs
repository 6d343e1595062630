//! Fuzz targets of the configuration: the file, the variables over it, those of OpenTelemetry.

use super::{
    environment::Environment,
    load::{self, LoadError, Loaded},
    log_filter, telemetry,
};
use crate::fuzz::{Target, assert_hides, text};

pub const TARGETS: &[Target] = &[
    Target { name: "config_file", run: file, seeds: FILES },
    Target { name: "config_variables", run: variables, seeds: VARIABLES },
    Target { name: "telemetry_variables", run: telemetry_variables, seeds: TELEMETRY },
    Target {
        name: "log_filter",
        run: filter,
        seeds: &["info,adsproxy::token=debug", "warn,h2=off,adsproxy[{a=1}]=3"],
    },
];

const FILES: &[&str] = &[
    "[lwa]\nclient_id = \"amzn1.application-oa2-client.test\"\nclient_secret = { env = \"TEST_SECRET\" }\n\
     [store]\nkind = \"memory\"\n[accounts.acme]\nregion = \"na\"\nrefresh_token = { env = \"TEST_TOKEN\" }\n\
     headers = { \"x-a\" = \"b\", \"Amazon-Advertising-API-Scope\" = 7 }\n",
    "[listen]\nproxy = [\"localhost:8787\", \"unix:/s\", \"systemd:a\"]\nadmin = \"off\"\n[listen.tls]\n\
     certificate_file = \"/c\"\n[guard]\nallowed_hosts = [\"a.example\", \"[::1]\"]\n\
     allowed_origins = [\"https://a.example:443\"]\n",
    "[[callers]]\nname = \"a\"\nkeys = [{ id = \"7Fh2kQ9x\", sha256 = \"e3\", expires = \"2027-03-01\" }]\n\
     accounts = [\"eu-*\"]\npaths = [\"/sp/*\"]\nmethods = [\"GET\"]\nprofiles = [\"1\"]\ntools = [\"*\"]\n\
     mcp = { profile = \"1\" }\nunix_uids = [0]\nmtls_san = [\"a.example\"]\nread_only = true\n",
    "[[issuers]]\nname = \"i\"\nissuer = \"https://i.example\"\njwks_url = \"http://localhost/k\"\n\
     algorithms = [\"ES256\"]\ntenant_claim = [\"a.b\"]\ntenants = [\"org_*\"]\nleeway_secs = 5\n",
    "[[hooks]]\nname = \"h\"\nevents = [\"token.refreshed\"]\ncommand = [\"/bin/true\"]\n[encryption]\n\
     keys = [{ id = \"k\", secret = { env = \"TEST_KEY\" } }, { id = \"p\", passphrase = { env = \"TEST_SECRET\" } }]\n",
    "[lwa]\nclient_id = \"a\"\nclient_secret = \"CANARY\"\n[store]\nkind = \"postgres\"\nurl = { env = \"TEST_URL\" }\n",
];

const SECRETS: [(&str, &str); 4] = [
    ("TEST_SECRET", "CANARY-secret"),
    ("TEST_TOKEN", "Atzr|CANARY"),
    ("TEST_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    ("TEST_URL", "postgres://u:CANARY@localhost/d"),
];

/// What is read or refused shows no secret, and what is in effect is TOML.
fn file(input: &[u8]) {
    let Some(text) = text(input).filter(|text| leaves_the_machine_alone(text)) else { return };
    let secrets = SECRETS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment: Environment = secrets.into_iter().collect();
    // Where the secret stands in the file itself, its line may be shown.
    check(load::parse(Some("p.toml".into()), text, &environment, &[]), !text.contains("CANARY"));
}

/// Whether no file of the system that blocks or has no end is read.
fn leaves_the_machine_alone(text: &str) -> bool {
    !["/dev", "/proc", "/sys", "\\"].iter().any(|part| text.contains(part))
}

fn check(read: Result<Loaded, LoadError>, has_no_secret: bool) {
    let shown = match &read {
        Ok(loaded) => {
            toml::from_str::<toml::Table>(&loaded.effective).expect("TOML");
            let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
            format!("{} {} {:?}", loaded.effective, warnings.concat(), loaded.config)
        }
        Err(error) => error.to_string(),
    };
    if has_no_secret {
        assert_hides(&shown);
    }
}

const VARIABLES: &[&str] = &[
    "ADSPROXY_LWA__CLIENT_ID=a\nADSPROXY_LWA__CLIENT_SECRET=CANARY\nADSPROXY_STORE__KIND=memory",
    "ADSPROXY_LISTEN__PROXY=[\"localhost:1\"]\nADSPROXY_LOG=info\nAMAZON_CLIENT_ID=a\nAMAZON_CLIENT_SECRET=CANARY",
    "ADSPROXY_ACCOUNTS__A_B__REFRESH_TOKEN=Atzr|CANARY\nADSPROXY_ACCOUNTS__A_B__REGION=eu\nADSPROXY_PASSPHRASE=CANARY",
    "ADSPROXY_ENCRYPTION__KEYS=CANARY\nADSPROXY_STORE__URL=postgres://u:CANARY@h/d\nADSPROXY_STORE__KIND=postgres",
    "ADSPROXY_ENCRYPTION__KEYS=[{ id = \"a\", secret = { env = \"X\" } }]\nADSPROXY_LIMITS__HEADERS_MAX=7\nX=CANARY",
];

/// A variable on each line. One whose name says that it is a secret is shown nowhere.
fn variables(input: &[u8]) {
    let Some(text) = text(input).filter(|text| leaves_the_machine_alone(text)) else { return };
    let pairs: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let has_no_secret = pairs.iter().all(|(name, value)| {
        !name.contains("CANARY") && (!value.contains("CANARY") || is_known_secret(name))
    });
    let owned = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment: Environment = owned.collect();
    check(load::parse(None, "", &environment, &[]), has_no_secret);
}

/// Whether the value of the variable is a secret whatever else is set.
fn is_known_secret(name: &str) -> bool {
    let known = ["ADSPROXY_LWA__CLIENT_SECRET", "AMAZON_CLIENT_SECRET", "ADSPROXY_PASSPHRASE", "X"];
    known.contains(&name)
        || name == "ADSPROXY_STORE__URL"
        || name == "ADSPROXY_ACCOUNTS__A_B__REFRESH_TOKEN"
}

const TELEMETRY: &[&str] = &[
    "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318/\nOTEL_EXPORTER_OTLP_HEADERS=api-key=CANARY, x = a b ,",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://t/CANARY\nOTEL_TRACES_SAMPLER=parentbased_traceidratio\nOTEL_TRACES_SAMPLER_ARG=0.5",
    "OTEL_METRICS_EXPORTER=otlp\nOTEL_RESOURCE_ATTRIBUTES=a=b%20c,service.name=x\nOTEL_EXPORTER_OTLP_PROTOCOL=http/json",
    "OTEL_TRACES_EXPORTER=otlp\nOTEL_BSP_MAX_QUEUE_SIZE=10\nOTEL_BSP_MAX_EXPORT_BATCH_SIZE=99\nOTEL_METRIC_EXPORT_INTERVAL=5\nOTEL_SDK_DISABLED=false",
];

/// No warning has the value of a variable, and what is accepted is within its bounds.
fn telemetry_variables(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.filter(|(name, _)| !name.contains("CANARY"));
    let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let (config, warnings) = telemetry::read(&environment);
    warnings.iter().for_each(|warning| assert_hides(&warning.to_string()));
    if let Some(traces) = config.traces {
        assert!((0.0..=1.0).contains(&traces.ratio));
        assert!(
            (1..=traces.queue_max).contains(&traces.batch_max) && traces.queue_max <= 1_000_000
        );
        assert!(!traces.delay.is_zero() && !traces.export_timeout.is_zero());
        let values = traces.target.headers.iter().map(|(_, value)| value);
        assert_hides(&format!("{:?} {:?}", traces.target.url, values.collect::<Vec<_>>()));
    }
}

fn filter(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if log_filter::check(text).is_ok() {
        assert!(tracing_subscriber::EnvFilter::try_new(text).is_ok() || text.is_empty());
    }
}

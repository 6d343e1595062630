//! Every published operation has the class that a person can read in a file, and none that its name
//! speaks against.

use super::*;
use std::{fmt::Write as _, fs, path::Path};

/// Write the snapshot anew if this variable is set.
const REWRITE: &str = "ADSPROXY_WRITE_SNAPSHOTS";
const SNAPSHOT: &str = "tests/data/operations-classified.tsv";

/// Operations that write although the first verb of their name reads.
const WRITES_IN_SPITE_OF_ITS_NAME: [(&str, &str); 2] = [
    ("getUploadLocation", "hands out an address that takes an upload"),
    ("partnerOpportunitiesApplicationStatus", "a POST that may set the status: in doubt, a write"),
];

/// Operations that do not write although the first verb of their name does.
const READS_IN_SPITE_OF_ITS_NAME: [(&str, &str); 10] = [
    ("createAsyncReport", "makes a report"),
    ("AdsApiv1CreateReport", "makes a report"),
    ("createMmmReport", "makes a report"),
    ("CreateBillingStatement", "makes a report"),
    ("createSnapshot", "makes a report"),
    ("createWorkflowExecution", "runs a query"),
    ("createSDForecast", "computes a forecast, keeps nothing"),
    ("createKeywordBidRecommendations", "computes recommendations, keeps nothing"),
    ("postCreativePreview", "computes HTML, keeps nothing"),
    ("ManageAudienceStatusV2", "a GET of the state of a job"),
];

/// Verbs, and nouns of verbs, of operations that change something.
const WRITING: [&str; 24] = [
    "create",
    "update",
    "delete",
    "deletion",
    "apply",
    "pay",
    "archive",
    "associate",
    "association",
    "disassociate",
    "register",
    "remove",
    "set",
    "add",
    "edit",
    "cancel",
    "start",
    "manage",
    "complete",
    "ingest",
    "link",
    "unlink",
    "post",
    "refresh",
];

/// Verbs, and nouns of verbs, of operations that do not.
const READING: [&str; 20] = [
    "list",
    "get",
    "query",
    "search",
    "count",
    "counts",
    "export",
    "report",
    "fetch",
    "retrieve",
    "check",
    "generate",
    "describe",
    "download",
    "usage",
    "recommendation",
    "recommendations",
    "eligibility",
    "insights",
    "status",
];

/// Method, path and name of each published operation.
fn published() -> Vec<(Method, String, String)> {
    let text = include_str!("../../tests/data/amazon-operations.tsv");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let operations: Vec<_> = lines
        .map(|line| {
            let [method, path, name] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            (method.parse().unwrap(), path.to_owned(), name.to_owned())
        })
        .collect();
    assert_eq!(operations.len(), 556);
    operations
}

/// The words of `getTargetableASINCounts`, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let chars: Vec<char> = name.chars().collect();
    for (at, c) in chars.iter().enumerate() {
        let begins = c.is_uppercase()
            && (at > 0 && chars[at - 1].is_lowercase()
                || chars.get(at + 1).is_some_and(|next| next.is_lowercase()));
        if begins {
            words.push(String::new());
        }
        words.last_mut().unwrap().push(c.to_ascii_lowercase());
    }
    words
}

#[test]
fn the_snapshot_says_what_the_code_does() {
    let mut lines: Vec<_> = published()
        .into_iter()
        .map(|(method, path, name)| {
            let class = classify(&method, &path).as_str();
            format!("{class}\t{method}\t{path}\t{name}")
        })
        .collect();
    lines.sort();
    let mut text = "# What `read_only` lets through (read, report) and what not (write): class, \
                    method, path, name.\n"
        .to_owned();
    lines.iter().for_each(|line| writeln!(text, "{line}").unwrap());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SNAPSHOT);
    if std::env::var_os(REWRITE).is_some() {
        fs::write(&path, &text).unwrap();
    }
    let snapshot = fs::read_to_string(path).unwrap();
    assert!(snapshot == text, "{SNAPSHOT} differs: {REWRITE}=1 writes it anew");
}

/// Whether the first verb of `name` writes, if it has a verb. The name of a product is no verb.
fn is_called_a_write(name: &str) -> Option<bool> {
    let words = words(name.strip_prefix("AmcpLink").unwrap_or(name));
    let mut verbs = words.iter().map(String::as_str);
    let first = verbs.find(|word| WRITING.contains(word) || READING.contains(word))?;
    Some(WRITING.contains(&first))
}

#[test]
fn an_operation_is_a_write_if_its_name_says_so_with_few_exceptions() {
    let mut exceptions = Vec::new();
    for (method, path, name) in published() {
        let is_write = classify(&method, &path) == OperationClass::Write;
        let (list, other) = match is_write {
            true => (&WRITES_IN_SPITE_OF_ITS_NAME[..], &READS_IN_SPITE_OF_ITS_NAME[..]),
            false => (&READS_IN_SPITE_OF_ITS_NAME[..], &WRITES_IN_SPITE_OF_ITS_NAME[..]),
        };
        assert!(other.iter().all(|(exception, _)| *exception != name), "{name}");
        let is_exception = list.iter().any(|(exception, _)| *exception == name);
        let differs = is_called_a_write(&name).is_some_and(|called| called != is_write);
        assert_eq!(differs, is_exception, "{method} {path} {name}: write is {is_write}");
        exceptions.extend(is_exception.then_some(name));
    }
    let listed = WRITES_IN_SPITE_OF_ITS_NAME.len() + READS_IN_SPITE_OF_ITS_NAME.len();
    assert_eq!(exceptions.len(), listed, "{exceptions:?}");
}

#[test]
fn every_path_that_ends_in_a_list_or_export_is_let_through() {
    let ends = ["/list", "/search", "/count", "/export", "/report", "/usage", "/recommendations"];
    let mut count = 0;
    for (method, path, name) in published() {
        if ends.iter().any(|end| path.ends_with(end)) || path.starts_with("/adsApi/v1/query/") {
            assert_ne!(classify(&method, &path), OperationClass::Write, "{method} {path} {name}");
            count += 1;
        }
    }
    assert!(count > 80, "{count}");
}

#[test]
fn what_is_not_published_is_a_write_unless_its_method_only_reads() {
    for path in [
        "/",
        "/sp/campaigns/list/",
        "//sp/campaigns/list",
        "/SP/campaigns/list",
        "/sp/campaigns/List",
        "/sp/everything/list",
        "/x/sp/campaigns/list",
        "/sd//report",
        "/sd/campaigns/x/report",
        "/adsApi/v1/query/",
        "/adsApi/v1/query/a/b",
        "/adsApi/v2/query/campaigns",
        "/reporting/reports/1",
        "/new/operation",
        "sp/campaigns/list",
        "",
        "/amc/instances/a/collaboration/idmappingtables/b/jobs/list/x",
    ] {
        assert_eq!(classify(&Method::POST, path), OperationClass::Write, "{path}");
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert_eq!(classify(&method, path), OperationClass::Read, "{method} {path}");
        }
    }
    for method in ["PUT", "PATCH", "DELETE", "MERGE", "post"] {
        let method = method.parse().unwrap();
        for path in ["/sp/campaigns/list", "/reporting/reports"] {
            assert_eq!(classify(&method, path), OperationClass::Write, "{method} {path}");
        }
    }
    assert_eq!(classify(&Method::POST, "/sp/campaigns/list"), OperationClass::Read);
    assert_eq!(classify(&Method::POST, "/sd/campaigns/report"), OperationClass::Report);
}

#[test]
fn every_pattern_is_of_a_published_operation() {
    let published = published();
    for text in READS.iter().chain(&REPORTS) {
        let pattern = Pattern::new(text);
        let is_used = published.iter().any(|(method, path, _)| {
            let segments = Segments::of(path).expect("room for each");
            *method == Method::POST && pattern.matches(segments.get())
        });
        assert!(is_used, "{text}");
    }
}

//! Tests with certificates made on the spot, and the file swaps that happen in the field.

use super::*;
use std::os::unix::fs::symlink;

struct Files {
    directory: tempfile::TempDir,
    tls: ListenTls,
}

fn files() -> Files {
    let directory = tempfile::tempdir().unwrap();
    let tls = ListenTls {
        cert_file: directory.path().join("tls.crt"),
        key_file: directory.path().join("tls.key"),
        ..ListenTls::default()
    };
    write(&tls, "one.test");
    Files { directory, tls }
}

fn write(tls: &ListenTls, name: &str) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    write_file(&tls.cert_file, &made.cert.pem(), 0o644);
    write_file(&tls.key_file, &made.signing_key.serialize_pem(), 0o600);
}

fn write_file(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn loads_a_pair_and_offers_http_2_first() {
    let tls = ServerTls::load(&files().tls).unwrap();
    assert_eq!(tls.current().alpn_protocols, [&b"h2"[..], b"http/1.1"]);
}

#[test]
fn the_end_of_the_certificate_is_known_and_follows_the_one_in_use() {
    let files = files();
    let tls = ServerTls::load(&files.tls).unwrap();
    let expiry = tls.expiry();
    // That of rcgen's certificates.
    assert_eq!(expiry.load(Ordering::Relaxed), 67_090_118_400, "the year 4096");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["two.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2031, 1, 1);
    write_file(&files.tls.cert_file, &params.self_signed(&key).unwrap().pem(), 0o644);
    write_file(&files.tls.key_file, &key.serialize_pem(), 0o600);
    let prepared = tls.prepare(&files.tls).unwrap();
    assert_eq!(expiry.load(Ordering::Relaxed), 67_090_118_400, "not in use yet");
    tls.install(prepared);
    assert_eq!(expiry.load(Ordering::Relaxed), 1_924_992_000);
    params.not_after = rcgen::date_time_ymd(2032, 1, 1);
    write_file(&files.tls.cert_file, &params.self_signed(&key).unwrap().pem(), 0o644);
    assert!(tls.reload_if_changed().unwrap());
    assert_eq!(expiry.load(Ordering::Relaxed), 1_956_528_000);
}

#[test]
fn the_same_content_is_not_loaded_again() {
    let files = files();
    let tls = ServerTls::load(&files.tls).unwrap();
    let before = tls.current();
    let text = fs::read_to_string(&files.tls.cert_file).unwrap();
    write_file(&files.tls.cert_file, &text, 0o644);
    assert!(!tls.reload_if_changed().unwrap());
    assert!(Arc::ptr_eq(&before, &tls.current()));
}

#[test]
fn a_new_pair_is_taken() {
    let files = files();
    let tls = ServerTls::load(&files.tls).unwrap();
    let before = tls.current();
    write(&files.tls, "two.test");
    assert!(tls.reload_if_changed().unwrap());
    assert!(!Arc::ptr_eq(&before, &tls.current()));
    assert!(!tls.reload_if_changed().unwrap());
}

#[test]
fn a_kubernetes_link_swap_is_seen() {
    let files = files();
    let root = files.directory.path();
    let version = |name: &str| {
        fs::create_dir(root.join(name)).unwrap();
        let tls = ListenTls {
            cert_file: root.join(name).join("tls.crt"),
            key_file: root.join(name).join("tls.key"),
            ..ListenTls::default()
        };
        write(&tls, name);
    };
    version("v1");
    symlink("v1", root.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        fs::remove_file(root.join(name)).unwrap();
        symlink(format!("..data/{name}"), root.join(name)).unwrap();
    }
    let tls = ServerTls::load(&files.tls).unwrap();
    version("v2");
    symlink("v2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    fs::remove_dir_all(root.join("v1")).unwrap();
    assert!(tls.reload_if_changed().unwrap());
}

#[test]
fn a_broken_new_file_keeps_the_old_pair_and_is_reported_once() {
    let files = files();
    let tls = ServerTls::load(&files.tls).unwrap();
    let before = tls.current();
    let good = fs::read_to_string(&files.tls.cert_file).unwrap();
    write_file(&files.tls.cert_file, "not PEM", 0o644);
    assert!(matches!(tls.reload_if_changed(), Err(Error::Pem { .. })));
    assert!(!tls.reload_if_changed().unwrap());
    fs::remove_file(&files.tls.cert_file).unwrap();
    assert!(matches!(tls.reload_if_changed(), Err(Error::Read { .. })));
    assert!(!tls.reload_if_changed().unwrap());
    assert!(Arc::ptr_eq(&before, &tls.current()));
    // Back to what is loaded, then broken again: that is news.
    write_file(&files.tls.cert_file, &good, 0o644);
    assert!(!tls.reload_if_changed().unwrap());
    fs::remove_file(&files.tls.cert_file).unwrap();
    assert!(tls.reload_if_changed().is_err());
    write(&files.tls, "two.test");
    assert!(tls.reload_if_changed().unwrap());
}

#[test]
fn a_key_is_used_whoever_may_read_it() {
    let files = files();
    for mode in [0o644, 0o601, 0o440, 0o400] {
        write(&files.tls, "mode.test");
        fs::set_permissions(&files.tls.key_file, fs::Permissions::from_mode(mode)).unwrap();
        let tls = ServerTls::load(&files.tls).unwrap();
        write(&files.tls, "next.test");
        fs::set_permissions(&files.tls.key_file, fs::Permissions::from_mode(mode)).unwrap();
        assert!(tls.reload_if_changed().unwrap(), "{mode:o}");
    }
}

#[test]
fn refuses_a_pair_that_does_not_belong_together_and_files_that_are_none() {
    let files = files();
    let other = rcgen::generate_simple_self_signed(["x.test".to_owned()]).unwrap();
    write_file(&files.tls.key_file, &other.signing_key.serialize_pem(), 0o600);
    assert!(matches!(ServerTls::load(&files.tls), Err(Error::Rejected(_))));
    write_file(&files.tls.key_file, &other.cert.pem(), 0o600);
    assert!(matches!(ServerTls::load(&files.tls), Err(Error::Pem { .. })));
    let large = "x".repeat(usize::try_from(FILE_MAX_BYTES).unwrap() + 1);
    write_file(&files.tls.key_file, &large, 0o600);
    assert!(matches!(ServerTls::load(&files.tls), Err(Error::TooLarge(_))));
}

#[tokio::test]
async fn the_watch_takes_a_new_pair_by_itself() {
    let files = files();
    let tls = ServerTls::load(&files.tls).unwrap();
    let before = tls.current();
    let watching = tokio::spawn(watch(Arc::clone(&tls), Duration::from_millis(1)));
    write(&files.tls, "two.test");
    let taken = async {
        while Arc::ptr_eq(&before, &tls.current()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), taken).await.expect("a reload");
    watching.abort();
}

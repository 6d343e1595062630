//! Tests of notes on disk: another key, and who gets one while it is sealed anew.

use super::*;
use crate::config::{Encryption, EncryptionKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};

const LIMIT: Limit = Limit { max: 1000, now_ms: 0 };
const OLD: &[(&str, u8)] = &[("old", 1)];
const BOTH: &[(&str, u8)] = &[("new", 2), ("old", 1)];
const BACK: &[(&str, u8)] = &[("old", 1), ("new", 2)];
const NEW: &[(&str, u8)] = &[("new", 2)];

fn open(directory: &Path, keys: &[(&str, u8)]) -> FileNotes {
    let secret = |byte| Secret::new(STANDARD.encode([byte; 32]));
    let keys = keys.iter().map(|&(id, byte)| EncryptionKey::new(id, secret(byte))).collect();
    let ring = KeyRing::fetch(&Encryption { keys }, directory).expect("a ring");
    FileNotes::new(directory.join("notes"), Arc::new(ring))
}

fn note(text: &str) -> Note {
    let account = "acme".parse().expect("an alias");
    Note { account, expires_at_ms: 4_000_000_000_000, text: text.into() }
}

fn on_disk(directory: &Path) -> usize {
    let of = |kind: NoteKind| files(&directory.join("notes").join(kind.as_str())).expect("listed");
    NoteKind::ALL.into_iter().map(|kind| of(kind).len()).sum()
}

#[tokio::test]
async fn notes_are_sealed_anew_and_need_the_old_key_no_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path();
    let old = open(place, OLD);
    for kind in NoteKind::ALL {
        old.put(kind, "n", &note(kind.as_str()), LIMIT).await.expect("kept");
    }
    let all = NoteKind::ALL.len();
    assert_eq!(old.keys_needed().await.expect("counted"), [("old".to_owned(), all)].into());
    assert_eq!(open(place, NEW).reseal().await.expect("nothing opens"), 0);
    assert_eq!(open(place, NEW).look(NoteKind::Ticket, "n").await.expect("read"), None);

    let both = open(place, BOTH);
    assert_eq!(both.reseal().await.expect("sealed"), all);
    assert_eq!(both.reseal().await.expect("all are"), 0);
    assert_eq!(both.keys_needed().await.expect("counted"), [("new".to_owned(), all)].into());
    assert_eq!(on_disk(place), all, "nothing is left beside them");
    let new = open(place, NEW);
    for kind in NoteKind::ALL {
        assert_eq!(new.take(kind, "n").await.expect("read"), Some(note(kind.as_str())));
    }
}

#[tokio::test]
async fn what_was_sealed_anew_lives_as_long_as_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path();
    open(place, OLD).put(NoteKind::Login, "n", &note("x"), LIMIT).await.expect("kept");
    let both = open(place, BOTH);
    assert_eq!(both.reseal().await.expect("sealed"), 1);
    both.sweep(note("x").expires_at_ms - 1).await.expect("swept");
    assert_eq!(on_disk(place), 1);
    both.sweep(note("x").expires_at_ms).await.expect("swept");
    assert_eq!(on_disk(place), 0);
}

/// One seals all of them anew for ever, to and fro, while two others take them.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_note_is_taken_once_while_it_is_sealed_anew() {
    const NOTES: usize = 300;
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path();
    let notes = Arc::new(open(place, BOTH));
    for number in 0..NOTES {
        let name = number.to_string();
        notes.put(NoteKind::Ticket, &name, &note(&name), LIMIT).await.expect("kept");
    }
    let (to, fro) = (open(place, BACK), open(place, BOTH));
    let sealing = tokio::spawn(async move {
        let mut sealed = 0;
        loop {
            let now = to.reseal().await.expect("to") + fro.reseal().await.expect("fro");
            sealed += now;
            if now == 0 {
                return sealed;
            }
        }
    });
    let take = |notes: Arc<FileNotes>| {
        tokio::spawn(async move {
            let mut taken = Vec::new();
            for number in 0..NOTES {
                let name = number.to_string();
                taken.extend(notes.take(NoteKind::Ticket, &name).await.expect("read"));
            }
            taken
        })
    };
    let (one, other) = (take(notes.clone()), take(notes.clone()));
    let mut taken = one.await.expect("runs");
    taken.extend(other.await.expect("runs"));
    let mut texts: Vec<_> = taken.iter().map(|note| note.text.expose().to_owned()).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!((taken.len(), texts.len()), (NOTES, NOTES), "each once");
    assert!(sealing.await.expect("runs") > 0);
    assert_eq!(on_disk(place), 0);
}

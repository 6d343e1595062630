//! The head: how far the log had come, beside it, so that a cut-off end is found.
//!
//! One block of 512 bytes that is overwritten in place after each entry is durable: disks write a
//! sector whole or not, and a place that was once allocated needs no space again. It is not
//! synced: after a loss of power it may be behind the log, never ahead of it. Its file is also
//! what processes lock.

use super::{
    chain::{self, Kind, Mac, START, VERSION},
    keys::{AuditKeys, Unverified},
};
use serde::{Deserialize, Serialize};
use std::{fs::File, io, os::unix::fs::FileExt as _};

/// The last line that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Its number; 0 before the first.
    pub(super) seq: u64,
    /// Its MAC.
    pub(super) mac: Mac,
}

/// What the head file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing: it has just been made, or was emptied.
    Blank,
    /// A head that its key vouches for.
    Valid(Head),
    /// Something else.
    Invalid,
    /// A head whose key is missing.
    KeyMissing,
}

#[derive(Serialize, Deserialize)]
struct Text {
    v: u32,
    seq: u64,
    last: String,
    key: String,
}

/// Reads the head from its file.
pub(super) fn read(file: &File, keys: &AuditKeys) -> io::Result<Found> {
    let mut block = [0; BLOCK_BYTES + 1];
    let mut len = 0;
    while len < block.len() {
        match file.read_at(&mut block[len..], len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(match len {
        0 => Found::Blank,
        BLOCK_BYTES => parse(&block[..BLOCK_BYTES], keys),
        _ => Found::Invalid,
    })
}

/// Overwrites the head in its file.
pub(super) fn write(file: &File, head: Head, keys: &AuditKeys) -> io::Result<()> {
    let key = keys.signing_id().to_owned();
    let text = Text { v: VERSION, seq: head.seq, last: chain::encode_mac(&head.mac), key };
    let text = serde_json::to_vec(&text).expect("texts and numbers are JSON");
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    chain::finish(Kind::Head, &START, text, keys, &mut block);
    block.resize(BLOCK_BYTES - 1, b' ');
    block.push(b'\n');
    file.write_all_at(&block, 0)
}

fn parse(block: &[u8], keys: &AuditKeys) -> Found {
    let object = block.trim_ascii_end();
    let (Some((text, mac)), Ok(said)) =
        (chain::split_mac(object), serde_json::from_slice::<Text>(object))
    else {
        return Found::Invalid;
    };
    let Some(last) = chain::decode_mac(said.last.as_bytes()) else { return Found::Invalid };
    match keys.verify(&said.key, &chain::protected(Kind::Head, &START, text), &mac) {
        Ok(()) => Found::Valid(Head { seq: said.seq, mac: last }),
        Err(Unverified::KeyMissing) => Found::KeyMissing,
        Err(Unverified::Refused) => Found::Invalid,
    }
}

/// One sector: written whole or not at all.
const BLOCK_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::keys;

    #[test]
    fn is_read_as_it_was_written_by_its_key_only() {
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(read(&file, &keys(&["k1"])).expect("read"), Found::Blank);
        for seq in [0, 1, u64::MAX] {
            let head = Head { seq, mac: [7; 32] };
            write(&file, head, &keys(&["k1"])).expect("written");
            assert_eq!(read(&file, &keys(&["k0", "k1"])).expect("read"), Found::Valid(head));
            assert_eq!(read(&file, &keys(&["k0"])).expect("read"), Found::KeyMissing);
            assert_eq!(file.metadata().expect("metadata").len(), 512);
        }
    }

    #[test]
    fn a_change_of_any_byte_that_says_something_is_found() {
        let file = tempfile::tempfile().expect("a file");
        write(&file, Head { seq: 12, mac: [7; 32] }, &keys(&["k1"])).expect("written");
        let mut block = [0; BLOCK_BYTES];
        file.read_exact_at(&mut block, 0).expect("read");
        for at in 0..block.trim_ascii_end().len() {
            let mut changed = block;
            changed[at] ^= 1;
            file.write_all_at(&changed, 0).expect("written");
            let found = read(&file, &keys(&["k1"])).expect("read");
            assert!(matches!(found, Found::Invalid | Found::KeyMissing), "byte {at}: {found:?}");
        }
        file.write_all_at(&block, 0).expect("written");
        file.set_len(511).expect("cut");
        assert_eq!(read(&file, &keys(&["k1"])).expect("read"), Found::Invalid);
    }
}

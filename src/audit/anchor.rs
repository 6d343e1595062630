//! Anchors: entries that vouch for what an older key protects, so that it can be retired.
//!
//! An anchor says how many lines a file had when they were last checked, and their SHA-256. Its
//! own line is protected by the key of its time, or by a later anchor in turn.

use super::{
    Error,
    chain::{self, Line, Mac},
    snapshot::Segment,
    writer::Own,
};
use aws_lc_rs::digest;
use std::{collections::BTreeMap, path::PathBuf};

/// An anchor that was come across.
#[derive(Debug, Clone)]
pub(super) struct Anchor {
    /// The file it is about, by number.
    segment: u64,
    lines: u64,
    digest: Mac,
    /// The file it stands in, by number.
    number: u64,
    /// Where it stands.
    pub(super) at: (PathBuf, u64),
    /// Its own line is as it was written.
    pub(super) is_verified: bool,
}

impl Anchor {
    pub(super) fn of(line: &Line<'_>, number: u64, at: (PathBuf, u64)) -> Option<Self> {
        let digest = chain::decode_mac(line.body.digest.as_deref()?.as_bytes())?;
        let (segment, lines) = (line.body.segment?, line.body.lines?);
        Some(Self { segment, lines, digest, number, at, is_verified: false })
    }
}

/// What anchors vouch for.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    /// Per file, how many of its lines.
    covered: BTreeMap<u64, u64>,
    broken: Vec<(PathBuf, u64)>,
}

impl Anchors {
    /// Follows `anchors` from the newest to the oldest: each is believed if its line is as it was
    /// written, or covered by one that is believed.
    pub(super) fn settle(anchors: &[Anchor], segments: &[Segment]) -> Result<Self, Error> {
        let mut numbered = BTreeMap::new();
        for segment in segments {
            let bytes = segment.read()?;
            let number = segment.number_in(&bytes);
            numbered.extend(number.map(|number| (number, (segment, bytes))));
        }
        let mut settled = Self::default();
        for anchor in anchors.iter().rev() {
            if !anchor.is_verified && !settled.cover(anchor.number, anchor.at.1) {
                continue;
            }
            // A file that is gone has expired, or is found to be missing elsewhere.
            let Some((segment, bytes)) = numbered.get(&anchor.segment) else { continue };
            if digest_of(bytes, anchor.lines) == Some(anchor.digest) {
                let covered = settled.covered.entry(anchor.segment).or_default();
                *covered = anchor.lines.max(*covered);
            } else {
                settled.broken.push((segment.path.clone(), anchor.lines));
            }
        }
        Ok(settled)
    }

    /// Says whether line `line` of file number `segment` is vouched for.
    pub(super) fn cover(&self, segment: u64, line: u64) -> bool {
        self.covered.get(&segment).is_some_and(|&lines| line <= lines)
    }

    /// Files that are not as an anchor says, up to which line.
    pub(super) fn broken(&self) -> Vec<(PathBuf, u64)> {
        self.broken.clone()
    }
}

/// What an anchor says of file number `segment`, whose `bytes` were checked.
pub(super) fn of_file(segment: u64, bytes: &[u8]) -> Own {
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
    let digest = digest_of(bytes, lines);
    Own { segment: Some(segment), lines: Some(lines), digest, prev: None }
}

/// The SHA-256 of the first `lines` lines; none if there are not so many.
fn digest_of(bytes: &[u8], lines: u64) -> Option<Mac> {
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let (end, _) = ends.nth(usize::try_from(lines.checked_sub(1)?).ok()?)?;
    let digest = digest::digest(&digest::SHA256, &bytes[..=end]);
    Some(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

//! Frames kept in memory, at little more than their bytes.
//!
//! To keep a frame costs its entry in a list, and the buffer it was read into for as long as it is
//! kept. Callers may send a byte a frame, so tiny frames in a row are copied together.

use bytes::{Bytes, BytesMut};

/// A frame of fewer bytes is tiny.
const TINY_BYTES: usize = 1024;
/// Tiny frames are joined up to this size, bytes.
const JOINED_BYTES: usize = 16 * 1024;

#[derive(Default)]
pub(super) struct Frames {
    /// Each with the offset of its first byte.
    whole: Vec<(u64, Bytes)>,
    /// Tiny frames behind them, joined.
    joined: BytesMut,
    len: u64,
}

impl Frames {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn push(&mut self, data: Bytes) {
        let (len, tiny) = (data.len() as u64, data.len() < TINY_BYTES);
        if tiny && (!self.joined.is_empty() || self.begins_to_join()) {
            self.joined.extend_from_slice(&data);
        } else {
            self.seal();
            self.whole.push((self.len, data));
        }
        self.len += len;
        if self.joined.len() >= JOINED_BYTES {
            self.seal();
        }
    }

    /// What is kept from byte `offset` on, as far as it lies in one piece.
    pub(super) fn read(&mut self, offset: u64) -> Option<Bytes> {
        self.seal();
        let behind = self.whole.partition_point(|(at, _)| *at <= offset);
        let (at, data) = self.whole.get(behind.checked_sub(1)?)?;
        let skip = usize::try_from(offset - at).ok().filter(|skip| *skip < data.len())?;
        Some(data.slice(skip..))
    }

    pub(super) fn into_frames(mut self) -> impl Iterator<Item = Bytes> {
        self.seal();
        self.whole.into_iter().map(|(_, data)| data)
    }

    /// Takes the last frame as the first of those to be joined, if it is tiny, too. A single one
    /// is not worth a copy.
    fn begins_to_join(&mut self) -> bool {
        let last = self.whole.pop_if(|(_, last)| last.len() < TINY_BYTES);
        last.inspect(|(_, last)| self.joined.extend_from_slice(last)).is_some()
    }

    fn seal(&mut self) {
        if !self.joined.is_empty() {
            let joined = std::mem::take(&mut self.joined).freeze();
            self.whole.push((self.len - joined.len() as u64, joined));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of `sizes`, and their bytes.
    fn keep(sizes: &[usize]) -> (Frames, Vec<u8>) {
        let (mut frames, mut bytes) = (Frames::default(), Vec::new());
        for (number, size) in sizes.iter().enumerate() {
            let data: Vec<u8> = (0..*size).map(|at| (at * 7 + number) as u8).collect();
            bytes.extend_from_slice(&data);
            frames.push(data.into());
        }
        assert_eq!(frames.len(), bytes.len() as u64);
        (frames, bytes)
    }

    #[test]
    fn whatever_is_joined_is_read_back_from_every_place() {
        for sizes in [
            &[1; 3000][..],
            &[0, 0, 1, 0, 1023, 1024, 1, 5000, 3, 0, 4],
            &[700; 50],
            &[2000, 1, 2000, 1, 1, 2000],
            &[],
        ] {
            let (mut frames, bytes) = keep(sizes);
            for from in (0..bytes.len()).step_by(97) {
                let mut read = Vec::new();
                while let Some(data) = frames.read((from + read.len()) as u64) {
                    read.extend_from_slice(&data);
                }
                assert_eq!(read, bytes[from..]);
                // A reader must not disturb what comes after it.
                frames.push(Bytes::new());
            }
            assert_eq!(frames.into_frames().collect::<Vec<_>>().concat(), bytes);
        }
    }

    #[test]
    fn tiny_frames_are_joined_and_others_kept_as_they_came() {
        assert_eq!(keep(&[1; 100_000]).0.into_frames().count(), 7);
        let one = Bytes::from_static(b"one");
        let large = Bytes::from(vec![0; TINY_BYTES]);
        let mut frames = Frames::default();
        frames.push(one.clone());
        frames.push(large.clone());
        let kept: Vec<_> = frames.into_frames().map(|frame| frame.as_ptr()).collect();
        assert_eq!(kept, [one.as_ptr(), large.as_ptr()]);
    }
}

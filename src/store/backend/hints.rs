//! Hints that an entry was written or deleted: what another server notifies of, so that this one looks
//! at once instead of at its next poll.
//!
//! A hint may be missed and may come for nothing: it makes faster, and decides nothing.

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::broadcast::{Receiver, error::RecvError, error::TryRecvError};

/// Says that anything may have changed.
pub(super) const ALL: u64 = 0;

/// The hint for an entry: a hash, since all roles of a database may listen.
pub(super) fn hint(space: &str, key: &str) -> u64 {
    let hash = digest(&SHA256, format!("{space}/{key}").as_bytes());
    u64::from_be_bytes(*hash.as_ref().first_chunk().expect("a hash has 32 bytes"))
}

/// What comes from now on; by default nothing ever does.
#[derive(Debug, Default)]
pub struct Hints(Option<Receiver<u64>>);

impl Hints {
    #[cfg(feature = "postgres")]
    pub(super) fn new(receiver: Receiver<u64>) -> Self {
        Self(Some(receiver))
    }

    /// Waits for a hint of any entry; those that have come by then count as one.
    ///
    /// # Cancel safety
    /// Safe: no hint is lost.
    pub async fn any(&mut self) {
        self.until(|_| true).await;
        if let Some(receiver) = &mut self.0 {
            while matches!(receiver.try_recv(), Ok(_) | Err(TryRecvError::Lagged(_))) {}
        }
    }

    /// Waits for a hint of this entry.
    ///
    /// # Cancel safety
    /// Safe: as [`Hints::any`].
    pub async fn of(&mut self, space: &str, key: &str) {
        let wanted = hint(space, key);
        self.until(|hint| hint == wanted).await;
    }

    async fn until(&mut self, is_wanted: impl Fn(u64) -> bool) {
        while let Some(receiver) = &mut self.0 {
            match receiver.recv().await {
                Ok(hint) if hint == ALL || is_wanted(hint) => return,
                Ok(_) => {}
                // Among those that were too many may be the one.
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => self.0 = None,
            }
        }
        std::future::pending().await
    }
}

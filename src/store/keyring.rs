//! Keeps master keys in the keyring of the operating system: on Linux the Secret Service.
//!
//! A keyring may ask a person to unlock it, or never respond. Each call therefore runs on a thread
//! of its own that is left behind when time is up: a pool of threads would hold the exit of the
//! process, and the D-Bus client must not run inside another runtime.

use crate::secret::Secret;
use std::time::Duration;

/// Why the keyring gives or takes no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("it has none of this id: `adsproxy key init --keyring --id` with the id makes one")]
    None,
    #[error("it has one of this id already, which was left as it is: choose another with --id")]
    Exists,
    #[error(
        "it is locked: log in to the desktop or unlock it there (Linux without a desktop: \
         `gnome-keyring-daemon --unlock` in the same D-Bus session), then try again"
    )]
    Locked,
    #[error(
        "no keyring can be reached ({0}): run in a desktop session, or with a D-Bus session bus \
         and a Secret Service such as gnome-keyring; else keep the key in a file, with \
         store.kind = \"file\""
    )]
    Absent(String),
    #[error(
        "no response within {} seconds: is it waiting to be unlocked, or does it hang?",
        .0.as_secs()
    )]
    Timeout(Duration),
    #[error("what it holds under this id is no key of ours")]
    NoKey,
    #[error("this adsproxy was built without the feature \"keyring\"")]
    NotBuilt,
    #[error("the system gives no thread to ask it on")]
    NoThread,
}

/// Fetches the key `id`, base64. Comes back within [`TIMEOUT`] whatever the keyring does.
pub fn fetch(id: &str) -> Result<Secret, Error> {
    let id = id.to_owned();
    apart(move || os::fetch(&id))
}

/// Puts a new key under `id`, and reads it back; one that is there already is left as it is.
pub fn add(id: &str, key: &Secret) -> Result<(), Error> {
    let (id, key) = (id.to_owned(), key.clone());
    apart(move || match os::fetch(&id) {
        Ok(_) | Err(Error::NoKey) => Err(Error::Exists),
        Err(Error::None) => {
            os::store(&id, &key)?;
            (os::fetch(&id)? == key).then_some(()).ok_or(Error::NoKey)
        }
        Err(error) => Err(error),
    })
}

/// Runs `work` on a thread of its own, for at most [`TIMEOUT`].
fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (done, result) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("keyring".to_owned());
    // The caller may have left.
    thread.spawn(move || drop(done.send(work()))).map_err(|_| Error::NoThread)?;
    result.recv_timeout(TIMEOUT).unwrap_or(Err(Error::Timeout(TIMEOUT)))
}

/// How long a person has to unlock it.
pub const TIMEOUT: Duration = Duration::from_secs(25);

#[cfg(feature = "keyring")]
mod os {
    //! The keyring of this system.

    use super::{Error, Secret};
    use ::keyring::{Entry, Error as OsError};
    use zeroize::Zeroizing;

    /// Under which its entries are filed.
    const SERVICE: &str = "adsproxy";

    pub(super) fn fetch(id: &str) -> Result<Secret, Error> {
        let secret = Zeroizing::new(entry(id)?.get_secret().map_err(|why| explain(&why))?);
        let text = std::str::from_utf8(&secret).map_err(|_| Error::NoKey)?;
        Ok(Secret::from(text))
    }

    pub(super) fn store(id: &str, key: &Secret) -> Result<(), Error> {
        entry(id)?.set_secret(key.expose().as_bytes()).map_err(|why| explain(&why))
    }

    fn entry(id: &str) -> Result<Entry, Error> {
        if let Err(why) = Entry::store_status() {
            return Err(Error::Absent(innermost(why)));
        }
        Entry::new(SERVICE, id).map_err(|why| explain(&why))
    }

    fn explain(why: &OsError) -> Error {
        match why {
            OsError::NoEntry => Error::None,
            OsError::NoStorageAccess(_) => Error::Locked,
            OsError::BadEncoding(_) | OsError::BadDataFormat(..) => Error::NoKey,
            other => Error::Absent(innermost(other)),
        }
    }

    /// What the system said. An error of the keyring never holds a secret but in `BadEncoding`
    /// and `BadDataFormat`, which do not come here.
    fn innermost(why: &(dyn std::error::Error + 'static)) -> String {
        match why.source() {
            Some(source) => innermost(source),
            None => why.to_string(),
        }
    }
}

#[cfg(not(feature = "keyring"))]
mod os {
    //! No keyring.

    use super::{Error, Secret};

    pub(super) fn fetch(_: &str) -> Result<Secret, Error> {
        Err(Error::NotBuilt)
    }

    pub(super) fn store(_: &str, _: &Secret) -> Result<(), Error> {
        Err(Error::NotBuilt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_that_panics_gives_no_result_and_is_not_waited_for() {
        let started = Instant::now();
        let nothing: Result<(), Error> = apart(|| panic!("no keyring"));
        assert_eq!(nothing, Err(Error::Timeout(TIMEOUT)));
        assert!(started.elapsed() < TIMEOUT);
    }

    #[test]
    fn what_the_keyring_says_comes_back() {
        assert_eq!(apart(|| Ok(1)), Ok(1));
        assert_eq!(apart(|| Err::<(), _>(Error::Locked)), Err(Error::Locked));
    }
}

//! The path of a Unix socket, claimed by one server at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use mio::net::UnixStream;
use rustix::fs::{FlockOperation, OFlags, flock};

use crate::config::{Place, Url};
use crate::error::Error;

const IN_USE: &str = "the address is in use: stop its owner or choose another path";

/// The right to bind a path, for as long as this lives.
///
/// The library removes what has the path, and binds it then: of two servers that both found the
/// path free, each would think that it has it. So a server locks `PATH.lock` before it looks. The
/// file is never removed, since another server may have opened it by then: it would have a lock on
/// a file that is not there, beside the lock of the next one on a new file.
#[derive(Debug)]
pub(super) struct Claim(File);

impl Claim {
    /// Claims the path that the URL names, if it names one.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the path is taken, or cannot be locked.
    pub(super) fn of(url: &Url) -> Result<Option<Self>, Error> {
        let Place::Ipc(path) = url.place() else { return Ok(None) };
        // The system itself binds an abstract name only once, and the library draws a new path in
        // the place of a `*`.
        if path.starts_with('@') || path == "*" {
            return Ok(None);
        }
        let claimed = Self::lock(path).and_then(|claim| check_free(path).map(|()| Some(claim)));
        claimed.map_err(|problem| {
            let problem = format!("{url} cannot be bound: {problem}");
            Error::Config { argument: "url", problem }
        })
    }

    fn lock(path: &str) -> Result<Self, String> {
        let path = format!("{path}.lock");
        // For its owner alone: whoever may open the file can keep servers off the path. Programs
        // that this process executes do not inherit it, as no file that is opened so.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => "there is no such folder".to_owned(),
                _ => format!("cannot open {path}: {error}"),
            })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
            Ok(()) => Ok(Self(file)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(IN_USE.to_owned()),
            Err(error) => Err(format!("cannot lock {path}: {error}")),
        }
    }
}

impl Drop for Claim {
    /// Unlocks, for to close the file is not enough: a forked child has a copy of the descriptor.
    /// The child does not come here, since the thread of the server owns the claim.
    fn drop(&mut self) {
        // The system unlocks whatever file is open, and closes it in any case.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// The library would replace whatever has the path: a file, the socket of a program that claims
/// nothing.
fn check_free(path: &str) -> Result<(), String> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err("the path is taken by what is no socket: choose another one".to_owned());
    }
    // Does not block. Only a refusal says that nobody is there: an owner may be too busy to take a
    // connection, of another kind, or not for us to ask.
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(IN_USE.to_owned()),
    }
}

//! The path of a Unix socket, claimed by one server at a time.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use mio::net::UnixStream;
use rustix::fs::{FlockOperation, OFlags, flock};

use crate::config::{Place, Url};
use crate::error::Error;

const IN_USE: &str = "the address is in use: stop its owner or choose another path";

/// The right to bind a path, for as long as this lives.
///
/// The library removes what has the path, and binds it then: of two servers that both found the
/// path free, each would think that it has it. So a server locks `PATH.lock` before it looks.
///
/// The file stays, but for one that was made for a path that turns out to be taken. Another server
/// may have opened that by then: who has locked a file sees whether it is still there.
#[derive(Debug)]
pub(super) struct Claim {
    path: String,
    file: File,
    /// Whether the file was made for this.
    is_new: bool,
}

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
        let name = format!("{path}.lock");
        let claimed = Self::lock(path, &name).and_then(|claim| {
            let is_free = check_free(path);
            if is_free.is_err() && claim.is_new {
                // A file that cannot be removed does no harm.
                let _ = fs::remove_file(&name);
            }
            is_free.map(|()| Some(claim))
        });
        claimed.map_err(|problem| {
            let problem = format!("{url} cannot be bound: {problem}");
            Error::Config { argument: "url", problem }
        })
    }

    /// The server is gone, and so is its socket: nobody else can have bound the path yet.
    pub(super) fn end(self) {
        if check_free(&self.path).is_ok() {
            // Whoever binds it next replaces what cannot be removed.
            let _ = fs::remove_file(&self.path);
        }
    }

    fn lock(path: &str, name: &str) -> Result<Self, String> {
        loop {
            let (file, is_new) = open(name).map_err(|error| match error.kind() {
                ErrorKind::NotFound => "there is no such folder".to_owned(),
                _ => format!("cannot open {name}: {error}"),
            })?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
                Ok(()) if is_there(name, &file) => {
                    return Ok(Self { path: path.to_owned(), file, is_new });
                }
                // Whoever had made it has removed it since.
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(IN_USE.to_owned());
                }
                Err(error) => return Err(format!("cannot lock {name}: {error}")),
            }
        }
    }
}

/// The file, and whether it was not there before.
fn open(name: &str) -> io::Result<(File, bool)> {
    loop {
        for is_new in [true, false] {
            // For its owner alone: whoever may open the file can keep servers off the path.
            // Programs that this process executes do not inherit it, as no file that is opened so.
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(is_new)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(name);
            match opened {
                Err(error) if is_new && error.kind() == ErrorKind::AlreadyExists => {}
                // It was removed between the two looks.
                Err(error) if !is_new && error.kind() == ErrorKind::NotFound => {}
                opened => return opened.map(|file| (file, is_new)),
            }
        }
    }
}

/// Whether a file still has its name.
fn is_there(name: &str, file: &File) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    let (named, opened) = (fs::symlink_metadata(name), file.metadata());
    named.is_ok_and(|named| opened.is_ok_and(|opened| identity(named) == identity(opened)))
}

impl Drop for Claim {
    /// Unlocks, for to close the file is not enough: a forked child has a copy of the descriptor.
    /// The child does not come here, since the thread of the server owns the claim.
    fn drop(&mut self) {
        // The system unlocks whatever file is open, and closes it in any case.
        let _ = flock(&self.file, FlockOperation::Unlock);
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

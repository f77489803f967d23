//! A registry in a folder, for servers of one host.
//!
//! All of it is one file that is replaced with each transaction. Whoever reads or writes holds a
//! lock of the operating system on a second file, which ends with its process.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::error::Error;
use crate::registry::address::wrong;
use crate::registry::{
    Change, Entry, Guard, Outcome, Registry, Revision, STEPS_MAX, Snapshot, Transaction, Trouble,
};

const MARK: &str = "zmqlocker registry 1";

/// The longest file that is read: more than all that a cluster writes.
const BYTES_MAX: u64 = 64 << 20;

/// How long to wait before another look whether the lock is free.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A registry in a folder.
#[derive(Debug)]
pub struct FileRegistry {
    folder: PathBuf,
    lock: File,
}

impl FileRegistry {
    /// The registry in this folder, which is made unless it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the folder cannot be used, or holds something else.
    pub fn open(folder: &Path, within: Duration) -> Result<Self, Error> {
        let unusable = |problem: &dyn std::fmt::Display| {
            wrong(format!("file://{} cannot be used: {problem}", folder.display()))
        };
        match fs::create_dir(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(unusable(&error)),
            _ => Ok(()),
        }?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("registry.lock"))
            .map_err(|error| unusable(&error))?;
        let mut registry = Self { folder: folder.to_owned(), lock };
        registry.read("", within).map_err(|trouble| unusable(&trouble))?;
        Ok(registry)
    }

    /// Waits for the lock, for about `within`.
    fn lock(&self, within: Duration) -> Result<Locked<'_>, Trouble> {
        for _ in 0..=within.as_millis() {
            match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Locked(&self.lock)),
                Err(error) if io::Error::from(error).kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(Trouble::of("lock the registry", &error)),
            }
            thread::park_timeout(LOOK_AGAIN);
        }
        let problem = format!("another process has had it for {} s", within.as_secs_f64());
        Err(Trouble::of("lock the registry", &problem))
    }

    fn load(&self) -> Result<Store, Trouble> {
        let path = self.folder.join("registry");
        let unreadable = |problem: &dyn std::fmt::Display| {
            Trouble::of(&format!("read {}", path.display()), problem)
        };
        let bytes = match fs::metadata(&path) {
            Ok(found) if found.len() > BYTES_MAX => return Err(unreadable(&"it is too long")),
            Ok(_) => fs::read(&path).map_err(|error| unreadable(&error))?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Store::default()),
            Err(error) => return Err(unreadable(&error)),
        };
        Store::decode(&bytes).ok_or_else(|| unreadable(&"it is no registry of zmqlocker"))
    }

    /// Replaces the file, so that it is there as it was or as it will be, whatever fails.
    fn save(&self, store: &Store) -> io::Result<()> {
        let new = self.folder.join("registry.new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&store.encode())?;
        file.sync_all()?;
        fs::rename(&new, self.folder.join("registry"))?;
        File::open(&self.folder)?.sync_all()
    }
}

impl Registry for FileRegistry {
    fn read(&mut self, prefix: &str, within: Duration) -> Result<Snapshot, Trouble> {
        let _locked = self.lock(within)?;
        let store = self.load()?;
        let below = store.entries.range(prefix.to_owned()..);
        let below = below.take_while(|(key, _)| key.starts_with(prefix));
        let entries = below.map(|(_, entry)| entry.clone()).collect();
        Ok(Snapshot { revision: store.revision, entries })
    }

    fn transact(&mut self, transaction: &Transaction, within: Duration) -> Outcome {
        if transaction.guards.len().max(transaction.changes.len()) > STEPS_MAX {
            return Outcome::Unknown(Trouble(format!(
                "a transaction has {STEPS_MAX} steps at most"
            )));
        }
        let locked = self.lock(within).and_then(|locked| Ok((locked, self.load()?)));
        let (_locked, mut store) = match locked {
            Ok(locked) => locked,
            Err(trouble) => return Outcome::Unknown(trouble),
        };
        if !transaction.guards.iter().all(|guard| store.holds(guard)) {
            return Outcome::Refused;
        }
        store.apply(&transaction.changes);
        match self.save(&store) {
            Ok(()) => Outcome::Done(store.revision),
            Err(error) => Outcome::Unknown(Trouble::of("write the registry", &error)),
        }
    }
}

/// The lock, for as long as this lives.
#[derive(Debug)]
struct Locked<'a>(&'a File);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Of a file that is open and locked, the system takes it.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

#[derive(Debug, Default)]
struct Store {
    revision: Revision,
    entries: BTreeMap<String, Entry>,
}

impl Store {
    fn holds(&self, guard: &Guard) -> bool {
        let (key, wanted) = match guard {
            Guard::Created(key, revision) | Guard::Modified(key, revision) => (key, *revision),
        };
        let entry = self.entries.get(key);
        let found = entry.map_or(Revision::NONE, |entry| match guard {
            Guard::Created(..) => entry.created,
            Guard::Modified(..) => entry.modified,
        });
        found == wanted
    }

    fn apply(&mut self, changes: &[Change]) {
        self.revision.0 += 1;
        let modified = self.revision;
        for change in changes {
            match change {
                Change::Delete(key) => {
                    self.entries.remove(key);
                }
                Change::Put(key, value) => {
                    let created = self.entries.get(key).map_or(modified, |entry| entry.created);
                    let entry = Entry { key: key.clone(), value: value.clone(), created, modified };
                    self.entries.insert(key.clone(), entry);
                }
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = format!("{MARK} {}\n", self.revision.0).into_bytes();
        for entry in self.entries.values() {
            let Entry { key, value, created, modified } = entry;
            let lengths = (key.len(), value.len());
            let line = format!("{} {} {} {}\n", lengths.0, lengths.1, created.0, modified.0);
            for part in [line.as_bytes(), key.as_bytes(), value, b"\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, mut rest) = split_line(bytes)?;
        let revision = Revision(head.strip_prefix(MARK)?.strip_prefix(' ')?.parse().ok()?);
        let mut store = Self { revision, entries: BTreeMap::new() };
        while !rest.is_empty() {
            let (line, after) = split_line(rest)?;
            let numbers: Vec<u64> =
                line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
            let [key, value, created, modified] = numbers[..] else { return None };
            let (key, after) = after.split_at_checked(usize::try_from(key).ok()?)?;
            let (value, after) = after.split_at_checked(usize::try_from(value).ok()?)?;
            rest = after.strip_prefix(b"\n")?;
            let key = std::str::from_utf8(key).ok()?.to_owned();
            let (created, modified) = (Revision(created), Revision(modified));
            let entry = Entry { key: key.clone(), value: value.to_owned(), created, modified };
            store.entries.insert(key, entry);
        }
        Some(store)
    }
}

fn split_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_read_as_it_was_written() {
        let mut store = Store::default();
        let put = |key: &str, value: &[u8]| Change::Put(key.to_owned(), value.to_owned());
        store.apply(&[put("a", b"line\nline"), put("b", b"")]);
        store.apply(&[put("a", b"\xff\n")]);
        let bytes = store.encode();
        let again = Store::decode(&bytes).unwrap();
        assert_eq!((again.revision, &again.entries), (store.revision, &store.entries));
        // One that was cut off is none.
        let whole = (0..bytes.len()).filter(|end| Store::decode(&bytes[..*end]).is_some());
        assert!(whole.map(|end| bytes[end - 1]).all(|byte| byte == b'\n'));
    }
}

//! Usage on the disk: one file, which a thread of its own writes.

use std::fmt::Display;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::{io, mem};

use redb::{Database, DatabaseError, ReadableTable, StorageError};

use crate::engine::{GrantId, Machine, Restored, Unfit};
use crate::error::Error;
use crate::net::host::host_name;
use crate::net::journal::LOG;
use crate::net::records::{Entry, HANDED_OVER, LEASES, NUMBERS, RUN, USAGE, commit};
use crate::time::Timestamp;

/// The file within the folder.
const FILE: &str = "usage.redb";

/// The file within the folder that says which server has it.
const SERVER: &str = "server";

/// How many records may wait to be written; whoever adds another one waits as well.
const QUEUE_MAX: usize = 65_536;

/// How many bytes of the file are kept in memory.
const CACHE_BYTES: usize = 16 << 20;

/// Where another boot of the machine has another text.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The usage of keys on the disk. What was given to it is written when it is dropped.
#[derive(Debug)]
pub(super) struct Ledger {
    folder: String,
    boot: String,
    database: Arc<Database>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What was found on the disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// Keys whose usage goes on.
    pub(super) kept: u64,
    /// Keys whose usage was dropped: they have no limits any more.
    pub(super) unserved: u64,
    /// Leases that are held until their holders say otherwise, or fall silent.
    pub(super) leases: u64,
    /// Whether other locks may have been granted, so that none is for a while.
    pub(super) is_unsure: bool,
}

/// What the thread shares with the server.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<Entry>,
    /// The number of the last record in the queue.
    queued: u64,
    /// The number of the last record on the disk.
    written: u64,
    closing: bool,
    failure: Option<String>,
}

impl Ledger {
    /// Opens the folder, which no other server may use, and makes sure that it can be written to.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names the folder and says what to do.
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let name = folder.display().to_string();
        let unusable = |problem: &dyn Display| unusable(&name, problem);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| unusable(&error))?;
        let file = fs::metadata(folder.join(FILE));
        // A crash of the very first start may leave an empty one: then there is no trace of others.
        if file.map_or(0, |file| file.len()) == 0 && folder.join(SERVER).exists() {
            log::warn!(
                target: LOG, event = "lost", data_dir = name.as_str();
                "nothing is in {FILE} of the data_dir {name:?}, though a server has had it: what \
                 was used and who holds locks is forgotten"
            );
        }
        let open = || {
            Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_file_format_v3(true)
                .create(folder.join(FILE))
        };
        // The library takes it for granted that a file is as long as it says of itself.
        let opened = catch_unwind(open).map_err(|_| damaged(&name, &"its end is missing"))?;
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => taken(folder),
            error => not_opened(&name, &error),
        })?;
        let this = format!("process {} on host {}", std::process::id(), host_name());
        fs::write(folder.join(SERVER), this).map_err(|error| unusable(&error))?;
        commit(&database, "", []).map_err(|error| unusable(&error))?;
        // The name of a new file has to be on the disk as well.
        File::open(folder).and_then(|file| file.sync_all()).map_err(|error| unusable(&error))?;
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let (database, shared) = (Arc::new(database), Arc::new(Shared::default()));
        let writer = Writer {
            database: Arc::clone(&database),
            shared: Arc::clone(&shared),
            boot: boot.clone(),
        };
        let thread = thread::Builder::new()
            .name("zmql-ledger".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| Error::system("start a thread", &error))?;
        Ok(Self { folder: name, boot, database, shared, thread: Some(thread) })
    }

    /// Has a machine go on from what is on the disk, and record what is used from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names the first key whose record cannot be taken up.
    pub(super) fn restore<E>(
        &self,
        now: Timestamp,
        first_number: GrantId,
        machine: &mut Machine<E>,
    ) -> Result<Found, Error> {
        let mut found = Found::default();
        let mut last = 0;
        let broken = |error: &dyn Display| {
            not_opened(&self.folder, &StorageError::Corrupted(error.to_string()).into())
        };
        let reading = self.database.begin_read().map_err(|error| broken(&error))?;
        let run = reading.open_table(RUN).map_err(|error| broken(&error))?;
        let of_run = |name| run.get(name).map(|it| it.map(|it| it.value()));
        let numbers = of_run(NUMBERS).map_err(|error| broken(&error))?;
        let handed_over = of_run(HANDED_OVER).map_err(|error| broken(&error))?;
        let last_number = GrantId(numbers.unwrap_or(0)).max(first_number);
        machine.number_grants_above(last_number);
        let up_to = machine.make_durable();
        commit(&self.database, "", [Entry::Numbers(up_to), Entry::HandedOver(false)])
            .map_err(|error| unusable(&self.folder, &error))?;
        found.is_unsure = handed_over == Some(0);
        machine.begin_locks(now, !found.is_unsure);

        let table = reading.open_table(USAGE).map_err(|error| broken(&error))?;
        for row in table.iter().map_err(|error| broken(&error))? {
            let (key, value) = row.map_err(|error| broken(&error))?;
            let (key, (boot, record)) = (key.value(), value.value());
            let same_clock = !boot.is_empty() && boot == self.boot;
            match machine.restore(now, same_clock, key, record) {
                Ok(Restored::Kept) => found.kept += 1,
                Ok(Restored::Over) => {}
                Ok(Restored::Unserved) => found.unserved += 1,
                Err(unfit) => return Err(self.unfit(key, unfit)),
            }
            last = self.write_outputs(machine).unwrap_or(last);
        }
        let table = reading.open_table(LEASES).map_err(|error| broken(&error))?;
        for row in table.iter().map_err(|error| broken(&error))? {
            let (grant, value) = row.map_err(|error| broken(&error))?;
            let (grant, (boot, record)) = (GrantId(grant.value()), value.value());
            let same_clock = !boot.is_empty() && boot == self.boot;
            if !machine.restore_lease(now, same_clock, grant, record) {
                return Err(self.unfit(&format!("lease {}", grant.0), Unfit::Unreadable));
            }
            found.leases += 1;
            last = self.write_outputs(machine).unwrap_or(last);
        }
        self.wait_until_written(last)?;
        Ok(found)
    }

    /// Has what a machine says written, and drops what it says to others. The last number of it.
    pub(super) fn write_outputs<E>(&self, machine: &mut Machine<E>) -> Option<u64> {
        let mut last = None;
        while let Some(output) = machine.poll_output() {
            if let Some((number, entry)) = Entry::of(output) {
                self.write(number, entry);
                last = Some(number);
            }
        }
        last
    }

    /// Has an entry written soon; waits only if far too many are to be.
    pub(super) fn write(&self, number: u64, entry: Entry) {
        let is_full = |state: &mut State| state.queue.len() >= QUEUE_MAX && state.failure.is_none();
        let waited = self.shared.changed.wait_while(self.shared.lock(), is_full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.queue.push(entry);
        state.queued = number;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until the record of that number is on the disk, and all before it.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if something could not be written, this record or another one.
    pub(super) fn wait_until_written(&self, number: u64) -> Result<(), Error> {
        let is_missing = |state: &mut State| state.written < number && state.failure.is_none();
        let waited = self.shared.changed.wait_while(self.shared.lock(), is_missing);
        self.outcome(&waited.unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes all that is left, and whether nothing else was granted, and lets another server have
    /// the folder.
    ///
    /// # Errors
    ///
    /// As [`Self::wait_until_written`].
    pub(super) fn close(mut self, all_is_known: bool) -> Result<(), Error> {
        let last = self.shared.lock().queued;
        self.write(last + 1, Entry::HandedOver(all_is_known));
        self.end();
        self.outcome(&self.shared.lock())
    }

    fn end(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        // A thread that broke has left its failure.
        let _ = self.thread.take().map(JoinHandle::join);
    }

    fn outcome(&self, state: &State) -> Result<(), Error> {
        let Some(failure) = &state.failure else { return Ok(()) };
        let problem = format!(
            "{failure}; what is not recorded in {:?} is not granted, so the server stops: make \
             room on the disk, and start it again",
            self.folder
        );
        Err(Error::system("record what is used", &problem))
    }

    fn unfit(&self, key: &str, unfit: Unfit) -> Error {
        let problem = match unfit {
            Unfit::Unreadable => format!(
                "{:?} has a record of key {key:?} that cannot be read: start the version that \
                 wrote it, or move {FILE} away to begin with nothing used",
                self.folder
            ),
            Unfit::TooManyKeys => format!(
                "{:?} has records of more keys than may be in use (`keys_max`), such as {key:?}: \
                 allow for more, or move {FILE} away to begin with nothing used",
                self.folder
            ),
        };
        Error::Config { argument: "data_dir", problem }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that writes.
struct Writer {
    database: Arc<Database>,
    shared: Arc<Shared>,
    boot: String,
}

impl Writer {
    /// Writes until the ledger is closed, all that has come meanwhile at once.
    fn run(self) {
        loop {
            let is_idle = |state: &mut State| state.queue.is_empty() && !state.closing;
            let waited = self.shared.changed.wait_while(self.shared.lock(), is_idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.queue.is_empty() {
                return;
            }
            let (records, number) = (mem::take(&mut state.queue), state.queued);
            drop(state);
            self.shared.changed.notify_all();
            let outcome = commit(&self.database, &self.boot, records);
            let mut state = self.shared.lock();
            match outcome {
                Ok(()) => state.written = number,
                Err(error) => state.failure = Some(error.to_string()),
            }
            let failed = state.failure.is_some();
            drop(state);
            self.shared.changed.notify_all();
            if failed {
                return;
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if thread::panicking() {
            let broke = "the thread that writes broke: please report it".to_owned();
            self.shared.lock().failure = Some(broke);
            self.shared.changed.notify_all();
        }
    }
}

fn unusable(folder: &str, problem: &dyn Display) -> Error {
    let problem = format!(
        "{folder:?} cannot be used: {problem}: it must be a folder that this process may write \
         to, on a disk with room"
    );
    Error::Config { argument: "data_dir", problem }
}

/// Another server has the folder, and has said who it is unless it has only just begun.
fn taken(folder: &Path) -> Error {
    let who = fs::read_to_string(folder.join(SERVER)).unwrap_or_default();
    let who = if who.is_empty() { "which has only just begun" } else { who.trim() };
    let problem = format!(
        "{:?} is in use by another server, {who}: stop that one, or give each server a folder of \
         its own",
        folder.display().to_string()
    );
    Error::Config { argument: "data_dir", problem }
}

fn not_opened(folder: &str, error: &DatabaseError) -> Error {
    match error {
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() != io::ErrorKind::InvalidData =>
        {
            unusable(folder, error)
        }
        error => damaged(folder, error),
    }
}

fn damaged(folder: &str, problem: &dyn Display) -> Error {
    let problem = format!(
        "{folder:?} cannot be read: {problem}: put a backup of {FILE} in its place, or move it \
         away to begin with nothing used"
    );
    Error::Config { argument: "data_dir", problem }
}

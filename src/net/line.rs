//! A connection of a server, as its threads count what goes over it.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zmq_sys::connection;

use crate::engine::ClientInfo;
use crate::time::Timestamp;

/// One connection. The server's thread counts; the warden compares with what the system counts.
#[derive(Debug)]
pub(super) struct Line {
    fd: RawFd,
    /// Tells the connection from all others that had or will have this descriptor.
    cookie: u64,
    pub(super) since: Timestamp,
    is_open: AtomicBool,
    is_ended: AtomicBool,
    /// Messages that were received.
    pub(super) messages: AtomicU64,
    /// Their bytes, as they travel.
    pub(super) taken: AtomicU64,
    /// The bytes of all answers, as they travel.
    pub(super) sent: AtomicU64,
    /// How much memory they take until they are on their way.
    pub(super) weight: AtomicU64,
    client: Mutex<Option<ClientInfo>>,
}

impl Line {
    /// The connection that has this descriptor now.
    fn of(now: Timestamp, fd: RawFd) -> Option<Self> {
        Some(Self {
            fd,
            cookie: connection::cookie(fd)?,
            since: now,
            is_open: AtomicBool::new(true),
            is_ended: AtomicBool::new(false),
            messages: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            weight: AtomicU64::new(0),
            client: Mutex::new(None),
        })
    }

    pub(super) const fn cookie(&self) -> u64 {
        self.cookie
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// What the system has counted; zeros where it counts nothing, as on a Unix socket. `None` if
    /// the connection is gone.
    pub(super) fn traffic(&self) -> Option<connection::Traffic> {
        self.is_there().then(|| connection::traffic(self.fd).unwrap_or_default())
    }

    /// Where it comes from.
    pub(super) fn address(&self) -> Option<String> {
        self.is_there().then(|| connection::peer_address(self.fd))?.map(|at| at.to_string())
    }

    /// Ends it. Who was in its midst asks again on the next one. Whether it was to be ended.
    pub(super) fn end(&self) -> bool {
        let ends = self.is_there() && !self.is_ended.swap(true, Ordering::AcqRel);
        if ends {
            connection::shut_down(self.fd);
        }
        ends
    }

    /// Who speaks on it, once it has said so.
    pub(super) fn client(&self) -> MutexGuard<'_, Option<ClientInfo>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_there(&self) -> bool {
        self.is_open() && connection::cookie(self.fd) == Some(self.cookie)
    }
}

/// The connections that are open, by their descriptors.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: Mutex<HashMap<RawFd, Arc<Line>>>,
    /// How many were ended because a bound was reached.
    pub(super) ended: AtomicU64,
}

impl Lines {
    /// A connection was made. `None` if it is gone already.
    pub(super) fn open(&self, now: Timestamp, fd: RawFd) -> Option<Arc<Line>> {
        self.close(fd);
        let line = Arc::new(Line::of(now, fd)?);
        self.lock().insert(fd, Arc::clone(&line));
        Some(line)
    }

    /// A connection has ended.
    pub(super) fn close(&self, fd: RawFd) {
        if let Some(line) = self.lock().remove(&fd) {
            line.is_open.store(false, Ordering::Release);
        }
    }

    /// Lets go of those that have ended without a word.
    pub(super) fn forget_gone(&self) {
        self.lock().retain(|_, line| {
            let is_there = line.is_there();
            line.is_open.store(is_there, Ordering::Release);
            is_there
        });
    }

    pub(super) fn find(&self, fd: RawFd) -> Option<Arc<Line>> {
        self.lock().get(&fd).map(Arc::clone)
    }

    pub(super) fn all(&self) -> Vec<Arc<Line>> {
        self.lock().values().map(Arc::clone).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RawFd, Arc<Line>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

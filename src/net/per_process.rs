//! Values that a forked child does not share with its parent.

use std::mem;
use std::sync::OnceLock;

/// A value that is made anew in each process that asks for it.
///
/// Sockets, threads and locks do not survive a fork: their other half stays with the parent. A
/// child finds its own value here, behind the parent's, which it never touches and never drops.
///
/// ```
/// use zmqlocker::net::PerProcess;
///
/// let pid = PerProcess::new();
/// assert_eq!(*pid.get_or_init(std::process::id), std::process::id());
/// ```
#[derive(Debug)]
pub struct PerProcess<T> {
    owned: OnceLock<Owned<T>>,
}

#[derive(Debug)]
struct Owned<T> {
    pid: u32,
    value: Option<T>,
    of_children: Box<PerProcess<T>>,
}

impl<T> PerProcess<T> {
    /// Nothing, until somebody asks.
    #[must_use]
    pub const fn new() -> Self {
        Self { owned: OnceLock::new() }
    }

    /// The value of this process, made by `make` if there is none yet.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let pid = std::process::id();
        let mut make = Some(make);
        let mut level = self;
        loop {
            let owned = level.owned.get_or_init(|| Owned {
                pid,
                value: make.take().map(|make| make()),
                of_children: Box::default(),
            });
            match &owned.value {
                Some(value) if owned.pid == pid => return value,
                _ => level = &owned.of_children,
            }
        }
    }

    /// The value of this process, if there is one.
    pub fn get(&self) -> Option<&T> {
        let pid = std::process::id();
        let mut level = self;
        loop {
            let owned = level.owned.get()?;
            if owned.pid == pid {
                return owned.value.as_ref();
            }
            level = &owned.of_children;
        }
    }
}

impl<T> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            mem::forget(self.value.take());
        }
    }
}

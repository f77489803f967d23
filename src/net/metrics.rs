//! The port on which a server is watched.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use mio::net::TcpListener;
use mio::{Interest, Poll, Waker};

use crate::error::Error;
use crate::net::journal::LOG;
use crate::net::server::Control;
use crate::net::sight::{Sight, Watching, sight};
use crate::net::watcher::{LISTENER, WAKER, Watcher};
use crate::observe::WatchAddress;

/// A port that was bound, for a thread to serve once there is a server.
#[derive(Debug)]
pub(super) struct MetricsPort {
    address: WatchAddress,
    url: String,
    poll: Poll,
    listener: TcpListener,
    watching: Watching,
}

/// The thread that serves it.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) url: String,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
}

impl MetricsPort {
    /// Binds the port. With it, the server's side of what is shown there.
    pub(super) fn bind(address: WatchAddress) -> Result<(Self, Sight), Error> {
        let socket_address = address.socket_address();
        let mut listener = TcpListener::bind(socket_address).map_err(|error| Error::Config {
            argument: "metrics",
            problem: format!("{address} cannot be bound: {}", error.to_string().to_lowercase()),
        })?;
        let system = |error: std::io::Error| Error::system("watch a socket", &error);
        let url = format!("http://{}/", listener.local_addr().map_err(system)?);
        let poll = Poll::new().map_err(system)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(system)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(system)?;
        let (sight, watching) = sight(waker);
        Ok((Self { address, url, poll, listener, watching }, sight))
    }

    /// Starts to serve.
    pub(super) fn serve(self, control: Arc<Control>) -> Result<Metrics, Error> {
        let Self { address, url, poll, listener, watching } = self;
        log::info!(target: LOG, event = "metrics", url = url.as_str(); "metrics at {url}");
        if !address.is_local() {
            log::warn!(
                target: LOG, event = "metrics_open", url = url.as_str();
                "{url} is open to other hosts: whoever reaches it can read the names of keys and \
                 clients; use 127.0.0.1:PORT or a firewall where that is not wanted"
            );
        }
        let watcher = Watcher::new((poll, listener), address.is_local(), watching, control);
        let thread = thread::Builder::new()
            .name("zmql-metrics".to_owned())
            .spawn(move || watcher.run())
            .map_err(|error| Error::system("start a thread", &error))?;
        Ok(Metrics { url, thread: Mutex::new(Some(thread)) })
    }
}

impl Metrics {
    /// Waits for the end of the thread, which ends when the server has.
    pub(super) fn join(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!(target: LOG, "the thread at {} broke: please report it", self.url);
        }
    }

    /// Lets the thread be: it is another process's.
    pub(super) fn forget(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(thread.take());
    }
}

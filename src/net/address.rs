//! Where a server is: what the text of a URL names.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::net::SocketAddr as UnixAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use mio::Waker;

use crate::config::Url;
use crate::error::Error;

/// An address to connect to.
#[derive(Clone, Debug)]
pub(super) enum Address {
    /// A host's name and a port: to be looked up.
    Name(String, u16),
    Tcp(SocketAddr),
    Unix(UnixAddr),
}

impl Address {
    /// Reads `tcp://HOST:PORT` or `ipc://PATH`; a path that starts with `@` is abstract, as ZeroMQ
    /// has it.
    pub(super) fn parse(url: &Url) -> Result<Self, Error> {
        let text = url.as_str();
        let bad = |reason: &str| Error::Config {
            argument: "url",
            problem: format!("{url} cannot be connected to: {reason}"),
        };
        if let Some(path) = text.strip_prefix("ipc://") {
            let address = match path.strip_prefix('@') {
                Some(name) => abstract_address(name),
                None => UnixAddr::from_pathname(path),
            };
            return address.map(Self::Unix).map_err(|error| bad(&error.to_string()));
        }
        let (host, port) = text
            .strip_prefix("tcp://")
            .and_then(|rest| rest.rsplit_once(':'))
            .ok_or_else(|| bad("it must read tcp://HOST:PORT"))?;
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| bad("the port must be a number from 1 to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self::Tcp(SocketAddr::new(ip, port)));
        }
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "*;[]/:".contains(c)) {
            return Err(bad("the host must be a name or an address"));
        }
        Ok(Self::Name(host.to_owned(), port))
    }

    /// Starts to look a name up; `None` if there is nothing to look up.
    pub(super) fn resolve(&self, waker: &Arc<Waker>) -> Option<Resolving> {
        let Self::Name(host, port) = self else { return None };
        let (host, port, waker) = (host.clone(), *port, Arc::clone(waker));
        let (sender, receiver) = mpsc::channel();
        // The system's look-up may block for seconds and cannot be interrupted. The thread ends
        // with it and holds nothing, so nobody waits for it.
        let look_up = move || {
            let found = (host.as_str(), port).to_socket_addrs().map(|found| {
                let mut addresses: Vec<_> = found.collect();
                // Servers bind IPv4 unless they are told otherwise.
                addresses.sort_by_key(SocketAddr::is_ipv6);
                addresses.into_iter().map(Self::Tcp).collect()
            });
            let _ = sender.send(found);
            let _ = waker.wake();
        };
        // If there is no thread, the receiver tells: its sender is gone.
        let _ = thread::Builder::new().name("zmql-resolve".to_owned()).spawn(look_up);
        Some(Resolving(receiver))
    }
}

/// A look-up of a name that is under way.
pub(super) struct Resolving(Receiver<io::Result<Vec<Address>>>);

impl Resolving {
    /// The addresses, once they are known.
    pub(super) fn poll(&self) -> Option<io::Result<Vec<Address>>> {
        match self.0.try_recv() {
            Ok(found) => Some(found),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err(io::Error::other("no thread to look it up")))
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<UnixAddr> {
    use std::os::linux::net::SocketAddrExt;
    UnixAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &str) -> io::Result<UnixAddr> {
    Err(io::Error::other("abstract paths are for Linux"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_connected_to() {
        for good in ["tcp://localhost:7777", "tcp://127.0.0.1:1", "tcp://[::1]:65535", "ipc://@a"] {
            assert!(Address::parse(&Url::parse(good).unwrap()).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("tcp://localhost", "it must read tcp://HOST:PORT"),
            ("tcp://*:7777", "the host must be a name or an address"),
            ("tcp://:7777", "the host must be a name or an address"),
            ("tcp://a:0", "the port must be a number from 1 to 65535"),
            ("tcp://a:65536", "the port must be a number from 1 to 65535"),
            ("tcp://a:*", "the port must be a number from 1 to 65535"),
        ] {
            let error = Address::parse(&Url::parse(bad).unwrap()).err().map(|e| e.to_string());
            assert_eq!(error, Some(format!("url {bad} cannot be connected to: {why}")));
        }
    }
}

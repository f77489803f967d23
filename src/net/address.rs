//! Where a server is: what the text of a URL names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::net::SocketAddr as UnixAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use mio::Waker;

use crate::config::{Place, Url};
use crate::error::Error;

/// An address to connect to.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(UnixAddr),
}

/// What a client is told to connect to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Addresses, to be tried in turn.
    Known(Vec<Address>),
    /// A host's name and a port: to be looked up.
    Name(String, u16),
}

impl Target {
    /// Reads a URL of the transports `tcp` and `ipc`; a path that starts with `@` is abstract, as
    /// ZeroMQ has it.
    pub(super) fn parse(url: &Url) -> Result<Self, Error> {
        let bad = |reason: &str| Error::Config {
            argument: "url",
            problem: format!("{url} cannot be connected to: {reason}"),
        };
        match url.place() {
            Place::Ipc("*" | "@") => Err(bad("it names no socket")),
            Place::Ipc(path) => {
                let address = match path.strip_prefix('@') {
                    Some(name) => abstract_address(name),
                    None => UnixAddr::from_pathname(path),
                };
                let address = address.map_err(|error| bad(&error.to_string()))?;
                Ok(Self::Known(vec![Address::Unix(address)]))
            }
            Place::Tcp { host, port } => {
                let port = port.filter(|port| *port != 0);
                let port = port.ok_or_else(|| bad("the port must be a number from 1 to 65535"))?;
                Self::of_host(host, port)
                    .ok_or_else(|| bad("the host must be a name or an address"))
            }
            Place::Inproc => Err(bad("it is within a process")),
        }
    }

    fn of_host(host: &str, port: u16) -> Option<Self> {
        let known = |addresses: &[IpAddr]| {
            let tcp = |ip: &IpAddr| Address::Tcp(SocketAddr::new(*ip, port));
            Some(Self::Known(addresses.iter().map(tcp).collect()))
        };
        if let Some(bare) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            return known(&[IpAddr::V6(bare.parse().ok()?)]);
        }
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return known(&[IpAddr::V4(ip)]);
        }
        if host == "localhost" {
            // It means this host (RFC 6761, 6.3). Servers bind IPv4 unless they are told otherwise.
            return known(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let is_name = |c: char| c.is_alphanumeric() || "-._".contains(c);
        (!host.is_empty() && host.chars().all(is_name)).then(|| Self::Name(host.to_owned(), port))
    }

    /// Starts to look a name up; `None` if there is nothing to look up.
    pub(super) fn look_up(&self, waker: &Arc<Waker>) -> Option<LookUp> {
        let Self::Name(host, port) = self else { return None };
        let (host, port, waker) = (host.clone(), *port, Arc::clone(waker));
        let (sender, receiver) = mpsc::channel();
        // The system's look-up may block for seconds and cannot be interrupted. The thread ends
        // with it and holds nothing, so nobody waits for it.
        let look_up = move || {
            let found = (host.as_str(), port).to_socket_addrs().map(|found| {
                let mut addresses: Vec<_> = found.collect();
                addresses.sort_by_key(SocketAddr::is_ipv6);
                addresses.into_iter().map(Address::Tcp).collect()
            });
            let _ = sender.send(found);
            let _ = waker.wake();
        };
        // If there is no thread, the receiver tells: its sender is gone.
        let _ = thread::Builder::new().name("zmql-look-up".to_owned()).spawn(look_up);
        Some(LookUp(receiver))
    }
}

/// A look-up of a name that is under way.
pub(super) struct LookUp(Receiver<io::Result<Vec<Address>>>);

impl LookUp {
    /// The addresses, once they are known.
    pub(super) fn poll(&self) -> Option<io::Result<Vec<Address>>> {
        match self.0.try_recv() {
            Ok(found) => Some(found),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err(io::Error::other("no thread for a look-up")))
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
            assert!(Target::parse(&Url::parse(good).unwrap()).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("tcp://*:7777", "the host must be a name or an address"),
            ("tcp://::1:7777", "the host must be a name or an address"),
            ("tcp://[x]:7777", "the host must be a name or an address"),
            ("tcp://a;b:7777", "the host must be a name or an address"),
            ("tcp://a:0", "the port must be a number from 1 to 65535"),
            ("tcp://a:*", "the port must be a number from 1 to 65535"),
            ("ipc://*", "it names no socket"),
            ("ipc://@", "it names no socket"),
        ] {
            let error = Target::parse(&Url::parse(bad).unwrap()).err().map(|e| e.to_string());
            assert_eq!(error, Some(format!("url {bad} cannot be connected to: {why}")));
        }
    }
}

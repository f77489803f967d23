//! Where those who watch a server find it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::error::Error;

/// An address of this host, or all of them, and a port; without a number, any port that is free.
///
/// ```
/// use zmqlocker::observe::WatchAddress;
///
/// assert!(WatchAddress::parse("127.0.0.1:9464")?.is_local());
/// assert!(!WatchAddress::parse("*:9464")?.is_local());
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchAddress(SocketAddr);

impl WatchAddress {
    /// Reads `HOST:PORT`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that quotes the text and says how it is to read.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = || {
            let quoted: String = text.chars().take(80).collect();
            let problem = format!(
                "must read HOST:PORT, where HOST is an address of this host, localhost or *, and \
                 PORT a number or *, not {quoted:?}"
            );
            Error::Config { argument: "metrics", problem }
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port {
            "*" => 0,
            port if is_number => port.parse().map_err(|_| bad())?,
            _ => return Err(bad()),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let ip = match (host, bare) {
            ("*", _) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ("localhost", _) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            (_, Some(bare)) => IpAddr::V6(bare.parse().map_err(|_| bad())?),
            (host, None) => IpAddr::V4(host.parse().map_err(|_| bad())?),
        };
        Ok(Self(SocketAddr::new(ip, port)))
    }

    /// The address of the socket.
    #[must_use]
    pub const fn socket_address(self) -> SocketAddr {
        self.0
    }

    /// Whether only this host can connect.
    #[must_use]
    pub fn is_local(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

impl fmt::Display for WatchAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_this_host_and_has_a_port() {
        for (text, shown) in [
            ("127.0.0.1:9464", "127.0.0.1:9464"),
            ("localhost:9464", "127.0.0.1:9464"),
            ("*:9464", "0.0.0.0:9464"),
            ("[::1]:*", "[::1]:0"),
            ("10.0.0.7:0", "10.0.0.7:0"),
        ] {
            assert_eq!(WatchAddress::parse(text).unwrap().to_string(), shown);
        }
        for bad in ["", "9464", ":9464", "localhost", "a.b:1", "127.0.0.1:", "127.0.0.1:65536"] {
            assert!(WatchAddress::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["::1:9464", "[127.0.0.1]:1", "127.0.0.1:+1", "http://127.0.0.1:1"] {
            assert!(WatchAddress::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_loopback_is_closed_to_other_hosts() {
        for (text, is_local) in [
            ("127.0.0.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("*:1", false),
            ("[::]:1", false),
            ("10.0.0.7:1", false),
        ] {
            assert_eq!(WatchAddress::parse(text).unwrap().is_local(), is_local, "{text}");
        }
    }
}

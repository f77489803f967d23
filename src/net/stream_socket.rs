//! A stream that does not block: TCP or Unix.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::Registry;
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use socket2::{SockRef, TcpKeepalive};

use crate::net::address::Address;

/// A host that has not acknowledged anything for so long is taken for gone.
const HOST_TIMEOUT: Duration = Duration::from_secs(4);

pub(super) enum StreamSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl StreamSocket {
    /// Starts to connect.
    pub(super) fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(*address)?;
                stream.set_nodelay(true)?;
                notice_dead_hosts(&stream)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(address) => UnixStream::connect_addr(address).map(Self::Unix),
        }
    }

    /// Whether the connection is made.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        if self.is_connected_to_itself() {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let (error, peer) = match self {
            Self::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Self::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
        };
        match (error, peer) {
            (Some(error), _) => Err(error),
            (None, Err(error)) if error.kind() == ErrorKind::NotConnected => Ok(false),
            (None, peer) => peer.map(|()| true),
        }
    }

    /// Where nobody serves a port of this host, the system may choose that very port for our own
    /// end, and TCP connects the socket to itself.
    fn is_connected_to_itself(&self) -> bool {
        let Self::Tcp(stream) = self else { return false };
        matches!((stream.local_addr(), stream.peer_addr()), (Ok(own), Ok(peer)) if own == peer)
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    /// Ends the connection, also where a forked child still holds a copy of the descriptor.
    pub(super) fn close(mut self, registry: &Registry) {
        // All of these fail only where the connection is gone already.
        let _ = registry.deregister(self.source());
        let to_itself = self.is_connected_to_itself();
        let _ = match &self {
            // No farewell: what is left of the connection would keep a server from its port.
            Self::Tcp(stream) if to_itself => {
                SockRef::from(stream).set_linger(Some(Duration::ZERO))
            }
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for StreamSocket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for StreamSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets the kernel end the connection when the other host is gone, whether bytes are under way or
/// none are.
fn notice_dead_hosts(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(HOST_TIMEOUT))?;
    Ok(())
}

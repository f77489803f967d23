//! What the operating system knows of a connection that libzmq holds, by its descriptor.
//!
//! libzmq has no word for ending one connection of many, or for how much of it waits. Nothing here
//! touches memory that is not its own; a descriptor that is closed, or no socket, is an error. One
//! that was closed and opened anew is another connection: compare [`cookie`] before.

use std::mem::{size_of, size_of_val};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

/// How much has gone over a TCP connection, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What came in, as far as it was acknowledged.
    pub received: u64,
    /// What of that was not read yet by this process.
    pub unread: u64,
    /// What the peer has acknowledged.
    pub acked: u64,
    /// What this process has written and the peer has not acknowledged yet.
    pub unacked: u64,
}

/// Where `tcpi_bytes_acked` and then `tcpi_bytes_received` lie in Linux's `struct tcp_info`.
const ACKED_AT: usize = 120;
const RECEIVED_AT: usize = 128;

/// A number that no other socket of this boot has or had. `None` if there is no such socket.
#[must_use]
pub fn cookie(fd: RawFd) -> Option<u64> {
    let mut cookie = [0; size_of::<u64>()];
    (read_option(fd, libc::SOL_SOCKET, libc::SO_COOKIE, &mut cookie)? == cookie.len())
        .then(|| u64::from_ne_bytes(cookie))
}

/// How much has gone over a connection. `None` if it is none of TCP.
#[must_use]
pub fn traffic(fd: RawFd) -> Option<Traffic> {
    let mut info = [0; RECEIVED_AT + size_of::<u64>()];
    if read_option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)? < info.len() {
        return None;
    }
    let number = |at: usize| {
        let mut bytes = [0; size_of::<u64>()];
        bytes.copy_from_slice(&info[at..at + size_of::<u64>()]);
        u64::from_ne_bytes(bytes)
    };
    Some(Traffic {
        received: number(RECEIVED_AT),
        unread: queue(fd, libc::FIONREAD)?,
        acked: number(ACKED_AT),
        unacked: queue(fd, libc::TIOCOUTQ)?,
    })
}

/// The address at the other end of a connection. `None` if it is not over IP.
#[must_use]
pub fn peer_address(fd: RawFd) -> Option<SocketAddr> {
    let mut address = [0_u8; size_of::<libc::sockaddr_storage>()];
    let mut length = libc::socklen_t::try_from(size_of_val(&address)).ok()?;
    // SAFETY: the pointers are of `address`, which is as long as `length` says, and of `length`.
    let done = unsafe { libc::getpeername(fd, address.as_mut_ptr().cast(), &mut length) };
    if done != 0 {
        return None;
    }
    let port = u16::from_be_bytes([address[2], address[3]]);
    let ip = match i32::from(u16::from_ne_bytes([address[0], address[1]])) {
        libc::AF_INET => {
            let octets: [u8; 4] = address[4..8].try_into().ok()?;
            IpAddr::from(Ipv4Addr::from(octets))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = address[8..24].try_into().ok()?;
            IpAddr::from(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Ends a connection for both sides. libzmq sees it end, and closes the descriptor.
pub fn shut_down(fd: RawFd) {
    // SAFETY: it takes numbers alone. The only way to fail is that there is no such connection.
    let _ = unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// The length of what was read into `value`.
fn read_option(fd: RawFd, level: i32, name: i32, value: &mut [u8]) -> Option<usize> {
    let mut length = libc::socklen_t::try_from(value.len()).ok()?;
    // SAFETY: the pointers are of `value`, which is as long as `length` says, and of `length`.
    let done = unsafe {
        libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &mut length)
    };
    (done == 0).then_some(length as usize)
}

fn queue(fd: RawFd, which: libc::c_ulong) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests write one `int`.
    let done = unsafe { libc::ioctl(fd, which, &mut bytes) };
    if done == 0 { u64::try_from(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_connection_tells_what_went_over_it_and_can_be_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut two, from) = listener.accept().unwrap();
        let (here, there) = (one.as_raw_fd(), two.as_raw_fd());
        assert_eq!(peer_address(there), Some(from));
        assert_ne!(cookie(here).unwrap(), cookie(there).unwrap());
        two.write_all(&[7; 1000]).unwrap();
        let mut some = [0; 600];
        one.read_exact(&mut some).unwrap();
        let Traffic { received, unread, .. } = traffic(here).unwrap();
        assert_eq!((received, unread), (1000, 400));
        let Traffic { acked, unacked, .. } = traffic(there).unwrap();
        // The handshake may count as a byte.
        assert!((1000..=1001).contains(&(acked + unacked)), "{acked} {unacked}");
        shut_down(there);
        assert_eq!(one.read_to_end(&mut Vec::new()).unwrap(), 400);
        assert_eq!(two.read(&mut some).unwrap(), 0);
    }

    #[test]
    fn what_is_no_connection_tells_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(peer_address(listener.as_raw_fd()), None);
        for none in [-1, i32::MAX] {
            assert_eq!((cookie(none), traffic(none), peer_address(none)), (None, None, None));
            shut_down(none);
        }
    }
}

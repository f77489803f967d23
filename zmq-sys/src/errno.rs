//! Error numbers: the operating system's, and those that libzmq adds where a system has none.

macro_rules! from_system {
    ($($name:ident)*) => { $(pub const $name: i32 = libc::$name;)* };
}

macro_rules! from_libzmq {
    ($($name:ident = $offset:literal)*) => { $(pub const $name: i32 = BASE + $offset;)* };
}

/// `ZMQ_HAUSNUMERO`: libzmq counts its own numbers from here.
const BASE: i32 = crate::ZMQ_HAUSNUMERO as i32;

from_system! {
    EACCES EADDRINUSE EADDRNOTAVAIL EAGAIN EBUSY ECONNREFUSED EFAULT EHOSTUNREACH EINPROGRESS EINTR
    EINVAL EMFILE EMSGSIZE ENAMETOOLONG ENETDOWN ENOBUFS ENODEV ENOENT ENOMEM ENOTCONN ENOTSOCK
    ENOTSUP EPROTO EPROTONOSUPPORT
}

from_libzmq! {
    EFSM = 51 ENOCOMPATPROTO = 52 ETERM = 53 EMTHREAD = 54
}

from_libzmq! {
    ENOTSUP_ALT = 1 EPROTONOSUPPORT_ALT = 2 ENOBUFS_ALT = 3 ENETDOWN_ALT = 4 EADDRINUSE_ALT = 5
    EADDRNOTAVAIL_ALT = 6 ECONNREFUSED_ALT = 7 EINPROGRESS_ALT = 8 ENOTSOCK_ALT = 9
    EMSGSIZE_ALT = 10 EAFNOSUPPORT_ALT = 11 ENETUNREACH_ALT = 12 ECONNABORTED_ALT = 13
    ECONNRESET_ALT = 14 ENOTCONN_ALT = 15 ETIMEDOUT_ALT = 16 EHOSTUNREACH_ALT = 17
    ENETRESET_ALT = 18
}

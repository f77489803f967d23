//! What systemd is told of a server: sd_notify(3), without its library.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::net::monotonic_micros;

/// How much longer than it should take a stop is allowed to take.
const GRACE: Duration = Duration::from_secs(5);

/// Tells whoever started this process how it is, if that is wanted.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often a sign of life is wanted, at the least.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment of this process says.
    pub(super) fn from_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|name| address(&name).ok());
        let open = |address| Some((UnixDatagram::unbound().ok()?, address));
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_for_us);
        Self { socket: address.and_then(open), watchdog: watchdog.map(Duration::from_micros) }
    }

    /// How often a sign of life is to be given.
    pub(super) fn watchdog_interval(&self) -> Option<Duration> {
        // Half of what is asked for, as sd_watchdog_enabled(3) recommends.
        self.socket.as_ref().and(self.watchdog).map(|length| length / 2)
    }

    /// The server can be asked.
    pub(super) fn ready(&self, url: &str) {
        self.tell(&format!("READY=1\nSTATUS=serving {url}"));
    }

    /// It reads its settings anew, until it is ready again.
    pub(super) fn reloading(&self) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_micros()));
    }

    /// It stops, which may take so long.
    pub(super) fn stopping(&self, length: Duration) {
        let micros = (length + GRACE).as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}"));
    }

    /// It lives.
    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            // Whoever wanted to know is gone, or will see for itself.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

/// A path, or with an `@` before it a name that is in no folder.
fn address(name: &OsString) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt;

            SocketAddr::from_abstract_name(name)
        }
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

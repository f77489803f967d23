//! What a server writes into the log, and how often: nobody can flood it.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::access;
use crate::cluster::Partition;
use crate::config::{Security, ServerConfig, Url};
use crate::engine::{FixedWindow, Rate, Rules, Tally};
use crate::error::Error;
use crate::net::desk::client_info;
use crate::net::ledger::Found;
use crate::net::refusals::Refusals;
use crate::net::server::ServerStats;
use crate::net::sight::Reporter;
use crate::time::Timestamp;
use crate::wire::request::Hello;

/// The name under which everything is logged.
pub(super) const LOG: &str = "zmqlocker";

/// How many clients are remembered as greeted. One that was forgotten is greeted again.
const CLIENTS_MAX: usize = 65_536;

/// The log lines of one server.
pub(super) struct Journal {
    endpoint: String,
    /// How many partitions it was home of last, and of how many servers.
    share: (usize, usize),
    greeted: Clients,
    greetings: Throttle,
    complaints: Throttle,
    shadows: Throttle,
    /// Who was turned away.
    pub(super) refusals: Refusals,
    /// Where those who watch hear of it.
    pub(super) reporter: Reporter,
}

impl Journal {
    pub(super) fn new(now: Timestamp, endpoint: &str) -> Result<Self, Error> {
        let lines = Throttle::lines()?;
        Ok(Self {
            endpoint: endpoint.to_owned(),
            share: (0, 0),
            greeted: Clients::default(),
            greetings: Throttle::new(now, lines),
            complaints: Throttle::new(now, lines),
            shadows: Throttle::new(now, lines),
            refusals: Refusals::new(now)?,
            reporter: Reporter::default(),
        })
    }

    /// The server serves.
    pub(super) fn start(&self, config: &ServerConfig) -> Result<(), Error> {
        let endpoint = &Url::parse(&self.endpoint)?;
        let patience = config.patience.as_secs_f64();
        let rules = Listed(&config.rules);
        let security = Secured(config.security.as_ref(), endpoint);
        let data_dir = config.data_dir.as_ref().map(|folder| folder.display().to_string());
        let folder = Folder(data_dir.as_deref());
        log::info!(
            target: LOG, event = "start", url = endpoint.as_str(), security:% = security,
            data_dir = data_dir.as_deref(), patience = patience, limits:% = rules;
            "serving {rules} at {endpoint}, patience {patience} s, {security}, {folder}"
        );
        if endpoint.is_open_to_other_hosts() && config.security.is_none() {
            log::warn!(
                target: LOG, event = "open", url = endpoint.as_str();
                "{endpoint} is open to other hosts, without encryption and authentication: use \
                 tcp://127.0.0.1:PORT, an ipc:// path or a firewall where that is not wanted"
            );
        }
        Ok(())
    }

    /// Whoever watches is told what happens from now on.
    pub(super) fn report_to(&mut self, reporter: &Reporter) {
        (self.reporter, self.refusals.reporter) = (reporter.clone(), reporter.clone());
    }

    /// What an earlier run has left.
    pub(super) fn found(&self, now: Timestamp, found: Found) {
        let Found { kept, unserved, leases, is_unsure } = found;
        let endpoint = &self.endpoint;
        log::info!(
            target: LOG, event = "found", keys = kept, leases = leases;
            "{endpoint} goes on with {kept} keys and {leases} leases"
        );
        if is_unsure {
            let text = || "nobody gets a lock for a second: the run before has crashed".to_owned();
            self.reporter.tell(now, "grace", text);
            log::warn!(
                target: LOG, event = "unsure";
                "the run before has ended without a word: its holders may reclaim their locks, and \
                 nobody else gets one for a second"
            );
        }
        if unserved > 0 {
            log::warn!(
                target: LOG, event = "unserved", keys = unserved;
                "the usage of {unserved} keys is dropped: they have no limits any more"
            );
        }
    }

    /// How many partitions of the keys this server is home of, of so many servers.
    pub(super) fn note_share(&mut self, now: Timestamp, ours: usize, servers: usize) {
        if self.share == (ours, servers) {
            return;
        }
        self.share = (ours, servers);
        let (endpoint, all) = (&self.endpoint, Partition::COUNT);
        let text = || format!("home of {ours} of {all} partitions, with {servers} servers in all");
        self.reporter.tell(now, "homes", text);
        log::info!(
            target: LOG, event = "homes", partitions = ours, servers = servers;
            "{endpoint} is home of {ours} of {all} partitions, with {servers} servers in all"
        );
    }

    /// So many partitions have come from a home that could not say what is used and held.
    pub(super) fn note_taken(&self, now: Timestamp, count: usize) {
        if count > 0 {
            let endpoint = &self.endpoint;
            let text = || format!("{count} partitions were taken over from a server that is gone");
            self.reporter.tell(now, "homes", text);
            log::warn!(
                target: LOG, event = "taken", partitions = count;
                "{endpoint} takes {count} partitions over from a server that is gone: their limits \
                 count as used up, and what is held there may only be reclaimed for a while"
            );
        }
    }

    /// Whether a client with this routing id was not heard of before.
    pub(super) fn is_new(&mut self, routing_id: &[u8]) -> bool {
        self.greeted.insert(routing_id)
    }

    pub(super) fn first_request(
        &mut self,
        now: Timestamp,
        routing_id: &[u8],
        address: Option<&str>,
    ) {
        if let Some(left_out) = self.greetings.pass(now) {
            let client = Client(routing_id, address);
            log::info!(
                target: LOG, event = "client", address = address, left_out = left_out;
                "first request of {client}{}", LeftOut(left_out)
            );
        }
    }

    pub(super) fn bad_message(
        &mut self,
        now: Timestamp,
        routing_id: &[u8],
        address: Option<&str>,
        bad: &dyn std::fmt::Display,
    ) {
        if let Some(left_out) = self.complaints.pass(now) {
            let client = Client(routing_id, address);
            self.reporter.tell(now, "bad", || format!("bad message from {client}: {bad}"));
            log::warn!(
                target: LOG, event = "bad_message", address = address, reason:% = bad,
                left_out = left_out;
                "bad message from {client}: {bad}{}", LeftOut(left_out)
            );
        }
    }

    pub(super) fn hello(&mut self, now: Timestamp, hello: &Hello<'_>, address: Option<&str>) {
        if let Some(left_out) = self.greetings.pass(now) {
            let Hello { name, host, pid, .. } = hello;
            let place = address.unwrap_or("without an address");
            self.reporter
                .tell(now, "client", || format!("{} came from {place}", client_info(hello)));
            log::info!(
                target: LOG, event = "client", client = name, host = host, pid = pid,
                address = address, left_out = left_out;
                "client {name:?} (pid {pid} on {host:?}, {place}){}", LeftOut(left_out)
            );
        }
    }

    pub(super) fn would_refuse(&mut self, now: Timestamp, key: &str, limit: &str) {
        if let Some(left_out) = self.shadows.pass(now) {
            log::info!(
                target: LOG, event = "would_refuse", key = key, limit = limit,
                left_out = left_out;
                "key {key:?}: {limit:?} would have refused{}", LeftOut(left_out)
            );
        }
    }

    pub(super) fn reload(&self, now: Timestamp, rules: &Rules, clients: Option<&access::Clients>) {
        let (rules, endpoint) = (Listed(rules), &self.endpoint);
        self.reporter.tell(now, "limits", || format!("serving {rules} from now on"));
        log::info!(
            target: LOG, event = "reload", url = endpoint.as_str(), limits:% = rules;
            "serving {rules} from now on at {endpoint}"
        );
        if let Some(clients) = clients.map(LetIn) {
            log::info!(
                target: LOG, event = "clients", url = endpoint.as_str(), clients:% = clients;
                "{endpoint} lets in {clients} from now on"
            );
        }
    }

    pub(super) fn drain(&self, length: Duration, tally: &Tally) {
        let (endpoint, seconds) = (&self.endpoint, length.as_secs_f64());
        let Tally { waiting, leases, .. } = tally;
        log::info!(
            target: LOG, event = "drain", url = endpoint.as_str(), seconds = seconds,
            waiting = waiting, leases = leases;
            "{endpoint} stops within {seconds} s: {waiting} wait, {leases} leases are held"
        );
    }

    pub(super) fn stop(&self, stats: ServerStats) {
        let endpoint = &self.endpoint;
        let ServerStats { go, sorry, bad_messages, .. } = stats;
        log::info!(
            target: LOG, event = "stop", url = endpoint.as_str(), go = go, sorry = sorry,
            bad_messages = bad_messages;
            "stopped serving at {endpoint}: {go} go, {sorry} sorry, {bad_messages} bad messages"
        );
    }

    pub(super) fn failure(&self, error: &Error) {
        let endpoint = &self.endpoint;
        log::error!(
            target: LOG, event = "failure", url = endpoint.as_str(), reason:% = error;
            "stopped serving at {endpoint}: {error}"
        );
    }
}

/// Who can reach a server and read along, in a few words.
struct Secured<'a>(Option<&'a Security>, &'a Url);

impl std::fmt::Display for Secured<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self(Some(Security { keys, clients }), _) => {
                let (key, clients) = (keys.public(), LetIn(clients));
                write!(formatter, "encrypted for {clients} with the key {key}")
            }
            Self(None, endpoint) if endpoint.is_open_to_other_hosts() => {
                formatter.write_str("not encrypted")
            }
            Self(None, _) => formatter.write_str("this host only"),
        }
    }
}

/// Who is let in, in a few words.
struct LetIn<'a>(&'a access::Clients);

impl std::fmt::Display for LetIn<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.count() {
            None => formatter.write_str("anybody"),
            Some(1) => formatter.write_str("1 client"),
            Some(count) => write!(formatter, "{count} clients"),
        }
    }
}

/// Where a server keeps what outlives it.
struct Folder<'a>(Option<&'a str>);

impl std::fmt::Display for Folder<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(folder) => write!(formatter, "data in {folder}"),
            None => formatter.write_str("no data folder"),
        }
    }
}

/// Rules, as a reader of the log finds them: the first few.
struct Listed<'a>(&'a Rules);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 5;
        let only = self.0.iter().count() == 1;
        for (place, (key, limits)) in self.0.iter().enumerate().take(SHOWN) {
            let texts: Vec<&str> = (0..limits.count()).map(|place| &**limits.text(place)).collect();
            let comma = if place > 0 { "; " } else { "" };
            let name = if only && key == "other keys" { "" } else { key };
            let space = if name.is_empty() { "" } else { " " };
            write!(formatter, "{comma}{name}{space}{}", texts.join(", "))?;
        }
        match self.0.iter().count() {
            0 => formatter.write_str("no key"),
            count if count > SHOWN => write!(formatter, " and {} more rules", count - SHOWN),
            _ => Ok(()),
        }
    }
}

/// A client, as a reader of the log may find it.
struct Client<'a>(&'a [u8], Option<&'a str>);

impl std::fmt::Display for Client<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(routing_id, address) = self;
        write!(formatter, "client {} (", address.unwrap_or("without an address"))?;
        routing_id.iter().take(16).try_for_each(|byte| write!(formatter, "{byte:02x}"))?;
        formatter.write_str(")")
    }
}

/// How many lines of a kind were not written.
pub(super) struct LeftOut(pub(super) u64);

impl std::fmt::Display for LeftOut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(formatter, " (and {count} more of the kind before)"),
        }
    }
}

/// The clients that were heard of last.
#[derive(Default)]
struct Clients {
    known: HashSet<Vec<u8>>,
    in_order: VecDeque<Vec<u8>>,
}

impl Clients {
    /// Whether the client was not known.
    fn insert(&mut self, routing_id: &[u8]) -> bool {
        if self.known.contains(routing_id) {
            return false;
        }
        if self.in_order.len() >= CLIENTS_MAX {
            self.in_order.pop_front().map(|oldest| self.known.remove(&oldest));
        }
        self.known.insert(routing_id.to_vec());
        self.in_order.push_back(routing_id.to_vec());
        true
    }
}

/// Lets a few lines a second through and counts the rest.
pub(super) struct Throttle {
    window: FixedWindow,
    left_out: u64,
}

impl Throttle {
    /// How many lines of a kind are written.
    pub(super) fn lines() -> Result<Rate, Error> {
        Rate::new(10, 1.0)
    }

    pub(super) fn new(now: Timestamp, lines: Rate) -> Self {
        Self { window: FixedWindow::new(now, lines), left_out: 0 }
    }

    /// How many lines were left out since the last one that was written, if one may be written now.
    pub(super) fn pass(&mut self, now: Timestamp) -> Option<u64> {
        if self.window.try_acquire(now) {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_ten_a_second_are_counted() {
        let mut throttle = Throttle::new(Timestamp::ZERO, Throttle::lines().unwrap());
        let written = (0..25).filter_map(|_| throttle.pass(Timestamp::ZERO)).count();
        assert_eq!(written, 10);
        assert_eq!(throttle.pass(Timestamp::ZERO + Duration::from_millis(1001)), Some(15));
    }

    #[test]
    fn a_client_is_new_once_until_it_is_forgotten() {
        let mut clients = Clients::default();
        assert!(clients.insert(b"a"));
        assert!(!clients.insert(b"a"));
        for number in 0..CLIENTS_MAX {
            clients.insert(&number.to_be_bytes());
        }
        assert_eq!(clients.known.len(), CLIENTS_MAX);
        assert!(clients.insert(b"a"));
    }
}

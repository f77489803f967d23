//! The metrics of a server, as Prometheus scrapes them. `docs/metrics.md` says what they mean.

use std::time::Duration;

use crate::engine::{Bounds, Ending};
use crate::observe::Observation;
use crate::observe::exposition::{Exposition, Kind};

/// What is known of the process of a server; what is not known is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// How much memory it has that is not swapped out.
    pub resident_bytes: Option<u64>,
    /// How long it has used processors.
    pub cpu: Option<Duration>,
    /// How many descriptors it has open.
    pub open_fds: Option<u64>,
    /// When it started, in time since 1970.
    pub started: Option<Duration>,
}

/// What those who watch a server count of themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Connections that were closed without an answer.
    pub dropped: u64,
    /// Connections that are open.
    pub open: u64,
    /// How old what is shown is.
    pub age: Duration,
    /// Whether the server grants whatever it may.
    pub is_ready: bool,
}

/// The text that is scraped.
#[must_use]
pub fn scrape(seen: &Observation, process: &Process, watch: &Watch) -> String {
    let mut text = Exposition::default();
    server(&mut text, seen, watch);
    requests(&mut text, seen);
    present(&mut text, seen);
    if let Some(sharing) = &seen.sharing {
        sharing.scrape(&mut text);
    }
    if let Some(counting) = &seen.counting {
        counting.scrape(&mut text);
    }
    thread(&mut text, seen);
    watchers(&mut text, watch);
    process_of(&mut text, process);
    text.finish()
}

fn server(text: &mut Exposition, seen: &Observation, watch: &Watch) {
    let facts = &seen.status.facts;
    text.family(Kind::Gauge, "zmqlocker_build_info", "The version that runs; always 1.");
    text.sample(&[("version", &facts.version), ("security", &facts.security)], 1);
    let uptime = facts.uptime.as_secs_f64();
    text.single(Kind::Gauge, "zmqlocker_uptime_seconds", "For how long the server runs.", uptime);
    let ready = u8::from(watch.is_ready);
    let help = "Whether the server grants whatever it may: 1 or 0.";
    text.single(Kind::Gauge, "zmqlocker_ready", help, ready);
    let help = "For how long no lock is granted yet, after a crash.";
    text.single(Kind::Gauge, "zmqlocker_grace_seconds", help, seen.status.grace.as_secs_f64());
}

fn requests(text: &mut Exposition, seen: &Observation) {
    let tally = &seen.status.tally;
    let help = "How requests for keys ended, by the rule that the key has.";
    text.family(Kind::Counter, "zmqlocker_decisions_total", help);
    for pattern in seen.measures.patterns() {
        let is_rule = !pattern.pattern.starts_with('(');
        if !is_rule && pattern.counts.iter().all(|count| *count == 0) {
            continue;
        }
        for ((_, result), count) in Ending::ALL.iter().zip(pattern.counts) {
            let labels = [
                ("kind", kind(pattern.is_lock)),
                ("pattern", &pattern.pattern),
                ("result", result),
            ];
            text.sample(&labels, count);
        }
    }
    let help = "How long requests waited that were allowed in the end.";
    text.family(Kind::Histogram, "zmqlocker_wait_seconds", help);
    for (place, histogram) in seen.measures.waits().iter().enumerate() {
        text.histogram(&[("kind", kind(place == 1))], histogram, 1e9);
    }
    let help = "How long leases were held that are over.";
    text.family(Kind::Histogram, "zmqlocker_hold_seconds", help);
    for (place, histogram) in seen.measures.holds().iter().enumerate() {
        text.histogram(&[("kind", kind(place == 1))], histogram, 1e9);
    }
    let help = "Requests that could not be answered.";
    text.single(Kind::Counter, "zmqlocker_problems_total", help, tally.problems);
    let help = "How often a bound of the server refused a request or a client.";
    text.single(Kind::Counter, "zmqlocker_bounds_hit_total", help, tally.bounds_hit);
    let help = "Messages that were no requests.";
    let bad = seen.status.facts.bad_messages;
    text.single(Kind::Counter, "zmqlocker_bad_messages_total", help, bad);
    let help = "Connections and requests that were refused for their keys and rights.";
    text.single(Kind::Counter, "zmqlocker_denied_total", help, seen.door.denied);
    let help = "Connections that were ended because a bound was reached.";
    text.single(Kind::Counter, "zmqlocker_connections_ended_total", help, seen.door.ended);
}

fn present(text: &mut Exposition, seen: &Observation) {
    let tally = &seen.status.tally;
    for (name, help, value) in [
        ("zmqlocker_waiters", "Requests that wait.", tally.waiting),
        ("zmqlocker_keys", "Keys that are in use.", tally.keys),
        ("zmqlocker_leases", "Leases, reservations and blocks.", tally.leases),
        ("zmqlocker_sessions", "Clients that are known.", tally.sessions),
    ] {
        text.single(Kind::Gauge, name, help, value);
    }
    let help = "Connections to the server.";
    text.single(Kind::Gauge, "zmqlocker_connections", help, seen.door.connections);
    let help = "How many of what there may be, by the name of the bound.";
    text.family(Kind::Gauge, "zmqlocker_bound", help);
    for name in Bounds::NAMES {
        text.sample(&[("bound", name)], seen.bounds.named(name).unwrap_or_default());
    }
}

fn thread(text: &mut Exposition, seen: &Observation) {
    let help = "How long the server's thread was busy before it waited again.";
    text.family(Kind::Histogram, "zmqlocker_loop_seconds", help);
    text.histogram(&[], &seen.thread.loops, 1e9);
    let help = "How many messages the server's thread took from the socket together.";
    text.family(Kind::Histogram, "zmqlocker_batch_messages", help);
    text.histogram(&[], &seen.thread.batches, 1.0);
}

fn watchers(text: &mut Exposition, watch: &Watch) {
    let help = "Requests to this port, by what became of them.";
    text.family(Kind::Counter, "zmqlocker_http_requests_total", help);
    text.sample(&[("result", "answered")], watch.answered);
    text.sample(&[("result", "refused")], watch.refused);
    text.sample(&[("result", "dropped")], watch.dropped);
    let help = "Connections to this port.";
    text.single(Kind::Gauge, "zmqlocker_http_connections", help, watch.open);
    let help = "How old these numbers are: the server's thread was busy for so long.";
    let age = watch.age.as_secs_f64();
    text.single(Kind::Gauge, "zmqlocker_observation_age_seconds", help, age);
}

fn process_of(text: &mut Exposition, process: &Process) {
    if let Some(bytes) = process.resident_bytes {
        let help = "Resident memory of the process.";
        text.single(Kind::Gauge, "process_resident_memory_bytes", help, bytes);
    }
    if let Some(cpu) = process.cpu {
        let help = "Time that the process has spent on processors.";
        text.single(Kind::Counter, "process_cpu_seconds_total", help, cpu.as_secs_f64());
    }
    if let Some(count) = process.open_fds {
        let help = "Descriptors that the process has open.";
        text.single(Kind::Gauge, "process_open_fds", help, count);
    }
    if let Some(started) = process.started {
        let help = "When the process started, in seconds since 1970.";
        let started = started.as_secs_f64();
        text.single(Kind::Gauge, "process_start_time_seconds", help, started);
    }
}

const fn kind(is_lock: bool) -> &'static str {
    if is_lock { "lock" } else { "limit" }
}

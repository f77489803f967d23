//! A thread that looks after the connections of a server: how many there are, and how much memory
//! each of them takes.
//!
//! The library has bounds for messages, and none for bytes: a message whose frames never end,
//! answers that nobody reads and messages that come faster than they are served are kept as they
//! come. It cannot end one connection of many either, so the warden asks the system to.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::time::ClockId;

use crate::engine::{Bounds, Code, Problem};
use crate::error::Error;
use crate::net::clock::{self, BootClock};
use crate::net::journal::LOG;
use crate::net::line::{Line, Lines};
use crate::net::load::{Counts, Load, too_large};
use crate::net::refusals::{Refusals, Who};
use crate::net::server::Control;
use crate::net::socket::{Event, Events};
use crate::time::{Clock, Timestamp};

/// How often memory and work of the process are looked at while there are connections.
const INTERVAL: Duration = Duration::from_millis(50);

/// How long the thread sleeps at most while there are none.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// How often those are looked for of whose end the library has told nothing.
const GONE_INTERVAL: Duration = Duration::from_secs(5);

/// The connections are looked at when the memory has grown by so many pages, as a rule of 4 KiB.
const PAGES: u64 = 4096;

/// They are as well when the process has worked for so long, and for so many times what a look
/// takes: what was freed before takes more up without that the memory grows.
const WORK: Duration = Duration::from_millis(30);
const WORK_TIMES: u32 = 20;

/// Two looks that are further apart do not say what is held now: a third does.
const LOOK_EXPIRES: Duration = Duration::from_millis(200);

/// After so many connections of a look, threads that are about to serve go first.
const LINES_AT_ONCE: usize = 128;

/// A connection on which nothing was said for so long makes room for another one.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// So many connections on which nothing was said are remembered for nothing.
const SILENT_KEPT: usize = 1024;

/// How often room is made where files have run out.
const FILES_INTERVAL: Duration = Duration::from_millis(100);

/// Files that are left for all but connections.
const FILES_KEPT: usize = 128;

/// The thread, from outside.
#[derive(Debug)]
pub(super) struct Warden {
    thread: JoinHandle<()>,
}

/// What the thread and that of the server share.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) lines: Lines,
    /// How often the server has found that nothing was left to take in.
    pub(super) drained: AtomicU64,
    /// Whether there will be no more connections.
    pub(super) is_over: AtomicBool,
}

impl Warden {
    /// Looks after the connections of which `events` tells.
    pub(super) fn start(
        events: Events,
        bounds: &Bounds,
        control: &Arc<Control>,
    ) -> Result<Self, Error> {
        let watch = Watch {
            events,
            control: Arc::clone(control),
            most: most_connections(bounds),
            bytes_of_one: bounds.connection_bytes_max as u64,
            bytes_of_all: bounds.connections_bytes_max as u64,
            silent: VecDeque::new(),
            loads: HashMap::new(),
            drained: 0,
            pages: resident_pages(),
            work_due: Duration::ZERO,
            looked_at: Timestamp::ZERO,
            looks_again: false,
            files_at: Timestamp::ZERO,
            refusals: Refusals::new(BootClock.now())?,
        };
        let thread = thread::Builder::new()
            .name("zmql-warden".to_owned())
            .spawn(move || watch.run())
            .map_err(|error| Error::system("start a thread", &error))?;
        Ok(Self { thread })
    }

    /// Waits for the end of the thread, once the socket is closed.
    pub(super) fn join(self) {
        if self.thread.join().is_err() {
            log::error!(target: LOG, "the thread that sees to connections broke: please report it");
        }
    }
}

/// What the thread owns.
struct Watch {
    events: Events,
    control: Arc<Control>,
    /// How many connections there may be.
    most: usize,
    bytes_of_one: u64,
    bytes_of_all: u64,
    /// Connections on which nothing was said yet when they were looked at last, oldest first.
    silent: VecDeque<Arc<Line>>,
    /// By cookie of the connection.
    loads: HashMap<u64, Load>,
    drained: u64,
    /// The resident memory of the process, at the last look at the connections.
    pages: u64,
    /// After how much work of the process, since it was made, the next look is due.
    work_due: Duration,
    looked_at: Timestamp,
    looks_again: bool,
    /// When room may be made again where files have run out.
    files_at: Timestamp,
    refusals: Refusals,
}

impl Watch {
    fn run(mut self) {
        let mut look_at = BootClock.now() + INTERVAL;
        let mut forget_at = BootClock.now() + GONE_INTERVAL;
        loop {
            let interval = if self.lines().len() > 0 { INTERVAL } else { IDLE_INTERVAL };
            match self.events.next(interval) {
                Some(Event::Accepted(fd)) => self.accept(fd),
                Some(Event::AcceptFailed) => self.make_room_for_files(),
                Some(Event::Disconnected(fd)) => self.lines().close(fd),
                Some(Event::Stopped) => return,
                None if self.control.traffic.is_over.load(Ordering::Acquire) => return,
                None => {}
            }
            let now = BootClock.now();
            if look_at <= now {
                self.check_memory(now);
                look_at = now + INTERVAL;
            }
            if forget_at <= now {
                self.lines().forget_gone();
                forget_at = now + GONE_INTERVAL;
            }
        }
    }

    fn lines(&self) -> &Lines {
        &self.control.traffic.lines
    }

    fn accept(&mut self, fd: RawFd) {
        let now = BootClock.now();
        let Some(line) = self.lines().open(now, fd) else { return };
        if self.silent.len() > 2 * self.lines().len() + SILENT_KEPT {
            self.forget_speakers();
        }
        self.silent.push_back(Arc::clone(&line));
        if self.lines().len() > self.most {
            let last = self.oldest_silent(now).unwrap_or(line);
            let most = self.most;
            let why = format!("there are {most}, as many as may be (`connections_max`)");
            self.end(now, &last, &why);
        }
    }

    /// The process may open no more files: whoever comes next waits for one of these to go.
    fn make_room_for_files(&mut self) {
        let now = BootClock.now();
        // The library tries without a pause.
        if now < self.files_at {
            return;
        }
        self.files_at = now + FILES_INTERVAL;
        self.most = self.most.min(self.lines().len().max(1));
        let silent = self.oldest_silent(now);
        // With one file to spare, whoever comes next can be turned away.
        let newest = || self.lines().all().into_iter().max_by_key(|line| line.since);
        let last = silent.or_else(newest);
        if let Some(line) = last {
            let why = "the process has no files left (`connections_max`): raise `ulimit -n`";
            self.end(now, &line, why);
        }
    }

    /// The oldest connection on which nothing was ever said, if it had the time to.
    fn oldest_silent(&mut self, now: Timestamp) -> Option<Arc<Line>> {
        while let Some(line) = self.silent.front() {
            if line.is_open() && line.messages.load(Ordering::Relaxed) == 0 {
                let is_late = now.since(line.since) >= SILENCE_MAX;
                return if is_late { self.silent.pop_front() } else { None };
            }
            self.silent.pop_front();
        }
        None
    }

    /// Forgets, among those on which nothing was said, those that have gone or spoken since.
    fn forget_speakers(&mut self) {
        self.silent.retain(|line| line.is_open() && line.messages.load(Ordering::Relaxed) == 0);
    }

    /// Looks at the connections if they may hold more than at the last look, or if that was not
    /// enough.
    fn check_memory(&mut self, now: Timestamp) {
        let pages = resident_pages();
        self.pages = self.pages.min(pages);
        let is_due = self.work_due <= clock::length(ClockId::ProcessCPUTime);
        if self.looks_again || is_due || pages >= self.pages + PAGES {
            self.pages = pages;
            let begin = clock::length(ClockId::ThreadCPUTime);
            self.look(now);
            let took = clock::length(ClockId::ThreadCPUTime).saturating_sub(begin);
            let pause = WORK.max(took * WORK_TIMES);
            self.work_due = clock::length(ClockId::ProcessCPUTime) + pause;
        }
    }

    fn look(&mut self, now: Timestamp) {
        let drained = self.control.traffic.drained.load(Ordering::Acquire);
        let was_drained = std::mem::replace(&mut self.drained, drained) != drained;
        let lines = self.lines().all();
        self.forget_speakers();
        let mut before = std::mem::take(&mut self.loads);
        let mut held = Vec::with_capacity(lines.len());
        for (place, line) in lines.iter().enumerate() {
            if place % LINES_AT_ONCE == LINES_AT_ONCE - 1 {
                thread::yield_now();
            }
            let mut load = before.remove(&line.cookie()).unwrap_or_default();
            held.push(line.counts().map_or(0, |counts| load.look(counts, was_drained)));
            self.loads.insert(line.cookie(), load);
        }
        let too_large = too_large(&held, self.bytes_of_one, self.bytes_of_all);
        let expired = now.since(self.looked_at) > LOOK_EXPIRES;
        self.looked_at = now;
        self.looks_again = !too_large.is_empty();
        if expired {
            return;
        }
        for place in too_large {
            let bytes = held[place];
            let bound = if bytes > self.bytes_of_one { "connection" } else { "connections" };
            let why = format!("the server holds {bytes} bytes for it (`{bound}_bytes_max`)");
            self.end(now, &lines[place], &why);
        }
    }

    fn end(&mut self, now: Timestamp, line: &Line, why: &str) {
        let address = line.address();
        if !line.end() {
            return;
        }
        let problem =
            Problem { code: Code::BoundExceeded, message: format!("the connection ends: {why}") };
        let client = line.client();
        let who = Who { client: client.as_ref(), address: address.as_deref() };
        self.refusals.bound_hit(now, who, &problem);
        drop(client);
        self.lines().ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many connections there may be: the library is at a loss when there is no file left.
fn most_connections(bounds: &Bounds) -> usize {
    let files = files_max().unwrap_or(usize::MAX);
    bounds.connections_max.min(files.saturating_sub(FILES_KEPT).max(16))
}

/// How many files the process may open, where the system tells.
fn files_max() -> Option<usize> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// How many pages of memory the process has in use; 0 where the system does not tell.
fn resident_pages() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

impl Line {
    /// What was counted of it so far. `None` if it is gone.
    fn counts(&self) -> Option<Counts> {
        let traffic = self.traffic()?;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(Counts {
            read: traffic.received.saturating_sub(traffic.unread),
            messages: count(&self.messages),
            taken: count(&self.taken),
            sent: count(&self.sent),
            weight: count(&self.weight),
            arrived: traffic.acked,
            under_way: traffic.unacked,
        })
    }
}

//! What is said on one link, and how long what is held there is safe.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::conversation::FLOOR_INTERVAL;
use crate::conversation::done::Done;
use crate::conversation::leases::{Lease, Leases, shortened};
use crate::conversation::question::Held;
use crate::conversation::releases::Releases;
use crate::engine::{ClientInfo, GrantId, Reply, RequestId, SessionName};
use crate::time::Timestamp;
use crate::wire::request::{Hello, encode_beat, encode_cancel, encode_hello, encode_know_moved};
use crate::wire::{Frames, VERSION};

/// How many beats may be unanswered; of older ones the answer is of no use.
const BEATS_MAX: usize = 32;

/// How many cancels are said again; a server that hears of so few beats forgets us altogether.
const CANCELS_MAX: usize = 1024;

/// What is said on one link.
#[derive(Debug, Default)]
pub(super) struct Talk {
    pub(super) is_up: bool,
    /// Since when it is not.
    pub(super) down_since: Timestamp,
    /// How many connections there were, the present one included.
    pub(super) connection: u64,
    /// The last of them on which the server has said that it is about to stop.
    pub(super) closing_on: Option<u64>,
    pub(super) hello_said: bool,
    /// The number of the server's run, and which version it speaks.
    pub(super) server: Option<u64>,
    pub(super) body: Vec<u8>,
    pub(super) items: usize,
    requests_since_beat: u32,
    /// The beats that were not answered yet, and when they were sent.
    pub(super) beats: VecDeque<(u64, Timestamp)>,
    /// The instant up to which the server has heard us for certain.
    pub(super) heard_at: Timestamp,
    pub(super) leases: Leases,
    pub(super) releases: Releases,
    /// How many requests wait at this server, by how often it has to hear of us for each.
    waits: BTreeMap<Duration, usize>,
    pub(super) next_beat: Option<Timestamp>,
    /// Whether a hello was said on any connection: the server was told something.
    pub(super) has_spoken: bool,
    /// The cancels that may not have come yet, and the number of the last beat before each.
    pub(super) cancels: VecDeque<(RequestId, u64)>,
}

impl Talk {
    pub(super) fn connect(&mut self) {
        (self.is_up, self.hello_said) = (true, false);
        self.connection += 1;
    }

    /// The server has forgotten us, and all that it had granted: from the start, on the connection
    /// that there is.
    pub(super) fn start_anew(&mut self) {
        self.disconnect();
        self.is_up = true;
        self.leases.clear();
        self.releases.clear();
        self.cancels.clear();
    }

    pub(super) fn disconnect(&mut self) {
        (self.is_up, self.hello_said) = (false, false);
        self.body.clear();
        (self.items, self.requests_since_beat) = (0, 0);
        self.beats.clear();
        self.releases.disconnect();
    }

    pub(super) fn write(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.body);
        self.items += 1;
    }

    /// All that was written, to be sent now.
    pub(super) fn take_message(&mut self) -> Frames {
        let message = Frames::from_iter([self.body.as_slice()]);
        self.body.clear();
        self.items = 0;
        message
    }

    /// Says hello if it was not said on this connection.
    pub(super) fn hello(&mut self, session: SessionName, me: &ClientInfo) {
        if !self.hello_said {
            self.hello_said = true;
            let ClientInfo { name, host, pid } = me;
            let connection = self.connection;
            let hello = Hello { version: VERSION, session, name, host, pid: *pid, connection };
            self.write(|body| encode_hello(body, &hello));
            self.has_spoken = true;
            // Those of an earlier connection may be lost with it.
            for (request, _) in self.cancels.clone() {
                self.write(|body| encode_cancel(body, request));
            }
        }
    }

    /// Says that nobody wants an answer; `last_beat` is the number of the last beat.
    pub(super) fn cancel(&mut self, request: RequestId, last_beat: u64) {
        if !self.has_spoken {
            return;
        }
        if self.cancels.len() == CANCELS_MAX {
            self.cancels.pop_front();
        }
        self.cancels.push_back((request, last_beat));
        if self.is_up && self.hello_said {
            self.write(|body| encode_cancel(body, request));
        }
    }

    /// When the first of what is owed is over by itself, if the link is down.
    pub(super) fn over_at(&self) -> Option<Timestamp> {
        self.releases.over_at(self.down_since).filter(|_| !self.is_up)
    }

    /// Drops what is over by itself.
    pub(super) fn drop_over(&mut self, now: Timestamp) {
        while self.over_at().is_some_and(|over_at| over_at <= now) {
            self.releases.pop();
        }
    }

    /// So many requests were written. Whether a beat is to say which answers may be forgotten.
    pub(super) fn count_requests(&mut self, count: u32) -> bool {
        self.requests_since_beat = self.requests_since_beat.saturating_add(count);
        self.requests_since_beat >= FLOOR_INTERVAL
    }

    pub(super) fn beat(&mut self, now: Timestamp, number: u64, done: &Done) {
        self.requests_since_beat = 0;
        if self.beats.len() == BEATS_MAX {
            self.beats.pop_front();
        }
        self.beats.push_back((number, now));
        self.write(|body| encode_beat(body, number, done.floor, &done.open));
    }

    /// A run of the server that is not the one we knew has forgotten what that one granted. The
    /// leases that it may let us hold on.
    pub(super) fn welcome(&mut self, server: u64, is_shared: bool) -> Vec<GrantId> {
        if self.server.replace(server).is_none_or(|known| known == server) {
            return Vec::new();
        }
        self.leases.reclaimable(self.heard_at, !is_shared)
    }

    /// The answer of a new run to the wish to hold on a lease. Whether we still hold it.
    pub(super) fn reclaimed(
        &mut self,
        now: Timestamp,
        grant: GrantId,
        sent_at: Timestamp,
        reply: &Reply,
    ) -> bool {
        let is_held = self.leases.get(grant).is_some_and(|lease| now < lease.valid_until);
        if is_held && *reply == Reply::Done {
            self.leases.know(grant, sent_at);
            self.schedule_beat_from(now);
            return true;
        }
        false
    }

    /// The leases that have ended for us by now. No answer revives them, for others may have them.
    pub(super) fn ended(&self, now: Timestamp) -> Vec<GrantId> {
        self.leases.ended(now, self.heard_at)
    }

    /// The server has heard a beat.
    pub(super) fn heard(&mut self, number: u64) {
        self.schedule_beat();
        self.cancels.retain(|(_, last_beat)| number <= *last_beat);
        while let Some((beat, sent_at)) = self.beats.front().copied().filter(|(n, _)| *n <= number)
        {
            self.beats.pop_front();
            if beat == number {
                self.heard_at = self.heard_at.max(sent_at);
            }
        }
    }

    /// A lease was granted. If much of it is over already, it is to be renewed at once.
    pub(super) fn take_lease(
        &mut self,
        now: Timestamp,
        grant: GrantId,
        (sent_at, not_before): (Timestamp, Timestamp),
        Held { term, wanted, is_lock, partition }: Held,
    ) {
        let valid_until = sent_at.max(self.heard_at) + shortened(term.ttl);
        let ends_at =
            term.max_hold.map_or(Timestamp::NEVER, |length| not_before + shortened(length));
        let lease =
            Lease { term, valid_until, ends_at, is_known: true, wanted, is_lock, partition };
        self.leases.insert(now, grant, lease);
        self.schedule_beat_from(now);
        if term.is_renewed() && valid_until < now + term.ttl * 2 / 3 {
            self.next_beat = Some(now);
        }
    }

    /// Says that these leases are known to be elsewhere.
    pub(super) fn know_moved(&mut self, grants: &[GrantId]) {
        if self.is_up && self.hello_said {
            self.write(|body| encode_know_moved(body, grants));
        }
    }

    /// A request waits at this server.
    pub(super) fn begin_wait(&mut self, now: Timestamp, interval: Duration) {
        *self.waits.entry(interval).or_default() += 1;
        self.schedule_beat_from(now);
    }

    /// It waits there no more.
    pub(super) fn end_wait(&mut self, interval: Duration) {
        if let Some(count) = self.waits.get_mut(&interval) {
            *count -= 1;
            if *count == 0 {
                self.waits.remove(&interval);
            }
        }
    }

    /// No request waits there any more.
    pub(super) fn end_waits(&mut self) {
        self.waits.clear();
    }

    /// How often the server has to hear of us.
    pub(super) fn interval(&self) -> Option<Duration> {
        let lease = self.leases.shortest().map(|ttl| ttl / 3);
        let wait = self.waits.first_key_value().map(|(interval, _)| *interval);
        lease.into_iter().chain(wait).min()
    }

    pub(super) fn schedule_beat(&mut self) {
        if self.interval().is_none() {
            self.next_beat = None;
        }
    }

    pub(super) fn schedule_beat_from(&mut self, now: Timestamp) {
        if let Some(interval) = self.interval() {
            let due = now + interval;
            self.next_beat = Some(self.next_beat.map_or(due, |next| next.min(due)));
        }
    }
}

//! Looks at a machine from outside: they change nothing, and what they cost is bounded.

use std::time::Duration;

use crate::engine::event::Tally;
use crate::engine::lock::LockPage;
use crate::engine::machine::Machine;
use crate::engine::measure::Measures;
use crate::engine::request::{Reply, Request};
use crate::engine::session::{ClientInfo, SESSIONS_A_PAGE, SessionId};
use crate::engine::status::{
    ClientPage, ClientRow, Happening, KeyPage, KeyRow, ServerFacts, ServerStatus,
};
use crate::engine::table::Space;
use crate::time::Timestamp;

/// How many bytes a page has at most, so that it fits into one item of the protocol.
const PAGE_BYTES: usize = 3000;

/// How many bytes a row has at most beside its names: its numbers, and an address.
const ROW_BYTES: usize = 96;

impl<E> Machine<E> {
    /// The answer to a request that only looks.
    pub(super) fn look(&mut self, now: Timestamp, request: &Request<'_>) -> Option<Reply> {
        Some(match request {
            Request::Status => Reply::Status(Box::new(self.status(now))),
            Request::Keys { from } => Reply::Keys(self.busy_keys(now, *from, PAGE_BYTES)),
            Request::Clients { from } => Reply::Clients(self.clients(now, *from, PAGE_BYTES)),
            Request::Locks { from } => Reply::Locks(self.locks(now, *from, PAGE_BYTES)),
            _ => return None,
        })
    }

    /// What was counted so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            waiting: self.gate.waiting(),
            keys: self.gate.keys(),
            leases: self.gate.grants.len(),
            sessions: self.sessions.len(),
            ..self.tally
        }
    }

    /// How many permits are held, of which no later run knows.
    #[must_use]
    pub const fn permits_held(&self) -> usize {
        self.gate.permits
    }

    /// How long requests wait that leave it to the server.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        self.gate.patience()
    }

    /// Whether there is such a session.
    #[must_use]
    pub fn knows(&self, session: SessionId) -> bool {
        self.sessions.get(session).is_some()
    }

    /// Since when nothing was heard of a session that waits for nothing and holds nothing; `None`
    /// for all others.
    #[must_use]
    pub fn idle_since(&self, id: SessionId) -> Option<Timestamp> {
        let session = self.sessions.get(id)?;
        let is_idle = session.waiting == 0 && !self.gate.has_leases(id);
        is_idle.then_some(session.heard_at)
    }

    /// Who the client of a session says that it is.
    #[must_use]
    pub fn client(&self, session: SessionId) -> Option<&ClientInfo> {
        self.sessions.get(session).map(|session| &session.client)
    }

    /// What was measured so far.
    #[must_use]
    pub const fn measures(&self) -> &Measures {
        self.gate.measures()
    }

    /// The next thing that happened to a client. Of what nobody looks at, only the last is kept.
    pub fn poll_happening(&mut self) -> Option<Happening> {
        self.happenings.pop()
    }

    /// What is done and was done, without what only the shell knows.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> ServerStatus {
        let grace = self.gate.grace_until().since(now);
        ServerStatus { facts: ServerFacts::default(), grace, tally: self.tally() }
    }

    /// The busiest keys from the place `from` on, in a page of about `bytes_max` bytes.
    #[must_use]
    pub fn busy_keys(&mut self, now: Timestamp, from: u64, bytes_max: usize) -> KeyPage {
        let ranked = self.gate.ranked(now);
        let mut page = KeyPage::default();
        let (mut bytes, from) = (0, usize::try_from(from).unwrap_or(usize::MAX));
        for (place, busy) in ranked.iter().enumerate().skip(from) {
            let Some((key, decision)) = self.gate.shown(now, busy.key) else { continue };
            let rest = key.rest.as_deref();
            let frozen_until = rest.and_then(|rest| rest.frozen_until);
            let row = KeyRow {
                key: key.name.clone(),
                is_lock: key.space() == Space::Locks,
                rate_millis: busy.rate(),
                allowed: busy.allowed,
                refused: busy.refused,
                waiting: rest.map_or(0, |rest| rest.queue.len() as u64),
                holders: key.holders.leases().len() as u64,
                remaining: decision.remaining,
                reset_after: decision.reset_after,
                frozen: frozen_until.map_or(Duration::ZERO, |until| until.since(now)),
                limit: decision.limit,
            };
            bytes += ROW_BYTES + row.key.len() + row.limit.len();
            if bytes > bytes_max && !page.rows.is_empty() {
                page.next = Some(place as u64);
                return page;
            }
            page.rows.push(row);
        }
        page
    }

    /// Who holds and who waits for locks, from the place `from` on, in a page of about `bytes_max`
    /// bytes.
    #[must_use]
    pub fn locks(&self, now: Timestamp, from: u64, bytes_max: usize) -> LockPage {
        self.gate.page(now, (from, bytes_max), &self.sessions)
    }

    /// The clients from the place `from` on, in a page of about `bytes_max` bytes. Their addresses
    /// are for the shell to fill in.
    #[must_use]
    pub fn clients(&self, now: Timestamp, from: u64, bytes_max: usize) -> ClientPage {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let mut page = ClientPage::default();
        let mut bytes = 0;
        for (id, session) in self.sessions.some(from) {
            let row = ClientRow {
                session: Some(id),
                client: session.client.clone(),
                address: Box::default(),
                since: now.since(session.since),
                silent: now.since(session.heard_at),
                leases: self.gate.grants.count_of(id),
                waiting: session.waiting as u64,
            };
            bytes += ROW_BYTES + ClientRow::ADDRESS_BYTES_MAX;
            bytes += row.client.name.len() + row.client.host.len();
            if bytes > bytes_max && !page.rows.is_empty() {
                page.next = Some(id.place() as u64);
                return page;
            }
            page.rows.push(row);
        }
        let end = from.saturating_add(SESSIONS_A_PAGE);
        page.next = Some(end as u64).filter(|_| end < self.sessions.places());
        page
    }
}

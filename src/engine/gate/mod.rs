//! The gate: decides about permits of keys, lets requests wait, and takes permits back.
//!
//! It knows who asks only by an `A`, to which the answer is addressed, and by the session that
//! owns what may be given back. Where several keys or limits are asked, all grant or none.

mod change;
mod count;
mod deadlock;
mod decide;
mod handing;
mod hold;
mod homes;
mod lend;
mod lock;
mod peers;
mod queue;
mod reclaim;
mod record;
mod renewal;
mod settle;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use deadlock::Actors;
pub(super) use deadlock::{Stuck, tell_cycle};
pub use record::{Restored, Unfit};
use renewal::Renewed;

use crate::engine::bounds::Bounds;
use crate::engine::busiest::Busiest;
use crate::engine::grant::{Charges, Grants};
use crate::engine::homes::Homes;
use crate::engine::key::Key;
use crate::engine::lease_record::LeaseRecord;
use crate::engine::lock::Shape;
use crate::engine::measure::{Ending, Measures, PatternId};
use crate::engine::peering::Peered;
use crate::engine::request::{
    Code, Decision, Demand, GrantId, Hold, Problem, Reply, Request, Wait,
};
use crate::engine::rules::{Limits, Rules};
use crate::engine::session::SessionId;
use crate::engine::table::{KeyId, KeyState, Space, Table};
use crate::engine::timers::{Timer, Timers};
use crate::engine::waiters::{Ask, Parts, Waiter, WaiterId, Waiters};
use crate::time::Timestamp;

/// Something that the gate says.
#[derive(Debug)]
pub(super) enum Said<A> {
    /// The answer to a request. With it, what was taken for good, in case nobody wants it.
    Reply { to: A, reply: Reply, charges: Charges },
    /// A limit in shadow mode would have refused a request.
    WouldRefuse { key: Box<str>, limit: Arc<str> },
    /// What is used of a key is to be written down; nothing, if there is no record.
    Record { number: u64, key: Box<str>, record: Option<Vec<u8>> },
    /// What follows is not said before that record is written.
    Await { number: u64 },
    /// A lease is to be written down; nothing, if it has ended.
    Lease { number: u64, grant: GrantId, record: Option<(SessionId, LeaseRecord)> },
    /// Grants will have numbers up to this one.
    Numbers { number: u64, up_to: GrantId },
    /// A waiter is refused because it closes a cycle: of those in it each is held up by the next.
    Deadlock { to: A, cycle: Vec<Stuck> },
    /// An operator took a lease from its holder.
    Broken { owner: SessionId, grant: GrantId, key: Box<str> },
    /// A lease went with its key to another server.
    Moved { owner: SessionId, grant: GrantId },
    /// The key of a waiter went to another server.
    Elsewhere { to: A },
}

#[derive(Debug)]
pub(super) struct Gate<A> {
    rules: Rules,
    /// Rises when the rules become others.
    rules_version: u32,
    patience: Duration,
    table: Table,
    waiters: Waiters<A>,
    /// How many may wait for one key.
    key_waiters_max: usize,
    pub(super) grants: Grants,
    /// How many of them are leases of permits, which no later run knows of.
    pub(super) permits: usize,
    /// When each session was heard last.
    heard: Vec<Timestamp>,
    /// The leases that it renews by being heard.
    renewed: Vec<Renewed>,
    pub(super) timers: Timers,
    /// Whether nobody begins to wait or to hold any more.
    draining: bool,
    /// Whether usage is recorded.
    durable: bool,
    /// How many records were made.
    records: u64,
    /// The last number for a grant that is laid in.
    numbers_up_to: GrantId,
    /// Who holds and who waits, by threads and tasks.
    actors: Actors,
    /// Before that no lock is granted: an earlier run may have granted it.
    grace_until: Timestamp,
    /// Before that locks that an earlier run has granted may be reclaimed.
    reclaim_until: Timestamp,
    /// What kind of lock each key was in this run, until then, and the most of its permits that
    /// were held at a time; all if it was of several kinds.
    held_most: BTreeMap<Box<str>, (Shape, u64)>,
    /// What locks and rw locks have in common.
    lock_limits: [Arc<Limits>; 2],
    /// Which keys are asked for most.
    busiest: Busiest,
    measures: Measures,
    /// Which keys it decides for, where several servers share them; all of them otherwise.
    homes: Option<Box<Homes>>,
    /// What there is to know of other servers that grant permits of the same keys, if there are.
    peered: Option<Box<Peered>>,
    said: VecDeque<Said<A>>,
}

impl<A> Gate<A> {
    pub(super) fn new(rules: Rules, patience: Duration, bounds: Bounds) -> Self {
        Self {
            rules,
            rules_version: 0,
            patience,
            table: Table::new(bounds.keys_max),
            waiters: Waiters::new(bounds.waiters_max),
            key_waiters_max: bounds.key_waiters_max,
            grants: Grants::new(bounds.leases_max, bounds.client_leases_max),
            permits: 0,
            heard: Vec::new(),
            renewed: Vec::new(),
            timers: Timers::default(),
            draining: false,
            durable: false,
            records: 0,
            numbers_up_to: GrantId(0),
            actors: Actors::default(),
            grace_until: Timestamp::ZERO,
            reclaim_until: Timestamp::ZERO,
            held_most: BTreeMap::new(),
            lock_limits: [Shape::Lock, Shape::RwLock].map(|shape| Arc::new(Limits::of_lock(shape))),
            busiest: Busiest::default(),
            measures: Measures::new(bounds.patterns_max),
            homes: None,
            peered: None,
            said: VecDeque::new(),
        }
    }

    /// Takes in a request of a session. If it has to wait: its place, and how many are before it.
    pub(super) fn handle(
        &mut self,
        now: Timestamp,
        (asker, owner): (A, Option<SessionId>),
        request: &Request<'_>,
    ) -> Option<(WaiterId, u64)> {
        let answered = match request {
            Request::Lock { .. } | Request::Reclaim { .. } if self.peered.is_some() => {
                Err(Self::no_locks())
            }
            Request::Acquire { demand, wait, hold } => {
                return self.acquire(now, asker, owner, demand, *wait, *hold);
            }
            Request::Lock { wanted, wait } => {
                return self.lock(now, asker, owner, wanted, *wait);
            }
            Request::Reclaim { grant, wanted } => self.reclaim(now, owner, *grant, wanted),
            Request::Break { key, grant } => self.break_lock(now, *key, *grant),
            Request::Commit { grant, spent } => self.commit(now, owner, *grant, spent),
            Request::Release { grant } | Request::ReleaseIn { grant, .. } => {
                self.release(now, owner, *grant)
            }
            Request::Freeze { key, length } => self.freeze(now, *key, *length),
            Request::Peek { key, cost } => self.peek(now, *key, *cost),
            Request::Reset { key } => self.reset(now, *key),
            Request::SetLimits { key, limits } => self.set_limits(now, *key, limits),
            Request::Block { key, wanted } => self.lend(now, owner, *key, *wanted),
            Request::GiveBack { grant, unused } => self.give_back(now, owner, *grant, *unused),
            // Whoever only looks asks nothing of the gate.
            Request::Locks { .. }
            | Request::Status
            | Request::Keys { .. }
            | Request::Clients { .. } => return None,
        };
        self.reply(asker, answered.unwrap_or_else(Reply::Refuse));
        None
    }

    /// The next thing that the gate says.
    pub(super) fn poll_said(&mut self) -> Option<Said<A>> {
        self.said.pop_front()
    }

    /// To whom a grant is to be told by what the gate says next but one: a record of it comes
    /// first, and then that answers wait for that.
    pub(super) fn is_told_to(&self, grant: GrantId) -> Option<&A> {
        self.said.iter().take(2).find_map(|said| match said {
            Said::Reply { to, reply, .. } if reply.grant() == Some(grant) => Some(to),
            _ => None,
        })
    }

    /// Something came from a session: its leases live on.
    pub(super) fn hear(&mut self, now: Timestamp, session: SessionId) {
        let place = session.place();
        if self.heard.len() <= place {
            self.heard.resize(place + 1, Timestamp::ZERO);
        }
        self.heard[place] = now;
    }

    /// Does what a timer is for.
    pub(super) fn handle_timer(&mut self, now: Timestamp, timer: Timer) {
        match timer {
            Timer::Serve(key) => {
                if let Some(rest) = self.table.get_mut(key).and_then(|state| state.rest.as_mut()) {
                    rest.wake_at = None;
                }
                self.serve(now, key);
            }
            Timer::Deadline(waiter) => self.give_up(now, waiter),
            Timer::Deadlock(waiter) => self.resolve_deadlock(now, waiter),
            Timer::Grant(grant) => self.end_grant(now, grant),
            Timer::Leases(session) => self.end_leases(now, session),
            Timer::Session(_) => {}
        }
    }

    /// From now on nobody begins to wait, or to hold something.
    pub(super) const fn drain(&mut self) {
        self.draining = true;
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn keys(&self) -> usize {
        self.table.len()
    }

    pub(super) const fn patience(&self) -> Duration {
        self.patience
    }

    /// Opens the first slot of a key now, as the seed's `Locker` does.
    pub(super) fn open(&mut self, now: Timestamp, key: Key<'_>) {
        // A key without limits is refused when it is asked for.
        let Ok(id) = self.find_or_add(now, key, &[]) else { return };
        let Some(state) = self.table.get_mut(id) else { return };
        for (meter, limit) in state.meters.iter_mut().zip(state.limits.iter()) {
            meter.open(now, &limit.kind);
        }
    }

    /// Other rules from now on. Keys whose limits were set while the server runs keep them.
    pub(super) fn set_rules(&mut self, now: Timestamp, rules: Rules) {
        self.rules = rules;
        self.rules_version = self.rules_version.wrapping_add(1);
        // Those who wait learn of it now, all others when they ask.
        let waiting: Vec<KeyId> = self
            .waiters
            .ids()
            .filter_map(|waiter| self.waiters.get(waiter))
            .flat_map(|waiter| waiter.ask.parts.iter().map(|(key, _)| *key))
            .collect();
        for key in waiting {
            // Whoever waits for a key without limits is told by this.
            let _ = self.refresh(now, key);
        }
    }

    fn acquire(
        &mut self,
        now: Timestamp,
        asker: A,
        owner: Option<SessionId>,
        demand: &Demand<'_>,
        wait: Wait,
        hold: Hold,
    ) -> Option<(WaiterId, u64)> {
        let parts = match self.parts(now, demand) {
            Ok(parts) => parts,
            Err(problem) => {
                self.fail(asker, PatternId::NONE, problem);
                return None;
            }
        };
        if let Err(problem) = self.check(&parts, matches!(hold, Hold::Lease(_))) {
            self.fail(asker, self.pattern_of(&parts), problem);
            return None;
        }
        self.admit(now, Ask { asker, owner, actor: 0, parts, hold }, wait)
    }

    /// Grants a request now, or lets it wait, or refuses it. If it has to wait: its place, and how
    /// many are before it.
    fn admit(&mut self, now: Timestamp, ask: Ask<A>, wait: Wait) -> Option<(WaiterId, u64)> {
        if self.draining && self.holds(&ask.parts, ask.hold) {
            self.fail(ask.asker, self.pattern_of(&ask.parts), Problem::closing());
            return None;
        }
        let verdict = self.verdict(now, &ask.parts, Whose::Newcomer);
        if verdict.at <= now {
            self.grant(now, ask, None);
            return None;
        }
        let deadline = match wait {
            Wait::No => None,
            Wait::Patience => Some(now + self.patience).filter(|deadline| {
                verdict.at <= *deadline && self.room_to_wait(&ask.parts).is_ok()
            }),
            Wait::UpTo(length) => Some(now + length),
        };
        let deadline = deadline.or_else(|| self.held_until(now, &ask.parts));
        match deadline {
            None => {
                let decision = self.refusal(now, &ask.parts, &verdict);
                self.count_refused(now, ask.parts[verdict.part].0, Ending::Refused);
                self.reply(ask.asker, Reply::Decision(decision));
            }
            Some(deadline) => match self.room_to_wait(&ask.parts) {
                Ok(()) => return Some(self.enqueue(now, Waiter { ask, since: now, deadline })),
                Err(problem) => self.fail(ask.asker, self.pattern_of(&ask.parts), problem),
            },
        }
        None
    }

    /// Whether one more may wait for these keys.
    fn room_to_wait(&self, parts: &Parts) -> Result<(), Problem> {
        if self.draining {
            return Err(Problem::closing());
        }
        if self.waiters.is_full() {
            return Err(no_room("the server has no room for another waiter (`waiters_max`)"));
        }
        let waiters = |state: &KeyState| state.rest.as_ref().map_or(0, |rest| rest.queue.len());
        for state in parts.iter().filter_map(|(key, _)| self.table.get(*key)) {
            if waiters(state) >= self.key_waiters_max {
                let name = &state.name;
                return Err(no_room(&format!(
                    "key {name:?} has as many waiters as it may (`key_waiters_max`)"
                )));
            }
        }
        Ok(())
    }

    /// The keys of a demand, each of which is in use from now on.
    fn parts(&mut self, now: Timestamp, demand: &Demand<'_>) -> Result<Parts, Problem> {
        let mut parts = Parts::with_capacity(demand.parts().len());
        for (key, cost) in demand.parts() {
            parts.push((self.find_or_add(now, *key, &parts)?, cost.permits()));
        }
        Ok(parts)
    }

    /// The key, which is in use from now on. Those of `keep` are not forgotten to make room for it.
    fn find_or_add(
        &mut self,
        now: Timestamp,
        key: Key<'_>,
        keep: &[(KeyId, u64)],
    ) -> Result<KeyId, Problem> {
        if let Some(id) = self.table.find(Space::Limits, key) {
            return self.refresh(now, id).map(|()| id);
        }
        let rule = self.rule_of(key)?;
        self.add(now, key, rule, keep)
    }

    fn add(
        &mut self,
        now: Timestamp,
        key: Key<'_>,
        rule: (Arc<Limits>, PatternId),
        keep: &[(KeyId, u64)],
    ) -> Result<KeyId, Problem> {
        let mut state = KeyState::new(key.as_str(), rule, self.rules_version);
        self.use_up(&mut state);
        let added = self.table.add(now, state, keep);
        self.drop_records();
        added.ok_or_else(|| Problem {
            code: Code::BoundExceeded,
            message: format!(
                "key {:?} is one too many: the server counts for as many keys as it may \
                 (`keys_max`); try again later",
                key.as_str()
            ),
        })
    }

    /// The limits that the rules give to a key.
    fn limits_of(&self, key: Key<'_>) -> Result<&Arc<Limits>, Problem> {
        self.rules.find(key).ok_or_else(|| Problem {
            code: Code::Config,
            message: format!(
                "key {:?} has no limits: name it in the server's `limits`, or give the server \
                 `max_requests` and `in_seconds` for all other keys",
                key.as_str()
            ),
        })
    }

    /// Whether a client may be granted one more thing that it can give back.
    fn room_for_grant(&self, owner: SessionId) -> Result<(), Problem> {
        if self.grants.is_full() {
            let what = "the server has no room for another lease, reservation or block \
                        (`leases_max`)";
            return Err(no_room(what));
        }
        if self.grants.is_full_of(owner) {
            let message = "the client has as many leases, reservations and blocks as one may \
                           (`client_leases_max`): give some back first";
            return Err(Problem { code: Code::BoundExceeded, message: message.to_owned() });
        }
        Ok(())
    }

    /// The limits that the rules give to a key, and where its answers are counted.
    fn rule_of(&mut self, key: Key<'_>) -> Result<(Arc<Limits>, PatternId), Problem> {
        let limits = Arc::clone(self.limits_of(key)?);
        let pattern = self.rules.pattern(key).unwrap_or_default();
        Ok((limits, self.measures.pattern(pattern)))
    }

    fn reply(&mut self, to: A, reply: Reply) {
        self.said.push_back(Said::Reply { to, reply, charges: SmallVec::new() });
    }

    /// The answer for those who ask for what is not there any more.
    fn not_held(what: &str) -> Problem {
        let message = format!("{what}: it was given back, has ended, or was never granted");
        Problem { code: Code::NotHeld, message }
    }
}

fn no_room(what: &str) -> Problem {
    let message = format!("{what}: try again later");
    Problem { code: Code::BoundExceeded, message }
}

/// Who wants to know when a request can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// One who asks, and stands behind all who wait.
    Newcomer,
    /// The first of those who wait, to be served.
    First,
    /// One who waits no more.
    Leaver,
}

/// What keeps a request from being granted, and until when.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    /// The earliest instant at which it can be granted, as far as is known.
    at: Timestamp,
    /// The place in the demand of the key that is last to grant.
    part: usize,
    /// The place among the limits of that key; none if the key is frozen or waited for.
    limit: Option<usize>,
}

/// A decision that is about no limit in particular.
fn decision(allowed: bool, limit: Arc<str>, key: usize) -> Decision {
    Decision {
        allowed,
        remaining: 0,
        retry_after: None,
        reset_after: Duration::ZERO,
        limit,
        key,
        grant: None,
    }
}

//! Requests for keys of several partitions, where servers share the keys: one partition after the
//! other, in the order of their numbers, so that no two such requests wait for each other for ever.
//!
//! Whoever asks sees one request and one answer. What was granted is known by the number of its
//! first part, and the others go with it. Permits to be spent are reserved until all are there.

use std::collections::BTreeMap;
use std::mem;

use smallvec::SmallVec;

use crate::asking::{LinkId, RequestId};
use crate::cluster::Partition;
use crate::conversation::{Conversation, Outcome, TELL_TIMEOUT};
use crate::engine::{
    Cost, Decision, Demand, GrantId, Hold, Key, LockRequest, Locks, Mode, Reply, Request, Term,
    Wait,
};
use crate::time::Timestamp;

/// When there are so many grants of several parts, those are looked for that are over.
const GROUPS_KEPT: usize = 64;

/// The places of keys in a request.
type Places = SmallVec<[usize; 2]>;

/// What is under way in parts, and what was granted so.
#[derive(Debug, Default)]
pub(super) struct InParts {
    under_way: BTreeMap<RequestId, Parted>,
    /// The requests to which the parts belong that are asked now.
    asked: BTreeMap<RequestId, RequestId>,
    /// By the number of the first part.
    granted: BTreeMap<GrantId, Vec<Part>>,
}

/// A request that is asked in parts.
#[derive(Debug)]
pub(super) struct Parted {
    keys: Vec<Box<str>>,
    wanted: Wanted,
    wait: Wait,
    asked_at: Timestamp,
    deadline: Option<Timestamp>,
    /// The keys of each partition, in the order of the partitions.
    pieces: Vec<Places>,
    /// How many of the pieces are there.
    done: usize,
    /// The number under which the next one is asked.
    asked: Option<RequestId>,
    granted: Vec<Part>,
    /// What was said of the key that has the fewest permits left.
    decision: Option<Decision>,
}

#[derive(Debug)]
enum Wanted {
    Permits(Vec<Cost>, Hold),
    Locks { modes: Vec<Mode>, term: Term, actor: u64 },
}

/// A part that was granted.
#[derive(Clone, Debug)]
struct Part {
    link: LinkId,
    grant: GrantId,
    places: Places,
    is_lease: bool,
}

impl Parted {
    /// A request of which the keys are of several partitions.
    pub(super) fn new(
        now: Timestamp,
        request: &Request<'_>,
        deadline: Option<Timestamp>,
    ) -> Option<Self> {
        let keys = request.keys();
        if keys.len() < 2 {
            return None;
        }
        let (wanted, wait) = match request {
            Request::Acquire { demand, hold, wait } => {
                let costs = demand.parts().iter().map(|(_, cost)| *cost).collect();
                (Wanted::Permits(costs, *hold), *wait)
            }
            Request::Lock { wanted: LockRequest { locks, term, actor }, wait } => {
                let modes = locks.parts().iter().map(|(_, mode)| *mode).collect();
                (Wanted::Locks { modes, term: *term, actor: *actor }, *wait)
            }
            _ => return None,
        };
        let mut pieces: BTreeMap<Partition, Places> = BTreeMap::new();
        for (place, key) in keys.iter().enumerate() {
            pieces.entry(Partition::of(*key)).or_default().push(place);
        }
        (pieces.len() > 1).then(|| Self {
            keys: keys.iter().map(|key| key.as_str().into()).collect(),
            wanted,
            wait,
            asked_at: now,
            deadline,
            pieces: pieces.into_values().collect(),
            done: 0,
            asked: None,
            granted: Vec::new(),
            decision: None,
        })
    }

    /// The request for the next piece, if one is left.
    fn next(&self, now: Timestamp) -> Option<Request<'_>> {
        let places = self.pieces.get(self.done)?;
        let wait = match self.wait {
            Wait::UpTo(length) => Wait::UpTo((self.asked_at + length).since(now)),
            wait => wait,
        };
        let key = |place: usize| Key::parse(&self.keys[place]).ok();
        match &self.wanted {
            Wanted::Permits(costs, hold) => {
                let parts = places.iter().map(|place| Some((key(*place)?, costs[*place])));
                let demand = Demand::new(parts.collect::<Option<Vec<_>>>()?).ok()?;
                // What is spent could not come back where the rest is refused.
                let hold = if *hold == Hold::Spend { Hold::Reserve } else { *hold };
                Some(Request::Acquire { demand, wait, hold })
            }
            Wanted::Locks { modes, term, actor } => {
                let parts = places.iter().map(|place| Some((key(*place)?, modes[*place])));
                let locks = Locks::new(parts.collect::<Option<Vec<_>>>()?).ok()?;
                let wanted = LockRequest { locks, term: *term, actor: *actor };
                Some(Request::Lock { wanted, wait })
            }
        }
    }

    const fn is_lease(&self) -> bool {
        matches!(self.wanted, Wanted::Locks { .. } | Wanted::Permits(_, Hold::Lease(_)))
    }

    /// Says of which of all keys a decision is.
    fn place(&self, decision: &mut Decision) {
        let places = self.pieces.get(self.done);
        decision.key = places.and_then(|it| it.get(decision.key)).copied().unwrap_or(0);
    }

    /// The next piece is there.
    fn take(&mut self, link: LinkId, mut decision: Decision) {
        self.place(&mut decision);
        if let Some(grant) = decision.grant.take() {
            let (places, is_lease) = (self.pieces[self.done].clone(), self.is_lease());
            self.granted.push(Part { link, grant, places, is_lease });
        }
        self.done += 1;
        if self.decision.as_ref().is_none_or(|fewest| decision.remaining < fewest.remaining) {
            self.decision = Some(decision);
        }
    }

    /// What is spent of each key of a part.
    fn costs(&self, part: &Part) -> SmallVec<[u64; 1]> {
        let Wanted::Permits(costs, _) = &self.wanted else { return SmallVec::new() };
        part.places.iter().map(|place| costs[*place].permits()).collect()
    }
}

impl Conversation {
    /// Starts a request that is asked in parts.
    pub(super) fn ask_in_parts(&mut self, now: Timestamp, parted: Parted) -> RequestId {
        let id = self.asking.take_number();
        self.ask_next_part(now, id, parted);
        id
    }

    /// Asks for the next part; if all are there, the request is over.
    pub(super) fn ask_next_part(&mut self, now: Timestamp, id: RequestId, mut parted: Parted) {
        if let Some(request) = parted.next(now) {
            let asked = self.ask(now, Some(&request), None, parted.deadline);
            parted.asked = Some(asked);
            self.in_parts.asked.insert(asked, id);
            self.in_parts.under_way.insert(id, parted);
            return;
        }
        let is_lost =
            |part: &Part| part.is_lease && self.valid_until(now, part.link, part.grant).is_none();
        if parted.granted.iter().any(is_lost) {
            // While it was waited for one, another one was lost: from the start.
            self.give_back_all(now, mem::take(&mut parted.granted));
            (parted.done, parted.decision) = (0, None);
            return self.ask_next_part(now, id, parted);
        }
        self.complete(now, id, parted);
    }

    fn complete(&mut self, now: Timestamp, id: RequestId, mut parted: Parted) {
        let granted = mem::take(&mut parted.granted);
        let Some(mut decision) = parted.decision.take() else { return };
        let by = granted.first().map_or(LinkId(0), |part| part.link);
        if matches!(parted.wanted, Wanted::Permits(_, Hold::Spend)) {
            for part in &granted {
                self.commit(now, part, parted.costs(part));
            }
        } else if let Some(first) = granted.first().map(|part| part.grant) {
            decision.grant = Some(first);
            self.keep_together(now, first, granted);
        }
        self.finish(now, id, Outcome::Reply(by, Reply::Decision(decision)));
    }

    fn keep_together(&mut self, now: Timestamp, first: GrantId, parts: Vec<Part>) {
        let is_over =
            |part: &Part| part.is_lease && self.valid_until(now, part.link, part.grant).is_none();
        let count = self.in_parts.granted.len();
        if count >= GROUPS_KEPT && count.is_power_of_two() {
            let over = |(grant, parts): (&GrantId, &Vec<Part>)| {
                parts.iter().all(is_over).then_some(*grant)
            };
            for grant in self.in_parts.granted.iter().filter_map(over).collect::<Vec<_>>() {
                self.in_parts.granted.remove(&grant);
            }
        }
        self.in_parts.granted.insert(first, parts);
    }

    /// A request was answered, or will not be. What it ended with, if it is no part of another one.
    pub(super) fn end_part(
        &mut self,
        now: Timestamp,
        id: RequestId,
        outcome: Outcome,
    ) -> Option<Outcome> {
        let Some(whole) = self.in_parts.asked.remove(&id) else { return Some(outcome) };
        let mut parted = self.in_parts.under_way.remove(&whole)?;
        match outcome {
            Outcome::Reply(link, Reply::Decision(decision)) if decision.allowed => {
                parted.take(link, decision);
                self.ask_next_part(now, whole, parted);
            }
            mut other => {
                if let Outcome::Reply(_, Reply::Decision(decision)) = &mut other {
                    parted.place(decision);
                }
                self.give_back_all(now, parted.granted);
                self.finish(now, whole, other);
            }
        }
        None
    }

    /// Nobody waits any more for what is asked in parts. Whether there was such a request.
    pub(super) fn forget_parts(&mut self, now: Timestamp, id: RequestId) -> bool {
        let Some(parted) = self.in_parts.under_way.remove(&id) else { return false };
        if let Some(asked) = parted.asked {
            self.in_parts.asked.remove(&asked);
            self.forget(now, asked);
        }
        self.give_back_all(now, parted.granted);
        true
    }

    /// What was granted in parts, the parts in their order, each with the places of its keys; not
    /// if it was granted as a whole.
    pub(super) fn parts_of(
        &self,
        grant: GrantId,
    ) -> impl Iterator<Item = (LinkId, GrantId, &[usize])> {
        let parts = self.in_parts.granted.get(&grant);
        parts.into_iter().flatten().map(|part| (part.link, part.grant, &*part.places))
    }

    /// The number of each key's part, in the order of the keys; none if all of them have one.
    #[must_use]
    pub fn grants_of(&self, grant: GrantId) -> Vec<GrantId> {
        let each = |(_, grant, places): (LinkId, GrantId, &[usize])| {
            places.iter().map(|place| (*place, grant)).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.parts_of(grant).flat_map(each).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, grant)| grant).collect()
    }

    /// Gives back all parts of what was granted, if it was granted in parts. Whether it was.
    pub(super) fn give_back_parts(&mut self, now: Timestamp, grant: GrantId) -> bool {
        let parts = self.in_parts.granted.remove(&grant);
        let any = parts.is_some();
        self.give_back_all(now, parts.unwrap_or_default());
        any
    }

    /// Tells the servers of the parts but the first what becomes of them. What the first one is to
    /// be told, if that is not the same.
    pub(super) fn settle_parts(
        &mut self,
        now: Timestamp,
        request: &Request<'_>,
    ) -> Option<Request<'static>> {
        let (Request::Release { grant } | Request::Commit { grant, .. }) = request else {
            return None;
        };
        let mut parts = self.in_parts.granted.remove(grant)?;
        let others = parts.split_off(1);
        let Request::Commit { spent, .. } = request else {
            self.give_back_all(now, others);
            return None;
        };
        let of =
            |part: &Part| part.places.iter().filter_map(|it| spent.get(*it)).copied().collect();
        for part in &others {
            self.commit(now, part, of(part));
        }
        Some(Request::Commit { grant: *grant, spent: of(&parts[0]) })
    }

    fn commit(&mut self, now: Timestamp, part: &Part, spent: SmallVec<[u64; 1]>) {
        let request = Request::Commit { grant: part.grant, spent };
        self.ask(now, Some(&request), Some(part.link), Some(now + TELL_TIMEOUT));
    }

    fn give_back_all(&mut self, now: Timestamp, parts: Vec<Part>) {
        for part in parts {
            if part.is_lease {
                self.release(now, part.link, part.grant);
            } else {
                let spent = part.places.iter().map(|_| 0).collect();
                self.commit(now, &part, spent);
            }
        }
    }
}

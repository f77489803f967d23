//! Locks against a naive model that looks at all who hold and wait whenever anything may change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use zmqlocker::engine::{
    Code, GrantId, Input, Mode, Output, Reply, Request, RequestId, SessionId, Term,
};

use crate::locks::{self, permits, until_end};
use crate::{Desk, SECOND};

/// The keys, and how many permits each has.
const KEYS: [(&str, u64); 4] = [("m", 1), ("n", 1), ("r", 1_000_000_000_000), ("s", 3)];

/// What of a key, if anything: its place, and the permits.
type Parts = Vec<(usize, Mode)>;

#[derive(Clone, Debug)]
struct Asked {
    id: RequestId,
    owner: SessionId,
    parts: Parts,
    term: Term,
    patience: Option<u64>,
    now: State,
    answers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waits { since: u64, deadline: u64 },
    Granted { answered_at: u64, granted_at: u64 },
    Refused { answered_at: u64 },
    Cancelled,
}

#[derive(Default)]
struct Model {
    now: u64,
    asked: Vec<Asked>,
    /// The places in `asked` of those who wait, and of those who hold.
    queue: Vec<usize>,
    held: Vec<usize>,
    heard: BTreeMap<SessionId, u64>,
}

impl Model {
    fn ends_at(&self, place: usize) -> u64 {
        let Asked { owner, term, now: State::Granted { granted_at, .. }, .. } = &self.asked[place]
        else {
            panic!("who holds was granted")
        };
        let renewed_at = self.heard[owner].max(*granted_at);
        let ends_at = renewed_at + until_end(term.ttl);
        term.max_hold.map_or(ends_at, |most| ends_at.min(granted_at + until_end(most)))
    }

    fn fits(&self, parts: &Parts) -> bool {
        parts.iter().all(|(key, mode)| {
            let held = self.held.iter().flat_map(|place| &self.asked[*place].parts);
            let held: u64 = held.filter(|(it, _)| it == key).map(|(_, it)| it.permits()).sum();
            held + mode.permits() <= KEYS[*key].1
        })
    }

    fn is_behind(&self, ahead: &[usize], parts: &Parts) -> bool {
        let mut before = ahead.iter().flat_map(|place| &self.asked[*place].parts);
        before.any(|(key, _)| parts.iter().any(|(it, _)| it == key))
    }

    fn set(&mut self, place: usize, now: State) {
        self.asked[place].now = now;
        self.asked[place].answers += 1;
    }

    fn grant(&mut self, place: usize) {
        self.set(place, State::Granted { answered_at: self.now, granted_at: self.now });
        self.held.push(place);
    }

    fn serve(&mut self) {
        let may = |model: &Self, at: usize| {
            let parts = &model.asked[model.queue[at]].parts;
            !model.is_behind(&model.queue[..at], parts) && model.fits(parts)
        };
        while let Some(at) = (0..self.queue.len()).find(|at| may(self, *at)) {
            let place = self.queue.remove(at);
            self.grant(place);
        }
    }

    fn first(&self, is_it: impl Fn(&Asked) -> bool) -> Option<RequestId> {
        let mut waits = self.queue.iter().map(|place| &self.asked[*place]);
        waits.find(|it| is_it(it)).map(|it| it.id)
    }

    /// Refuses whoever waits and is chosen.
    fn refuse(&mut self, is_it: impl Fn(&Asked) -> bool) {
        let (gone, queue) = self.queue.iter().partition(|place| is_it(&self.asked[**place]));
        self.queue = queue;
        let gone: Vec<usize> = gone;
        for place in gone {
            self.set(place, State::Refused { answered_at: self.now });
        }
        self.serve();
    }

    fn advance(&mut self, until: u64) {
        loop {
            let now = self.now;
            self.held = self.held.iter().copied().filter(|it| now < self.ends_at(*it)).collect();
            self.serve();
            let is_late = |it: &Asked| match it.now {
                State::Waits { deadline, .. } => deadline <= now,
                _ => false,
            };
            // One by one: whoever is served by that has come to it in time.
            while let Some(id) = self.first(is_late) {
                self.refuse(|it| it.id == id);
            }
            for (session, heard) in self.heard.clone() {
                if heard + 2 * SECOND <= now {
                    self.refuse(|it| it.owner == session);
                }
            }
            let ends = self.held.iter().map(|place| self.ends_at(*place));
            let waits = self.queue.iter().flat_map(|place| match &self.asked[*place] {
                Asked { now: State::Waits { deadline, .. }, owner, .. } => {
                    [*deadline, self.heard[owner] + 2 * SECOND]
                }
                other => panic!("{other:?} does not wait"),
            });
            let next = ends.chain(waits).filter(|at| *at > now).min().unwrap_or(until);
            self.now = next.min(until);
            if self.now == now {
                return;
            }
        }
    }

    fn ask(&mut self, place: usize) {
        let asked = &self.asked[place];
        if !self.is_behind(&self.queue, &asked.parts) && self.fits(&asked.parts) {
            self.grant(place);
        } else if let Some(patience) = asked.patience {
            let (since, deadline) = (self.now, self.now + patience);
            self.asked[place].now = State::Waits { since, deadline };
            self.queue.push(place);
        } else {
            self.set(place, State::Refused { answered_at: self.now });
        }
    }

    fn ask_again(&mut self, place: usize) {
        let answered_at = self.now;
        match self.asked[place].now {
            State::Granted { .. } if !self.held.contains(&place) => self.ask(place),
            State::Granted { granted_at, .. } => {
                self.set(place, State::Granted { answered_at, granted_at });
            }
            State::Refused { .. } => self.set(place, State::Refused { answered_at }),
            State::Waits { .. } | State::Cancelled => {}
        }
    }

    fn drop_all(&mut self, is_it: impl Fn(&Asked) -> bool) {
        let asked = &self.asked;
        self.queue.retain(|place| !is_it(&asked[*place]));
        self.held.retain(|place| !is_it(&asked[*place]));
        for asked in self.asked.iter_mut().filter(|it| is_it(it)) {
            asked.now = State::Cancelled;
        }
        self.serve();
    }

    /// Who holds and who waits for a key, in their order: who, the permits, since when, how long
    /// it lasts.
    fn rows(&self, key: usize, desk: &Desk) -> Vec<Row> {
        let row = |place: &usize| {
            let asked = &self.asked[*place];
            let (_, mode) = *asked.parts.iter().find(|(it, _)| *it == key)?;
            let (token, since, until) = match asked.now {
                State::Waits { since, deadline } => (None, since, deadline),
                State::Granted { granted_at, .. } => {
                    (Some(token(desk, asked)), granted_at, self.ends_at(*place))
                }
                _ => panic!("{asked:?} neither holds nor waits"),
            };
            Some((asked.owner, mode, token, self.now - since, until - self.now))
        };
        let mut held: Vec<Row> = self.held.iter().filter_map(row).collect();
        held.sort_by_key(|(_, _, token, ..)| *token);
        held.into_iter().chain(self.queue.iter().filter_map(row)).collect()
    }
}

type Row = (SessionId, Mode, Option<GrantId>, u64, u64);

fn token(desk: &Desk, asked: &Asked) -> GrantId {
    desk.answer(asked.owner, asked.id).and_then(|(_, reply)| reply.grant()).unwrap()
}

#[derive(Clone, Debug)]
enum Act {
    Lock(Parts, Term, Option<u64>),
    Again(Index),
    Release(Index),
    Cancel(Index),
    Beat,
    Bye,
}

fn act() -> impl Strategy<Value = Act> {
    let semaphore = (1..4_u64).prop_map(|cost| permits(3, cost));
    let rw_lock = prop_oneof![3 => Just(Mode::Read), 1 => Just(Mode::Write)];
    let modes = (Just(Mode::Exclusive), Just(Mode::Exclusive), rw_lock, semaphore);
    let parts = (modes, prop::sample::subsequence(vec![0, 1, 2, 3], 1..3)).prop_map(
        |((m, n, r, s), keys)| {
            let modes = [m, n, r, s];
            keys.into_iter().map(|key| (key, modes[key])).collect::<Parts>()
        },
    );
    let ttl = prop_oneof![Just(SECOND), SECOND / 10..4 * SECOND];
    let term = (ttl, 0..5_u64).prop_map(|(ttl, times)| {
        let most = (1..3).contains(&times).then(|| Duration::from_nanos(ttl * times));
        Term::new(Duration::from_nanos(ttl), most).unwrap()
    });
    let patience = prop_oneof![1 => Just(None), 3 => (1..9 * SECOND).prop_map(Some)];
    prop_oneof![
        8 => (parts, term, patience).prop_map(|(parts, term, wait)| Act::Lock(parts, term, wait)),
        1 => any::<Index>().prop_map(Act::Again),
        3 => any::<Index>().prop_map(Act::Release),
        1 => any::<Index>().prop_map(Act::Cancel),
        6 => Just(Act::Beat),
        1 => Just(Act::Bye),
    ]
}

fn request(asked: &Asked) -> Request<'static> {
    let parts: Vec<_> = asked.parts.iter().map(|(key, mode)| (KEYS[*key].0, *mode)).collect();
    locks::lock(&parts, asked.patience, asked.term, 0)
}

/// The request that is meant, if there is one.
fn pick(model: &Model, which: Index) -> Option<usize> {
    (!model.asked.is_empty()).then(|| which.index(model.asked.len()))
}

/// Does one thing at both. What a release hears, if it is one, and ought to hear.
fn perform(desk: &mut Desk, model: &mut Model, owner: SessionId, act: &Act) -> [Option<Code>; 2] {
    model.heard.insert(owner, model.now);
    match act {
        Act::Lock(parts, term, patience) => {
            let (id, now) = (RequestId(desk.last_request + 1), State::Cancelled);
            let (parts, term, patience) = (parts.clone(), *term, *patience);
            let asked = Asked { id, owner, parts, term, patience, now, answers: 0 };
            desk.send(owner, &request(&asked));
            model.asked.push(asked);
            model.ask(model.asked.len() - 1);
        }
        Act::Again(which) => {
            if let Some(place) = pick(model, *which).filter(|it| model.asked[*it].owner == owner) {
                let asked = model.asked[place].clone();
                desk.handle(Input::Ask(owner, asked.id, &request(&asked)));
                model.ask_again(place);
            }
        }
        Act::Release(which) => {
            let granted = |it: &usize| matches!(model.asked[*it].now, State::Granted { .. });
            if let Some(place) = pick(model, *which).filter(granted) {
                let grant = token(desk, &model.asked[place]);
                let heard = desk.release(owner, grant);
                let is_held = model.held.contains(&place) && model.asked[place].owner == owner;
                if is_held {
                    model.held.retain(|it| *it != place);
                    model.serve();
                }
                return [heard, (!is_held).then_some(Code::NotHeld)];
            }
        }
        Act::Cancel(which) => {
            if let Some(place) = pick(model, *which).filter(|it| model.asked[*it].owner == owner) {
                let id = model.asked[place].id;
                desk.handle(Input::Cancel(owner, id));
                model.drop_all(|it| it.id == id);
            }
        }
        Act::Beat => {}
        Act::Bye => {
            desk.handle(Input::Bye(owner));
            model.drop_all(|it| it.owner == owner);
        }
    }
    // Whatever was done or was not, its session was heard.
    desk.handle(Input::Beat(owner, RequestId(0), &[]));
    [None; 2]
}

fn rows_of(desk: &mut Desk, operator: SessionId) -> BTreeMap<Box<str>, Vec<Row>> {
    let mut rows: BTreeMap<Box<str>, Vec<Row>> = BTreeMap::new();
    let nanos = |length: Duration| u64::try_from(length.as_nanos()).unwrap();
    for row in desk.rows(operator) {
        let (since, left) = (nanos(row.since), nanos(row.left));
        let session = row.session.unwrap();
        rows.entry(row.key).or_default().push((session, row.mode, row.grant, since, left));
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn locks_are_held_in_turn_and_no_longer_and_no_shorter_than_a_naive_model_says(
        steps in vec((prop_oneof![2 => Just(0), 5 => 0..SECOND / 2, 1 => 0..3 * SECOND / 2],
            0..3_usize, act()), 1..40),
    ) {
        let mut desk = Desk::new(&[], &[]);
        let mut sessions = [1, 2, 3].map(|name| desk.greet(name));
        let operator = desk.greet(9);
        let mut model = Model { now: desk.now, ..Model::default() };
        model.heard.extend(sessions.map(|session| (session, desk.now)));
        for (gap, who, act) in steps {
            desk.advance(gap);
            model.advance(desk.now);
            let [heard, expected] = perform(&mut desk, &mut model, sessions[who], &act);
            prop_assert_eq!(heard, expected);
            if matches!(act, Act::Bye) {
                sessions[who] = desk.greet(u8::try_from(who).unwrap() + 1);
                model.heard.insert(sessions[who], desk.now);
            }
            let rows = rows_of(&mut desk, operator);
            for (key, (name, _)) in KEYS.iter().enumerate() {
                let seen = rows.get(*name).map_or(&[][..], Vec::as_slice);
                prop_assert_eq!(seen, model.rows(key, &desk), "{}", name);
            }
        }
        desk.advance(12 * SECOND);
        model.advance(desk.now);
        for asked in &model.asked {
            prop_assert_eq!(desk.answers(asked.owner, asked.id), asked.answers);
            let seen = desk.granted(asked.owner, asked.id);
            match asked.now {
                State::Waits { .. } => panic!("{asked:?} waits for ever"),
                State::Granted { answered_at, .. } => {
                    prop_assert_eq!(seen, Some((answered_at, true)));
                }
                State::Refused { answered_at } => {
                    prop_assert_eq!(seen, Some((answered_at, false)));
                }
                State::Cancelled => {}
            }
        }
        let tokens = desk.heard.iter().filter_map(|(_, output)| match output {
            Output::Reply { reply: Reply::Decision(it), .. } => it.grant,
            _ => None,
        });
        let mut last = GrantId(0);
        let mut seen = BTreeSet::new();
        for token in tokens.filter(|token| seen.insert(*token)) {
            prop_assert!(last < token);
            last = token;
        }
    }
}

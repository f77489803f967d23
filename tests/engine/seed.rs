//! The seed's clients against naive models: its code, and a patience that tries out the future.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::answer::Answer::{self, Go, Sorry};
use zmqlocker::engine::{Bounds, Input, Machine, Output};
use zmqlocker::time::Timestamp;

use crate::{SECOND, rules};

/// An answer to one of the seed's clients.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reply {
    to: usize,
    answer: Answer,
}

fn poll(machine: &mut Machine<usize>) -> Option<Reply> {
    machine.poll_output().map(|output| match output {
        Output::Seed { to, answer: Ok(answer) } => Reply { to, answer },
        other => panic!("{other:?}"),
    })
}

/// The class `Locker` of the first design, line by line, with the instant as an argument.
#[derive(Clone, Debug)]
struct Seed {
    max_requests: u64,
    in_seconds: u64,
    requests: u64,
    next_slot: u64,
}

impl Seed {
    fn new(now: u64, max_requests: u64, in_seconds: u64) -> Self {
        Self { max_requests, in_seconds, requests: 0, next_slot: now + in_seconds }
    }

    fn next(&mut self, now: u64) -> Answer {
        if now > self.next_slot {
            self.requests = 0;
            self.next_slot = now + self.in_seconds;
        }
        if self.requests < self.max_requests {
            self.requests += 1;
            return Go;
        }
        Sorry
    }

    /// The first instant from `now` on at which a request would hear "go"; makes that request.
    fn first_go(&mut self, now: u64) -> u64 {
        if self.next(now) == Go {
            return now;
        }
        let at = self.next_slot + 1;
        assert_eq!(self.next(at), Go);
        at
    }
}

/// A machine and the instants at which it was asked.
fn machine(max_requests: u64, patience: u64, waiters_max: usize) -> Machine<usize> {
    let rules = rules(&[], &[&format!("{max_requests}/s")]);
    let bounds = Bounds { waiters_max, ..Bounds::default() };
    Machine::new(Timestamp::ZERO, rules, Duration::from_nanos(patience), bounds)
}

/// Every answer that the machine gives, with its instant, when the clock stops wherever the machine
/// wants to see the time.
fn run(machine: &mut Machine<usize>, requests: &[u64]) -> Vec<(u64, Reply)> {
    let mut heard = Vec::new();
    let mut handle = |machine: &mut Machine<usize>, now: u64, input| {
        machine.handle(Timestamp::from_nanos(now), input);
        heard.extend(std::iter::from_fn(|| poll(machine)).map(|reply| (now, reply)));
    };
    for (request, at) in requests.iter().enumerate() {
        while let Some(due) = machine.poll_timeout().filter(|due| due.as_nanos() <= *at) {
            handle(machine, due.as_nanos(), Input::Tick);
        }
        handle(machine, *at, Input::Next(request));
    }
    while let Some(due) = machine.poll_timeout() {
        handle(machine, due.as_nanos(), Input::Tick);
    }
    heard
}

/// Instants in their order; many of them at the borders of slots of a second.
fn instants() -> impl Strategy<Value = Vec<u64>> {
    let gap = prop_oneof![
        Just(0),
        Just(1),
        Just(SECOND),
        Just(SECOND + 1),
        Just(SECOND - 1),
        0..SECOND / 4,
        0..3 * SECOND,
    ];
    vec(gap, 0..60).prop_map(|gaps| {
        let add = |now: &mut u64, gap| {
            *now += gap;
            Some(*now)
        };
        gaps.into_iter().scan(0, add).collect()
    })
}

proptest! {
    #[test]
    fn for_the_same_instants_the_same_answers_as_the_seed(
        requests in instants(),
        max_requests in 1..8_u64,
    ) {
        let mut seed = Seed::new(0, max_requests, SECOND);
        let expected: Vec<_> = requests.iter().map(|at| seed.next(*at)).collect();
        let heard = run(&mut machine(max_requests, 0, 0), &requests);
        prop_assert_eq!(heard.iter().map(|(_, reply)| reply.answer).collect::<Vec<_>>(), expected);
        prop_assert!(heard.iter().zip(&requests).all(|((at, _), asked)| at == asked));
    }

    #[test]
    fn a_request_waits_exactly_where_trying_out_the_future_finds_its_permit_near(
        requests in instants(),
        max_requests in 1..5_u64,
        patience in 0..4 * SECOND,
    ) {
        // The model keeps the counter as it will be when all who wait have been served.
        let mut future = Seed::new(0, max_requests, SECOND);
        let mut last_served = 0;
        let mut expected = Vec::new();
        for (request, asked) in requests.iter().enumerate() {
            let mut tried = future.clone();
            let served = tried.first_go(last_served.max(*asked));
            if served <= asked + patience {
                (future, last_served) = (tried, served);
                expected.push((served, request, Go));
            } else {
                expected.push((*asked, request, Sorry));
            }
        }
        let mut heard: Vec<_> = run(&mut machine(max_requests, patience, usize::MAX), &requests)
            .into_iter()
            .map(|(at, reply)| (at, reply.to, reply.answer))
            .collect();
        heard.sort_by_key(|(_, request, _)| *request);
        prop_assert_eq!(heard, expected);
    }

    #[test]
    fn whoever_waits_is_answered_once_and_in_order_and_within_patience(
        requests in instants(),
        max_requests in 1..5_u64,
        patience in 0..4 * SECOND,
        waiters_max in 0..6_usize,
    ) {
        let heard = run(&mut machine(max_requests, patience, waiters_max), &requests);
        let mut answered: Vec<_> = heard.iter().map(|(_, reply)| reply.to).collect();
        answered.sort_unstable();
        prop_assert_eq!(answered, (0..requests.len()).collect::<Vec<_>>());
        let go = heard.iter().filter(|(_, reply)| reply.answer == Go);
        let served: Vec<_> = go.map(|(_, reply)| reply.to).collect();
        prop_assert!(served.is_sorted());
        for (at, reply) in &heard {
            prop_assert!(*at <= requests[reply.to] + patience);
        }
    }

    #[test]
    fn a_clock_that_is_looked_at_late_never_opens_the_gate_wider(
        requests in instants(),
        max_requests in 1..5_u64,
        patience in 0..4 * SECOND,
    ) {
        // No ticks at all: the machine sees the time only when somebody asks.
        let mut late = machine(max_requests, patience, usize::MAX);
        let mut seed = Seed::new(0, max_requests, SECOND);
        for (request, at) in requests.iter().enumerate() {
            late.handle(Timestamp::from_nanos(*at), Input::Next(request));
            for reply in std::iter::from_fn(|| poll(&mut late)) {
                if reply.answer == Go {
                    prop_assert_eq!(seed.next(*at), Go);
                } else {
                    prop_assert!(reply.to == request || requests[reply.to] + patience <= *at);
                }
            }
        }
    }
}

#[test]
fn patience_that_just_reaches_the_slot_is_enough() {
    for (patience, answered) in [(SECOND + 1, (SECOND + 1, Go)), (SECOND, (0, Sorry))] {
        let heard = run(&mut machine(1, patience, usize::MAX), &[0, 0]);
        assert_eq!(heard.last().map(|(at, reply)| (*at, reply.answer)), Some(answered));
    }
}

#[test]
fn one_waiter_more_than_may_wait_is_refused_at_once() {
    let mut machine = machine(1, 10 * SECOND, 2);
    let heard = run(&mut machine, &[0, 1, 2, 3]);
    let answers: Vec<_> =
        heard.into_iter().map(|(at, reply)| (at, reply.to, reply.answer)).collect();
    assert_eq!(answers, [(0, 0, Go), (3, 3, Sorry), (SECOND + 1, 1, Go), (2 * SECOND + 2, 2, Go)]);
}

#[test]
fn who_finds_a_slot_opened_late_hears_sorry_at_the_deadline() {
    let mut machine = machine(1, 2 * SECOND + SECOND / 2, usize::MAX);
    for (at, request) in [(0, 0), (1, 1), (2, 2)] {
        machine.handle(Timestamp::from_nanos(at), Input::Next(request));
        let _ = poll(&mut machine);
    }
    // The second slot was to open at 1 s, and opens at 2.2 s: the third is beyond patience now.
    machine.handle(Timestamp::from_nanos(2 * SECOND + SECOND / 5), Input::Tick);
    assert_eq!(poll(&mut machine), Some(Reply { to: 1, answer: Go }));
    assert_eq!(poll(&mut machine), None);
    let due = machine.poll_timeout().unwrap();
    assert_eq!(due, Timestamp::from_nanos(2 + 2 * SECOND + SECOND / 2));
    machine.handle(due, Input::Tick);
    assert_eq!(poll(&mut machine), Some(Reply { to: 2, answer: Sorry }));
}

#[test]
fn the_end_of_the_service_answers_whoever_waits() {
    let mut machine = machine(1, 10 * SECOND, usize::MAX);
    for request in 0..3 {
        machine.handle(Timestamp::ZERO, Input::Next(request));
        while poll(&mut machine).is_some() {}
    }
    machine.handle(Timestamp::ZERO, Input::Close);
    let heard: Vec<_> = std::iter::from_fn(|| poll(&mut machine)).collect();
    assert_eq!(heard, [1, 2].map(|to| Reply { to, answer: Sorry }));
    assert_eq!((machine.tally().waiting, machine.poll_timeout()), (0, None));
}

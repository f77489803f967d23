//! Keys of several partitions in one request: one partition after the other, all or nothing.

use std::time::Duration;

use zmqlocker::cluster::{Partition, PartitionMap};
use zmqlocker::conversation::{Input, Outcome};
use zmqlocker::engine::{
    Code, Cost, Decision, Demand, GrantId, Hold, Key, LockRequest, Locks, Mode, Problem, Reply,
    Request, Term, Wait,
};
use zmqlocker::wire::homes::{HomeMap, HomeServer};
use zmqlocker::wire::reply::encode_lost;

use crate::{A, B, Item, Side, yes};

/// The names of keys, in the order of the requests: the partitions are 34, 11 and 54.
const KEYS: [&str; 3] = ["a", "b", "tenant:7"];

/// A is home of what is above partition 20, B of the others.
pub fn map() -> HomeMap {
    let server =
        |name: &str| HomeServer { name: name.into(), url: format!("tcp://{name}:7777").into() };
    let below = |partition| Partition::all().take(20).any(|it| it == partition);
    let homes = PartitionMap::from_fn(|partition| Some(usize::from(below(partition))));
    HomeMap { epoch: 1, me: None, servers: vec![server("a"), server("b")], homes }
}

fn key(name: &str) -> Key<'_> {
    Key::parse(name).unwrap()
}

fn locks(wait: Wait) -> Request<'static> {
    let locks = Locks::new(KEYS[..2].iter().map(|name| (key(name), Mode::Exclusive))).unwrap();
    let term = Term::new(Duration::from_secs(10), None).unwrap();
    Request::Lock { wanted: LockRequest { locks, term, actor: 7 }, wait }
}

fn permits(hold: Hold) -> Request<'static> {
    let costs = (1..).map(|cost| Cost::new(cost).unwrap());
    let demand = Demand::new(KEYS.iter().map(|name| key(name)).zip(costs)).unwrap();
    Request::Acquire { demand, wait: Wait::No, hold }
}

fn left(grant: u64, remaining: u64) -> Reply {
    let Reply::Decision(decision) = yes(Some(grant)) else { unreachable!() };
    Reply::Decision(Decision { remaining, ..decision })
}

fn no() -> Reply {
    let Reply::Decision(decision) = yes(None) else { unreachable!() };
    Reply::Decision(Decision { allowed: false, ..decision })
}

/// A client that knows who is home.
pub fn knowing() -> Side {
    let mut side = Side::new(2);
    for (link, name) in [(A, "a"), (B, "b")] {
        let me = map().servers.iter().position(|server| &*server.name == name);
        let map = HomeMap { me, ..map() };
        side.hear(link, |body| zmqlocker::wire::reply::encode_homes(body, &map));
        side.welcome(link, 100 + link.0 as u64);
    }
    side.drain();
    side
}

impl Side {
    /// What is said now, beside hellos and beats, with the place of the link.
    pub fn tells(&mut self) -> Vec<(usize, Item)> {
        let is_said = |item: &Item| !matches!(item, Item::Hello | Item::Beat { .. });
        let of = |(link, items): (zmqlocker::asking::LinkId, Vec<Item>)| {
            items.into_iter().filter(is_said).map(move |item| (link.0, item))
        };
        self.drain().into_iter().flat_map(of).collect()
    }

    /// The number of the one request that goes out now, and the place of its link.
    pub fn one_ask(&mut self) -> (usize, u64) {
        match self.tells()[..] {
            [(link, Item::Ask(id))] => (link, id),
            ref other => panic!("{other:?}"),
        }
    }

    /// What the only request has ended with.
    fn decided(&mut self, id: u64) -> Decision {
        match &self.outcomes()[..] {
            [(ended, Outcome::Reply(_, Reply::Decision(decision)))] if *ended == id => {
                decision.clone()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Locks are granted: that of "b" by B as 7, that of "a" by A as 9.
    fn locked(&mut self) {
        let id = self.ask(&locks(Wait::No), None);
        for (place, link, grant) in [(1, B, 7), (0, A, 9)] {
            let (asked, part) = self.one_ask();
            assert_eq!(asked, place);
            self.answer(link, part, &yes(Some(grant)));
        }
        assert_eq!(self.tells(), []);
        assert_eq!(self.decided(id).grant, Some(GrantId(7)));
    }

    fn is_held(&self) -> bool {
        self.conversation.lease_valid_until(self.now, B, GrantId(7)).is_some()
    }
}

#[test]
fn locks_are_taken_in_the_order_of_their_partitions_and_given_back_together() {
    let mut side = knowing();
    side.locked();
    assert!(side.is_held());
    // Each key has the token of its own home.
    assert_eq!(side.conversation.grants_of(GrantId(7)), [GrantId(9), GrantId(7)]);
    side.conversation.release(side.now, B, GrantId(7));
    let said = side.tells();
    assert!(matches!(said[..], [(0, Item::Release { .. }), (1, Item::Release { .. })]), "{said:?}");
    assert!(!side.is_held());
    assert_eq!(side.conversation.grants_of(GrantId(7)), []);
    assert_eq!(side.advance(1_000), []);
}

#[test]
fn whoever_waits_for_the_answer_to_a_release_gives_all_parts_back() {
    let mut side = knowing();
    side.locked();
    side.conversation.ask(side.now, Some(&Request::Release { grant: GrantId(7) }), Some(B), None);
    let said = side.tells();
    assert!(matches!(said[..], [(0, Item::Release { .. }), (1, Item::Release { .. })]), "{said:?}");
}

#[test]
fn one_part_that_is_lost_is_the_loss_of_all() {
    for (link, grant) in [(B, 7), (A, 9)] {
        let mut side = knowing();
        side.locked();
        side.hear(link, |body| encode_lost(body, &[GrantId(grant)]));
        assert!(side.conversation.take_lost());
        assert!(!side.is_held());
    }
}

#[test]
fn where_one_part_is_refused_the_others_are_given_back() {
    let mut side = knowing();
    let id = side.ask(&locks(Wait::No), None);
    let (_, part) = side.one_ask();
    side.answer(B, part, &yes(Some(7)));
    let (_, part) = side.one_ask();
    side.answer(A, part, &no());
    assert!(matches!(side.tells()[..], [(1, Item::Release { grant: 7, .. })]));
    let decision = side.decided(id);
    assert_eq!((decision.allowed, decision.grant), (false, None));
}

#[test]
fn permits_are_reserved_until_all_are_there_and_spent_then() {
    let mut side = knowing();
    let id = side.ask(&permits(Hold::Spend), None);
    let mut asked = Vec::new();
    for (link, grant, remaining) in [(B, 7, 3), (A, 8, 1), (A, 9, 2)] {
        let (place, part) = side.one_ask();
        asked.push(place);
        side.answer(link, part, &left(grant, remaining));
    }
    assert_eq!(asked, [1, 0, 0]);
    let commit = |link, grant, cost| (link, Item::Commit { grant, spent: vec![cost] });
    assert_eq!(side.tells(), [commit(0, 8, 1), commit(0, 9, 3), commit(1, 7, 2)]);
    // It is told of the key that has the fewest left, which is the first of the request.
    let decision = side.decided(id);
    assert_eq!((decision.allowed, decision.remaining, decision.key), (true, 1, 0));
    assert_eq!(decision.grant, None);
}

#[test]
fn permits_of_which_one_is_refused_are_not_spent() {
    let mut side = knowing();
    let id = side.ask(&permits(Hold::Spend), None);
    for grant in [7, 8] {
        let (place, part) = side.one_ask();
        side.answer([A, B][place], part, &left(grant, 5));
    }
    let (_, part) = side.one_ask();
    side.answer(A, part, &no());
    let commit = |link, grant| (link, Item::Commit { grant, spent: vec![0] });
    assert_eq!(side.tells(), [commit(0, 8), commit(1, 7)]);
    let decision = side.decided(id);
    assert_eq!((decision.allowed, decision.key), (false, 2));
}

#[test]
fn a_reservation_is_settled_with_each_of_its_homes() {
    let mut side = knowing();
    side.ask(&permits(Hold::Reserve), None);
    for grant in [7, 8, 9] {
        let (place, part) = side.one_ask();
        side.answer([A, B][place], part, &left(grant, 5));
    }
    assert_eq!(side.tells(), []);
    let commit = Request::Commit { grant: GrantId(7), spent: [1, 0, 2].into_iter().collect() };
    side.conversation.ask(side.now, Some(&commit), Some(B), None);
    let commit = |link, grant, spent| (link, Item::Commit { grant, spent: vec![spent] });
    assert_eq!(side.tells(), [commit(0, 8, 1), commit(0, 9, 2), commit(1, 7, 0)]);
}

#[test]
fn whoever_gives_up_between_two_parts_holds_nothing() {
    let wait = Wait::UpTo(Duration::from_secs(5));
    for is_late in [false, true] {
        let mut side = knowing();
        let id = side.ask(&locks(wait), Some(5_000));
        let (_, part) = side.one_ask();
        side.answer(B, part, &yes(Some(7)));
        let (_, part) = side.one_ask();
        side.answer(A, part, &crate::QUEUED);
        if is_late {
            side.advance(6_000);
            assert_eq!(side.outcomes(), [(id, Outcome::Late)]);
        } else {
            side.conversation.forget(side.now, zmqlocker::engine::RequestId(id));
            let said = side.tells();
            assert!(said.contains(&(0, Item::Cancel(part))), "{said:?}");
            assert!(said.iter().any(|it| matches!(it, (1, Item::Release { grant: 7, .. }))));
            assert_eq!(side.outcomes(), []);
        }
        assert!(!side.is_held());
        assert!(side.conversation.is_idle());
    }
}

#[test]
fn whoever_loses_a_part_while_it_waits_for_another_one_begins_anew() {
    let mut side = knowing();
    let id = side.ask(&locks(Wait::UpTo(Duration::from_secs(60))), None);
    let (_, part) = side.one_ask();
    side.answer(B, part, &yes(Some(7)));
    let (_, part) = side.one_ask();
    side.answer(A, part, &crate::QUEUED);
    side.hear(B, |body| encode_lost(body, &[GrantId(7)]));
    side.tells();
    side.answer(A, part, &yes(Some(9)));
    let said = side.tells();
    let [(0, Item::Release { grant: 9, .. }), (1, Item::Ask(part))] = said[..] else {
        panic!("{said:?}")
    };
    side.answer(B, part, &yes(Some(17)));
    let (_, part) = side.one_ask();
    side.answer(A, part, &yes(Some(19)));
    side.tells();
    assert_eq!(side.decided(id).grant, Some(GrantId(17)));
    assert_eq!(side.conversation.grants_of(GrantId(17)), [GrantId(19), GrantId(17)]);
}

#[test]
fn a_request_is_parted_once_it_is_known_that_servers_share_the_keys() {
    let mut side = Side::new(2);
    let id = side.ask(&locks(Wait::No), None);
    let (_, whole) = side.one_ask();
    assert_eq!(whole, id);
    let map = HomeMap { me: Some(0), ..map() };
    side.hear(A, |body| zmqlocker::wire::reply::encode_homes(body, &map));
    let problem = Problem { code: Code::NotHome, message: "of several".to_owned() };
    side.answer(A, id, &Reply::Refuse(problem));
    side.hear(B, |body| {
        zmqlocker::wire::reply::encode_homes(body, &HomeMap { me: Some(1), ..map.clone() });
    });
    let mut answered = Vec::new();
    for _ in 0..2 {
        let asks: Vec<_> = side.tells().into_iter().collect();
        let [(link, Item::Ask(part))] = asks[..] else { panic!("{asks:?}") };
        answered.push(link);
        side.answer([A, B][link], part, &yes(Some(7 + link as u64)));
    }
    side.tells();
    assert!(side.decided(id).allowed);
    assert_eq!(answered.len(), 2);
}

#[test]
fn a_part_whose_home_goes_is_kept_by_the_next_one() {
    let mut side = knowing();
    side.locked();
    side.handle(&Input::Down(B));
    let said = side.tells();
    let [(0, Item::Reclaim { id, grant: 7 })] = said[..] else { panic!("{said:?}") };
    let homes = PartitionMap::from_fn(|_| Some(0));
    let map = HomeMap { epoch: 2, me: Some(0), homes, ..map() };
    side.hear(A, |body| zmqlocker::wire::reply::encode_homes(body, &map));
    side.answer(A, id, &Reply::Done);
    side.advance(3_000);
    assert!(side.is_held());
    side.conversation.release(side.now, B, GrantId(7));
    let said = side.tells();
    assert!(said.iter().all(|(link, _)| *link == 0));
    assert_eq!(said.iter().filter(|(_, it)| matches!(it, Item::Release { .. })).count(), 2);
}

//! Servers that share the keys: each request reaches the home of its key, once, and leases follow.

use std::time::Duration;

use zmqlocker::asking::LinkId;
use zmqlocker::cluster::{Partition, PartitionMap};
use zmqlocker::conversation::{Input, Outcome};
use zmqlocker::engine::{Code, GrantId, Key, Problem, Reply, Request, RequestId};
use zmqlocker::wire::homes::{HomeMap, HomeServer};
use zmqlocker::wire::reply::{encode_homes, encode_moved, encode_reply, encode_welcome};

use crate::locks::now;
use crate::{A, B, Item, Side, spend, yes};

/// As `me` of two servers sees it, `home` is home of all keys.
fn map(epoch: u64, me: usize, home: Option<usize>) -> HomeMap {
    let server =
        |name: &str| HomeServer { name: name.into(), url: format!("tcp://{name}:7777").into() };
    let homes = PartitionMap::from_fn(|_| home);
    HomeMap { epoch, me: Some(me), servers: vec![server("a"), server("b")], homes }
}

impl Side {
    /// A server is met that knows who is home.
    fn meet(&mut self, link: LinkId, map: &HomeMap) {
        self.hear(link, |body| {
            encode_homes(body, map);
            encode_welcome(body, 100 + link.0 as u64, Duration::ZERO);
        });
    }

    fn turn_away(&mut self, link: LinkId, id: u64) {
        let problem = Problem { code: Code::NotHome, message: "ask there".to_owned() };
        self.hear(link, |body| encode_reply(body, RequestId(id), &Reply::Refuse(problem)));
    }

    fn answer_done(&mut self, link: LinkId, id: u64) {
        self.hear(link, |body| encode_reply(body, RequestId(id), &Reply::Done));
    }

    /// The requests that have ended, with what is said at that.
    fn ended(&mut self) -> Vec<(u64, Outcome)> {
        self.drain();
        self.outcomes()
    }

    fn tell(&mut self, link: LinkId, map: &HomeMap) {
        self.hear(link, |body| encode_homes(body, map));
    }

    /// A lock is granted by a server, for 10 s.
    fn lock_from(&mut self, link: LinkId, grant: GrantId) {
        let id = self.ask(&now(10_000, None), None);
        assert_eq!(self.asked(), [(link, id)]);
        self.answer(link, id, &yes(Some(grant.0)));
    }

    fn valid_for(&self, link: LinkId, grant: GrantId) -> Option<Duration> {
        let until = self.conversation.lease_valid_until(self.now, link, grant);
        until.map(|until| until.since(self.now))
    }

    /// To whom requests go out now.
    fn asked(&mut self) -> Vec<(LinkId, u64)> {
        let ids = |(link, items): (LinkId, Vec<Item>)| {
            items.into_iter().filter_map(move |item| match item {
                Item::Ask(id) | Item::Reclaim { id, .. } => Some((link, id)),
                _ => None,
            })
        };
        self.drain().into_iter().flat_map(ids).collect()
    }

    /// To whom leases are given back now.
    fn released(&mut self) -> Vec<(LinkId, u64)> {
        let ids = |(link, items): (LinkId, Vec<Item>)| {
            items.into_iter().filter_map(move |item| match item {
                Item::Release { id, .. } => Some((link, id)),
                _ => None,
            })
        };
        self.drain().into_iter().flat_map(ids).collect()
    }

    /// To whom they go out in the time to come.
    fn asked_within(&mut self, millis: u64) -> Vec<(u64, LinkId)> {
        let is_ask = |item: &Item| matches!(item, Item::Ask(_) | Item::Reclaim { .. });
        let mut said = self.advance(millis);
        said.retain(|(.., items)| items.iter().any(is_ask));
        said.into_iter().map(|(at, link, _)| (at, link)).collect()
    }
}

/// A client that knows two servers, of which A is home of everything.
fn homes_at_a() -> Side {
    let mut side = Side::new(2);
    side.meet(A, &map(1, 0, Some(0)));
    side.meet(B, &map(1, 1, Some(0)));
    side.drain();
    side
}

/// The same, and it holds a lock that A has granted.
fn holding_at_a() -> (Side, GrantId) {
    let (mut side, grant) = (homes_at_a(), GrantId(5));
    side.lock_from(A, grant);
    side.drain();
    (side, grant)
}

#[test]
fn a_request_that_comes_to_the_wrong_server_is_asked_at_the_home_under_its_number() {
    let mut side = Side::new(2);
    let id = side.ask(&spend(), Some(10_000));
    assert_eq!(side.asked(), [(A, id)]);
    side.meet(A, &map(1, 0, Some(1)));
    side.meet(B, &map(1, 1, Some(1)));
    side.turn_away(A, id);
    assert_eq!(side.asked(), [(B, id)]);
    side.answer_done(B, id);
    assert_eq!(side.ended(), [(id, Outcome::Reply(B, Reply::Done))]);
    // From now on the home is asked at once.
    for _ in 0..3 {
        let id = side.ask(&spend(), Some(10_000));
        assert_eq!(side.asked(), [(B, id)]);
        side.answer_done(B, id);
    }
}

#[test]
fn a_home_that_was_not_named_is_connected_to() {
    let mut side = Side::new(1);
    let id = side.ask(&spend(), Some(10_000));
    assert_eq!(side.asked(), [(A, id)]);
    side.meet(A, &map(1, 0, Some(1)));
    side.turn_away(A, id);
    assert_eq!(side.asked(), []);
    assert_eq!(side.opened, [(B, "tcp://b:7777".into())]);
    side.handle(&Input::Up(B));
    assert_eq!(side.asked(), [(B, id)]);
    side.answer_done(B, id);
    assert_eq!(side.ended().len(), 1);
    // It is connected to once.
    side.tell(A, &map(2, 0, Some(1)));
    side.ask(&spend(), Some(10_000));
    side.drain();
    assert_eq!(side.opened.len(), 1);
}

#[test]
fn where_nobody_is_home_it_is_asked_again_after_a_pause_until_the_time_of_the_caller_is_over() {
    let mut side = Side::new(2);
    side.meet(A, &map(1, 0, None));
    side.meet(B, &map(1, 1, None));
    side.drain();
    let id = side.ask(&spend(), Some(100));
    let mut asks = 0;
    while side.finished.is_empty() {
        for (link, asked) in side.asked() {
            asks += 1;
            assert_eq!(asked, id);
            side.turn_away(link, id);
        }
        side.now = side.now + Duration::from_millis(1);
        side.handle(&Input::Tick);
    }
    let Outcome::Reply(_, Reply::Refuse(problem)) = &side.finished[0].1 else { panic!() };
    assert_eq!(problem.code, Code::NotHome);
    assert!((3..=6).contains(&asks), "{asks} in 100 ms");
}

#[test]
fn when_the_home_is_gone_another_server_is_asked_who_it_is() {
    let mut side = homes_at_a();
    let id = side.ask(&spend(), Some(10_000));
    assert_eq!(side.asked(), [(A, id)]);
    side.handle(&Input::Down(A));
    assert_eq!(side.asked(), [(B, id)]);
    side.turn_away(B, id);
    assert_eq!(side.asked_within(30), [(20, B)]);
    side.tell(B, &map(2, 1, Some(1)));
    side.answer_done(B, id);
    assert_eq!(side.ended(), [(id, Outcome::Reply(B, Reply::Done))]);
}

#[test]
fn an_old_map_changes_nothing() {
    let mut side = Side::new(2);
    side.meet(A, &map(7, 0, Some(0)));
    side.meet(B, &map(6, 1, Some(1)));
    side.drain();
    let id = side.ask(&spend(), Some(10_000));
    assert_eq!(side.asked(), [(A, id)]);
}

#[test]
fn a_lease_that_has_moved_is_reclaimed_at_its_home_and_is_the_same_for_its_holder() {
    let (mut side, grant) = holding_at_a();
    side.hear(A, |body| encode_moved(body, &[grant]));
    let reclaim = side.asked();
    assert!(matches!(reclaim[..], [(A, _)]), "the map says so still");
    side.turn_away(A, reclaim[0].1);
    side.tell(B, &map(2, 1, Some(1)));
    assert_eq!(side.asked_within(30), [(20, B)]);
    let before = side.valid_for(A, grant).unwrap();
    side.answer_done(B, reclaim[0].1);
    assert!(side.valid_for(A, grant).unwrap() > before);
    // Beats go where the lease is, and a release as well.
    assert!(side.advance(1_000).iter().all(|(_, link, _)| *link == B));
    side.conversation.release(side.now, A, grant);
    let said = side.drain();
    assert!(matches!(&said[..], [(B, items)] if matches!(items[..], [Item::Release { .. }])));
    assert_eq!(side.valid_for(A, grant), None);
}

#[test]
fn a_permit_that_has_moved_is_reclaimed_as_a_lock_is() {
    let (mut side, grant) = (homes_at_a(), GrantId(5));
    let id = side.ask(&crate::lease(10_000), None);
    assert_eq!(side.asked(), [(A, id)]);
    side.answer(A, id, &yes(Some(grant.0)));
    side.drain();
    side.handle(&Input::Down(A));
    let reclaim = side.asked();
    assert!(matches!(reclaim[..], [(B, _)]));
    side.tell(B, &map(2, 1, Some(1)));
    side.answer_done(B, reclaim[0].1);
    side.advance(3_000);
    assert!(side.valid_for(A, grant).is_some());
    side.conversation.release(side.now, A, grant);
    assert!(matches!(side.released()[..], [(B, _)]));
}

#[test]
fn a_lease_that_moves_while_it_is_given_back_is_given_back_at_its_home() {
    // As an errand, by a caller that waits for the answer, and while it is being reclaimed.
    for way in 0..3 {
        let (mut side, grant) = holding_at_a();
        if way == 2 {
            side.hear(A, |body| encode_moved(body, &[grant]));
            side.drain();
        }
        if way == 1 {
            let (release, deadline) =
                (Request::Release { grant }, side.now + Duration::from_secs(9));
            side.conversation.ask(side.now, Some(&release), Some(A), Some(deadline));
        } else {
            side.conversation.release(side.now, A, grant);
        }
        let mut asked = side.released();
        let mut times = 0;
        while let [(A, id)] = asked[..] {
            times += 1;
            assert!(times < 4, "way {way}");
            side.turn_away(A, id);
            if times == 2 {
                side.tell(B, &map(2, 1, Some(1)));
            }
            side.now = side.now + Duration::from_millis(20);
            side.handle(&Input::Tick);
            asked = side.released();
        }
        assert!(matches!(asked[..], [(B, _)]), "way {way}: {asked:?}");
        side.answer_done(B, asked[0].1);
        assert_eq!(side.advance(1_000), [], "way {way}");
    }
}

#[test]
fn a_release_that_nobody_takes_is_over_when_its_time_is() {
    let (mut side, grant) = holding_at_a();
    let until = Some(side.now + Duration::from_millis(500));
    side.conversation.ask(side.now, Some(&Request::Release { grant }), Some(A), until);
    let [(link, id)] = side.released()[..] else { panic!("one release") };
    side.turn_away(link, id);
    side.advance(1_000);
    assert_eq!(side.ended().pop(), Some((id, Outcome::Reply(A, Reply::Done))));
}

#[test]
fn a_lease_that_no_home_knows_is_lost_when_that_is_said() {
    let (mut side, grant) = holding_at_a();
    side.handle(&Input::Down(A));
    let reclaim = side.asked();
    assert!(matches!(reclaim[..], [(B, _)]));
    assert!(side.valid_for(A, grant).is_some());
    let problem = Problem { code: Code::NotHeld, message: "it is not".to_owned() };
    let id = RequestId(reclaim[0].1);
    side.hear(B, |body| encode_reply(body, id, &Reply::Refuse(problem)));
    assert_eq!(side.valid_for(A, grant), None);
    assert!(side.conversation.take_lost());
}

#[test]
fn the_partition_of_a_key_is_what_the_protocol_says() {
    let of = |name| Partition::of(Key::parse(name).unwrap()).to_string();
    assert_eq!(["default", "a", "b", "tenant:7"].map(of), ["37", "34", "11", "54"]);
}

/// A client that was given one of several servers.
fn one_of(count: usize) -> Side {
    let mut side = Side::new(1);
    let mut map = map(1, 0, Some(0));
    let more = (2..count).map(|place| HomeServer {
        name: format!("{place}").into(),
        url: format!("tcp://{place}:7777").into(),
    });
    map.servers.extend(more);
    side.ask(&spend(), Some(10_000));
    side.meet(A, &map);
    side.answer_done(A, 1);
    side.ended();
    side
}

#[test]
fn where_the_only_server_is_gone_a_lease_is_kept_by_others_that_it_has_told_of() {
    let (mut side, grant) = (one_of(2), GrantId(5));
    side.lock_from(A, grant);
    side.advance(100);
    side.handle(&Input::Down(A));
    assert_eq!(side.asked(), []);
    assert_eq!(side.opened, [(B, "tcp://b:7777".into())]);
    side.handle(&Input::Up(B));
    let reclaim = side.asked();
    assert!(matches!(reclaim[..], [(B, _)]));
    side.meet(B, &map(2, 1, Some(1)));
    let before = side.valid_for(A, grant).unwrap();
    side.answer_done(B, reclaim[0].1);
    assert!(side.valid_for(A, grant).unwrap() > before);
}

#[test]
fn others_are_sought_for_what_is_wanted_and_no_sooner() {
    let mut side = one_of(2);
    side.handle(&Input::Down(A));
    side.advance(5_000);
    assert_eq!(side.opened, []);
    let id = side.ask(&spend(), Some(10_000));
    assert_eq!((side.asked(), side.opened.len()), (vec![], 1));
    side.handle(&Input::Up(B));
    assert_eq!(side.asked(), [(B, id)]);
}

#[test]
fn a_few_are_sought_at_a_time_until_one_answers() {
    let mut side = one_of(9);
    side.handle(&Input::Down(A));
    side.ask(&spend(), Some(10_000));
    let mut counts = Vec::new();
    for _ in 0..4 {
        side.drain();
        counts.push(side.opened.len());
        side.advance(1_000);
    }
    assert_eq!(counts, [3, 6, 8, 8]);
    let mut urls: Vec<_> = side.opened.iter().map(|(_, url)| url.clone()).collect();
    urls.sort();
    urls.dedup();
    assert_eq!(urls.len(), 8);
}

#[test]
fn where_the_only_server_is_silent_others_are_asked_after_a_second() {
    let mut side = one_of(2);
    let id = side.ask(&spend(), Some(10_000));
    assert_eq!(side.asked(), [(A, id)]);
    assert_eq!((side.asked_within(999), side.opened.len()), (vec![], 0));
    assert_eq!((side.asked_within(1), side.opened.len()), (vec![], 1));
    side.handle(&Input::Up(B));
    assert_eq!(side.asked(), [(B, id)]);
}

#[test]
fn what_waits_at_a_silent_server_waits_at_its_new_home() {
    let mut side = one_of(2);
    let id = side.ask(&now(10_000, None), Some(20_000));
    assert_eq!(side.asked(), [(A, id)]);
    side.answer(A, id, &Reply::Queued { ahead: 1 });
    side.advance(3_000);
    assert_eq!(side.opened.len(), 1, "no beat was answered");
    side.handle(&Input::Up(B));
    side.advance(1_000);
    side.meet(B, &map(2, 1, Some(1)));
    assert_eq!(side.asked(), [(B, id)]);
    side.answer(B, id, &yes(Some(5)));
    assert!(matches!(side.ended()[..], [(ended, Outcome::Reply(B, _))] if ended == id));
}

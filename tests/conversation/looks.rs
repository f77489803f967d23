//! Looks at what servers tell: where several share the keys, at one after the other.

use zmqlocker::conversation::{Input, Outcome};
use zmqlocker::engine::{LockPage, Reply, Request};
use zmqlocker::wire::homes::HomeMap;
use zmqlocker::wire::reply::encode_homes;

use crate::parted::{knowing, map};
use crate::{A, B, Side};

/// Where the pages of the second server begin.
const SECOND: u64 = 1 << 56;

fn page(next: Option<u64>) -> Reply {
    Reply::Locks(LockPage { rows: Vec::new(), next })
}

impl Side {
    /// What whoever looks at the page that begins there hears, and the place of the server.
    fn look(&mut self, from: u64, next: Option<u64>) -> (usize, Option<u64>) {
        let id = self.ask(&Request::Locks { from }, Some(10_000));
        let (place, asked) = self.one_ask();
        assert_eq!(asked, id);
        self.answer([A, B][place], id, &page(next));
        self.tells();
        (place, self.next_page(id))
    }

    fn next_page(&mut self, id: u64) -> Option<u64> {
        match &self.outcomes()[..] {
            [(ended, Outcome::Reply(_, Reply::Locks(page)))] if *ended == id => page.next,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn all_pages_of_one_server_come_and_then_those_of_the_next() {
    let mut side = knowing();
    assert_eq!(side.look(0, Some(7)), (0, Some(7)));
    assert_eq!(side.look(7, None), (0, Some(SECOND)));
    assert_eq!(side.look(SECOND, Some(5)), (1, Some(SECOND | 5)));
    assert_eq!(side.look(SECOND | 5, None), (1, None));
    // A server that is there no more has nothing.
    assert_eq!(side.look(2 * SECOND, None).1, None);
}

#[test]
fn whoever_did_not_know_of_several_servers_begins_with_the_first() {
    let mut side = Side::new(2);
    let id = side.ask(&Request::Locks { from: 0 }, Some(10_000));
    let (place, _) = side.one_ask();
    let link = [A, B][place];
    side.hear(link, |body| encode_homes(body, &HomeMap { me: Some(place), ..map() }));
    side.answer(link, id, &page(None));
    side.tells();
    assert_eq!(side.next_page(id), Some(0));
}

#[test]
fn a_server_that_is_gone_is_passed_over_once_the_others_say_so() {
    let mut side = knowing();
    side.handle(&Input::Down(B));
    let id = side.ask(&Request::Locks { from: SECOND }, Some(10_000));
    // The other one is asked which servers there are, again and again.
    let beats = side.advance(1_000);
    assert!(beats.len() >= 5, "{beats:?}");
    assert!(beats.iter().all(|(_, link, _)| *link == A));
    assert_eq!(side.outcomes(), []);
    let mut map = HomeMap { epoch: 2, me: Some(0), ..map() };
    map.servers.truncate(1);
    map.homes = zmqlocker::cluster::PartitionMap::from_fn(|_| Some(0));
    side.hear(A, |body| encode_homes(body, &map));
    side.advance(200);
    assert_eq!(side.next_page(id), None);
    assert!(side.conversation.is_idle());
}

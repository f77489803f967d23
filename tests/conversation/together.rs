//! What is asked together, and leases that are renewed at once or given back.

use std::sync::Arc;
use std::time::Duration;

use zmqlocker::asking::{LinkId, RequestId};
use zmqlocker::conversation::{Conversation, Input, Outcome, Output};
use zmqlocker::engine::{
    ClientInfo, Code, Cost, Decision, Demand, GrantId, Hold, Key, Problem, Reply, Request, Wait,
};
use zmqlocker::time::Timestamp;
use zmqlocker::wire::Frames;
use zmqlocker::wire::reply::{encode_heard, encode_reply};
use zmqlocker::wire::request::{ClientItem, Items};

const LINK: LinkId = LinkId(0);
const TTL: Duration = Duration::from_millis(900);

fn at(millis: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_millis(millis)
}

fn client() -> Conversation {
    let mut client = Conversation::new(1, [7; 16], ClientInfo::default());
    client.handle(at(0), &Input::Up(LINK));
    client
}

fn acquire(wait: Wait, hold: Hold) -> Request<'static> {
    let demand = Demand::one(Key::parse("seat").unwrap(), Cost::ONE);
    Request::Acquire { demand, wait, hold }
}

/// What the client says, a letter an item, and how its requests ended.
fn said(client: &mut Conversation) -> (String, Vec<(RequestId, Outcome)>) {
    let (mut words, mut ended) = (String::new(), Vec::new());
    while let Some(output) = client.poll_output() {
        match output {
            Output::Open(..) => words.push('o'),
            Output::Finish(id, outcome) => ended.push((id, outcome)),
            Output::Send(_, message) => {
                for item in Items::new(message.get(0).unwrap()) {
                    words.push(match item.unwrap() {
                        ClientItem::Hello(_) => 'h',
                        ClientItem::Beat { .. } => 'b',
                        ClientItem::Ask { request: Request::Release { .. }, .. } => 'r',
                        ClientItem::Ask { .. } => 'a',
                        ClientItem::Cancel(_) => 'c',
                        ClientItem::Bye => 'y',
                        ClientItem::OtherVersion(_)
                        | ClientItem::KnowMoved(_)
                        | ClientItem::Bad { .. } => '?',
                    });
                }
                words.push('.');
            }
        }
    }
    (words, ended)
}

fn hear(client: &mut Conversation, millis: u64, encode: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    encode(&mut body);
    let message = Frames::from_iter([body.as_slice()]);
    client.handle(at(millis), &Input::Message(LINK, &message));
}

fn granted(grant: Option<u64>) -> Reply {
    Reply::Decision(Decision {
        allowed: true,
        remaining: 0,
        retry_after: Some(Duration::ZERO),
        reset_after: Duration::ZERO,
        limit: Arc::from("1 at once"),
        key: 0,
        grant: grant.map(GrantId),
    })
}

/// A client that was granted a lease at 10 ms for what it asked at 0.
fn holder() -> Conversation {
    let mut client = client();
    let hold = Hold::lease(TTL).unwrap();
    let id = client.ask(at(0), Some(&acquire(Wait::No, hold)), None, None);
    assert_eq!(said(&mut client).0, "ha.");
    hear(&mut client, 10, |body| encode_reply(body, id, &granted(Some(1))));
    assert_eq!(said(&mut client).1.len(), 1);
    client
}

fn valid_until(client: &Conversation, millis: u64) -> Option<Timestamp> {
    client.lease_valid_until(at(millis), LINK, GrantId(1))
}

#[test]
fn no_answer_revives_a_lease_that_had_ended_and_it_is_given_back() {
    let mut client = holder();
    client.handle(at(300), &Input::Tick);
    client.handle(at(310), &Input::Tick);
    assert_eq!(said(&mut client).0, "b.");
    // The process was stopped meanwhile.
    assert_eq!(valid_until(&client, 2000), None);
    hear(&mut client, 2000, |body| encode_heard(body, 1));
    assert_eq!(valid_until(&client, 2000), None);
    assert_eq!(said(&mut client).0, "r.");
    assert_eq!(client.next_beat(), None);
}

#[test]
fn a_lease_that_was_waited_for_is_renewed_at_once() {
    let mut client = client();
    let wait = Wait::UpTo(Duration::from_secs(9));
    let hold = Hold::lease(TTL).unwrap();
    let id = client.ask(at(0), Some(&acquire(wait, hold)), None, None);
    hear(&mut client, 1, |body| encode_reply(body, id, &Reply::Queued { ahead: 0 }));
    said(&mut client);
    hear(&mut client, 450, |body| encode_reply(body, id, &granted(Some(1))));
    assert_eq!(client.next_beat(), Some(at(450)));
}

#[test]
fn what_is_asked_together_is_answered_together_and_in_order() {
    let mut client = client();
    let requests = vec![acquire(Wait::No, Hold::Spend); 3];
    let (first, count) = client.ask_together(at(0), &requests, None);
    assert_eq!((count, said(&mut client).0.as_str()), (3, "haaa."));
    let later = client.ask(at(0), Some(&acquire(Wait::No, Hold::Spend)), None, None);
    assert_eq!(later, RequestId(first.0 + 3));
    said(&mut client);
    let refused =
        |text: &str| Reply::Refuse(Problem { code: Code::Config, message: text.to_owned() });
    for place in [2, 0] {
        let id = RequestId(first.0 + place);
        hear(&mut client, 1, |body| encode_reply(body, id, &refused(&place.to_string())));
        hear(&mut client, 1, |body| encode_reply(body, id, &refused("again")));
    }
    assert_eq!(said(&mut client).1, []);
    let id = RequestId(first.0 + 1);
    hear(&mut client, 2, |body| encode_reply(body, id, &granted(None)));
    let [(ended, Outcome::Replies(LINK, replies))] = &said(&mut client).1[..] else { panic!() };
    assert_eq!((*ended, replies.len()), (first, 3));
    assert_eq!(replies[1], granted(None));
}

//! What a client says to servers, and for how long it believes what it holds.

use std::sync::Arc;
use std::time::Duration;

use zmqlocker::asking::{LinkId, RequestId};
use zmqlocker::conversation::{Conversation, Input, Outcome, Output};
use zmqlocker::engine::{
    ClientInfo, Code, Cost, Decision, Demand, GrantId, Hold, Key, Problem, Reply, Request, Wait,
};
use zmqlocker::time::Timestamp;
use zmqlocker::wire::Frames;
use zmqlocker::wire::reply::{encode_heard, encode_problem, encode_reply, encode_welcome};
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
                        ClientItem::OtherVersion(_) | ClientItem::Bad { .. } => '?',
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
fn hello_goes_first_and_once_on_each_connection() {
    let mut client = client();
    client.ask(at(0), Some(&acquire(Wait::No, Hold::Spend)), None, None);
    client.ask(at(0), Some(&acquire(Wait::No, Hold::Spend)), None, None);
    assert_eq!(said(&mut client).0, "haa.");
    client.handle(at(1), &Input::Down(LINK));
    client.handle(at(2), &Input::Up(LINK));
    assert_eq!(said(&mut client).0, "haa.");
    hear(&mut client, 3, |body| {
        let message = "who?".to_owned();
        encode_problem(body, &Problem { code: Code::UnknownSession, message });
    });
    assert_eq!(said(&mut client).0, "haa.");
}

#[test]
fn a_lease_counts_from_the_sending_of_what_keeps_it() {
    let mut client = holder();
    let shortened = TTL.saturating_sub(TTL * 4 / 1000);
    assert_eq!(valid_until(&client, 10), Some(at(0) + shortened));
    let due = client.next_beat().unwrap();
    assert!(due <= at(10) + TTL / 3);
    client.handle(due, &Input::Tick);
    assert_eq!(said(&mut client).0, "b.");
    assert_eq!(valid_until(&client, 400), Some(at(0) + shortened), "nothing was heard yet");
    hear(&mut client, 500, |body| encode_heard(body, 1));
    assert_eq!(valid_until(&client, 500), Some(due + shortened));
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
fn another_run_of_the_server_has_forgotten_who_holds() {
    let mut client = holder();
    hear(&mut client, 20, |body| encode_welcome(body, 1, Duration::ZERO));
    assert!(valid_until(&client, 20).is_some());
    hear(&mut client, 30, |body| encode_welcome(body, 2, Duration::ZERO));
    assert_eq!(valid_until(&client, 30), None);
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
fn who_waits_beats_and_others_do_not() {
    let mut client = client();
    let deadline = Some(at(5000));
    let wait = Wait::UpTo(Duration::from_secs(5));
    let id = client.ask(at(0), Some(&acquire(wait, Hold::Spend)), None, deadline);
    assert_eq!(client.next_beat(), None);
    hear(&mut client, 1, |body| encode_reply(body, id, &Reply::Queued { ahead: 3 }));
    assert_eq!(client.next_beat(), Some(at(501)));
    said(&mut client);
    hear(&mut client, 2, |body| encode_reply(body, id, &granted(None)));
    assert_eq!(said(&mut client).1, [(id, Outcome::Reply(LINK, granted(None)))]);
    assert_eq!((client.next_beat(), client.is_idle()), (None, true));
}

#[test]
fn silence_is_told_from_a_wait_that_was_too_long() {
    for (queued, outcome) in [(true, Outcome::Late), (false, Outcome::Silence)] {
        let mut client = client();
        let wait = Wait::UpTo(Duration::from_secs(1));
        let id = client.ask(at(0), Some(&acquire(wait, Hold::Spend)), None, Some(at(1000)));
        if queued {
            hear(&mut client, 1, |body| encode_reply(body, id, &Reply::Queued { ahead: 0 }));
        }
        said(&mut client);
        // The server in whose queue it is has a moment for its last word.
        client.handle(at(1100), &Input::Tick);
        let (words, ended) = said(&mut client);
        assert_eq!(ended, [(id, outcome)]);
        assert!(words.contains('c'), "{words}");
        assert_eq!(client.is_available(), queued);
        hear(&mut client, 1200, |body| encode_heard(body, 1));
        assert!(client.is_available());
    }
}

#[test]
fn what_is_declined_goes_back_and_what_is_settled_does_not() {
    for (settled, word) in [(false, "c."), (true, "")] {
        let mut client = client();
        let id = client.ask(at(0), Some(&acquire(Wait::No, Hold::Spend)), None, None);
        hear(&mut client, 1, |body| encode_reply(body, id, &granted(None)));
        client.keep_open(id, LINK, None);
        said(&mut client);
        if settled {
            client.settle(id);
        }
        client.decline(id);
        assert_eq!(said(&mut client).0, word);
    }
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

#[test]
fn a_lease_counts_from_when_its_own_server_was_asked() {
    let mut client = Conversation::new(2, [7; 16], ClientInfo::default());
    client.handle(at(0), &Input::Up(LINK));
    client.handle(at(0), &Input::Up(LinkId(1)));
    let hold = Hold::lease(TTL).unwrap();
    let id = client.ask(at(0), Some(&acquire(Wait::No, hold)), None, None);
    // The first is silent for a second, so the other one is asked too; then the first answers.
    client.handle(at(1000), &Input::Tick);
    said(&mut client);
    hear(&mut client, 1001, |body| encode_reply(body, id, &granted(Some(1))));
    assert_eq!(valid_until(&client, 1001), None);
}

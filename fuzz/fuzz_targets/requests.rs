//! Arbitrary bytes as the messages of clients, straight into an engine: it answers or refuses.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use zmqlocker::engine::{Bounds, ClientInfo, GrantId, Input, Limits, Machine, Rules};
use zmqlocker::time::Timestamp;
use zmqlocker::wire::request::{ClientItem, Items};

const RULES: [(&str, &str); 4] =
    [("a*", "5/s"), ("b*", "5/s sliding"), ("c*", "5/s gcra burst 2"), ("d*", "2 at once")];

fuzz_target!(|messages: Vec<(u32, Vec<u8>)>| {
    let rules = RULES.map(|(key, limit)| (key.to_owned(), Limits::parse(&[limit]).unwrap()));
    let rules = Rules::new(rules, None).unwrap();
    let bounds = Bounds {
        keys_max: 8,
        waiters_max: 4,
        key_waiters_max: 3,
        sessions_max: 2,
        leases_max: 4,
        client_leases_max: 3,
        answers_max: 40,
        client_answers_max: 30,
    };
    let mut now = Timestamp::ZERO;
    let mut machine: Machine<()> = Machine::new(now, rules, Duration::from_millis(100), bounds);
    machine.number_grants_above(GrantId(8));
    machine.make_durable();
    machine.begin_locks(now, false);
    let mut session = None;
    for (micros, message) in messages {
        now = now + Duration::from_micros(micros.into());
        for item in Items::new(&message).flatten() {
            match (item, session) {
                (ClientItem::Hello(hello), _) => {
                    let greeted = machine.greet(now, hello.session, ClientInfo::default());
                    session = greeted.ok().map(|(id, _)| id);
                }
                (ClientItem::Ask { id, request }, Some(session)) => {
                    machine.handle(now, Input::Ask(session, id, &request));
                }
                (ClientItem::Beat { floor, open, .. }, Some(session)) => {
                    machine.handle(now, Input::Beat(session, floor, &open));
                }
                (ClientItem::Cancel(id), Some(session)) => {
                    machine.handle(now, Input::Cancel(session, id));
                }
                (ClientItem::Bye, Some(session)) => machine.handle(now, Input::Bye(session)),
                _ => machine.handle(now, Input::Next(())),
            }
            while machine.poll_output().is_some() {}
        }
        for _ in 0..1000 {
            if machine.poll_timeout().is_none_or(|due| due > now) {
                break;
            }
            machine.handle(now, Input::Tick);
            while machine.poll_output().is_some() {}
        }
        assert!(machine.poll_timeout().is_none_or(|due| due > now), "the time does not go on");
    }
});

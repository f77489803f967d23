//! What those hear who only look, where it is as long as it can be.

use std::time::Duration;

use zmqlocker::engine::{
    Bounds, ClientInfo, Cost, Demand, Hold, Input, Key, Limits, Machine, Reply, Request, RequestId,
    Rules, Wait,
};
use zmqlocker::time::Timestamp;
use zmqlocker::wire::reply::encode_reply;

/// A server that wants room for one more item leaves so much.
const ITEM_BYTES_MAX: usize = 4096;

#[test]
fn no_page_is_longer_than_an_item_may_be() {
    let now = Timestamp::from_nanos(1);
    let rules = Rules::new([], Some(Limits::parse(&["5/s"]).unwrap())).unwrap();
    let mut machine = Machine::<()>::new(now, rules, Duration::ZERO, Bounds::default());
    for place in 0..100 {
        let long = |letter: &str| letter.repeat(256).into_boxed_str();
        let client = ClientInfo { name: long("n"), host: long("h"), pid: u32::MAX };
        let (session, _) = machine.greet(now, [place; 16], client).unwrap();
        let name = format!("{place:0256}");
        let demand = Demand::one(Key::parse(&name).unwrap(), Cost::ONE);
        let request = Request::Acquire { demand, wait: Wait::No, hold: Hold::Spend };
        machine.handle(now, Input::Ask(session, RequestId(1), &request));
        while machine.poll_output().is_some() {}
    }
    let later = now + Duration::from_secs(1 << 32);
    let (mut from, mut keys) = (Some(0), 0);
    while let Some(place) = from {
        let page = machine.busy_keys(later, place, 3000);
        (from, keys) = (page.next, keys + page.rows.len());
        assert!(length(&Reply::Keys(page)) <= ITEM_BYTES_MAX);
    }
    let (mut from, mut clients) = (Some(0), 0);
    while let Some(place) = from {
        let mut page = machine.clients(later, place, 3000);
        page.rows.iter_mut().for_each(|row| row.address = "a".repeat(99).into());
        (from, clients) = (page.next, clients + page.rows.len());
        assert!(length(&Reply::Clients(page)) <= ITEM_BYTES_MAX);
    }
    assert_eq!((keys, clients), (100, 100));
}

fn length(reply: &Reply) -> usize {
    let mut out = Vec::new();
    encode_reply(&mut out, RequestId(u64::MAX), reply);
    out.len()
}

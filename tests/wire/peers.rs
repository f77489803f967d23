//! What servers tell each other: golden bytes, and what becomes of any others.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use zmqlocker::cluster::peers::{GOES_MAX, Message, PEERS_MAX, Part, Run};
use zmqlocker::engine::{Go, Key, Left, Request, Usage};
use zmqlocker::wire::peers::{Bad, decode, encode};
use zmqlocker::wire::seed::BYTES_MAX;

use crate::golden::PROTOCOL;

fn beat() -> Message {
    let heard = vec![(Run(7), 41), (Run(9), 3)];
    let (run, number) = (Run(1000), 12);
    Message { run, number, is_urgent: false, leaves: false, heard, goes: Vec::new(), usage: None }
}

fn texts(texts: &[&str]) -> Vec<Arc<str>> {
    texts.iter().map(|text| Arc::from(*text)).collect()
}

fn go() -> Message {
    let go = Go {
        key: "openai".into(),
        limits: texts(&["500/min sliding", "5/0.8s"]),
        permits: 3,
        ages: vec![Duration::from_micros(70), Duration::from_millis(200)],
    };
    Message { number: 13, is_urgent: true, goes: vec![go], ..beat() }
}

fn used() -> Message {
    let left = Duration::from_millis;
    let usage = |key: &str, limit: &str, left| Usage {
        key: key.into(),
        limits: vec![(Arc::from(limit), Some(left))],
    };
    let mut keys = vec![
        usage("a", "5/0.8s", Left::Slot(left(600), 4)),
        usage("b", "6/s sliding", Left::Log(vec![(left(1), 2), (left(3), 4)])),
        usage("c", "7/s gcra burst 7", Left::Arrival(left(100))),
    ];
    keys[0].limits.push((Arc::from("9/min"), None));
    let part = Part { is_first: true, is_last: false, keys };
    Message { number: 14, leaves: true, heard: Vec::new(), usage: Some(part), ..beat() }
}

fn bytes(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, message);
    out
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[test]
fn the_bytes_are_those_of_the_document() {
    for message in [beat(), go(), used()] {
        let hex = hex(&bytes(&message));
        assert!(PROTOCOL.contains(&format!(" {hex}\n")), "{hex} is not in docs/protocol.md");
        assert_eq!(decode(&bytes(&message)), Ok(message));
    }
}

#[test]
fn a_message_that_is_cut_or_goes_on_is_none() {
    for message in [beat(), go(), used()] {
        let bytes = bytes(&message);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length}");
        }
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(Bad::Malformed));
    }
}

#[test]
fn another_version_is_told() {
    let mut bytes = bytes(&beat());
    bytes[1] = 2;
    let bad = decode(&bytes).unwrap_err();
    assert_eq!(bad, Bad::Version(2));
    let text = "it speaks version 2 to other servers, and this one speaks version 1";
    assert_eq!(bad.to_string(), text);
}

#[test]
fn entries_out_of_order_are_no_log() {
    let mut message = used();
    let part = message.usage.as_mut().unwrap();
    part.keys[1].limits[0].1 = Some(Left::Log(vec![(Duration::MAX, 1), (Duration::ZERO, 1)]));
    assert_eq!(decode(&bytes(&message)), Err(Bad::Malformed));
}

#[test]
fn the_largest_message_fits_into_a_frame() {
    let limit: Arc<str> =
        Arc::from("999999999999/999999999.999999999s gcra burst 999999999999 shadow");
    let go = Go {
        key: "k".repeat(Key::BYTES_MAX).into(),
        limits: vec![limit; Request::LIMITS_MAX],
        permits: u64::MAX,
        ages: vec![Duration::MAX; Request::LIMITS_MAX],
    };
    let heard = vec![(Run(u64::MAX), u64::MAX); PEERS_MAX];
    let message = Message { heard, goes: vec![go; GOES_MAX], ..go_on(u64::MAX) };
    assert!(bytes(&message).len() <= BYTES_MAX, "{}", bytes(&message).len());
}

fn go_on(number: u64) -> Message {
    Message { number, run: Run(u64::MAX), ..beat() }
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_none(
        which in 0..3_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = bytes(&[beat(), go(), used()][which]);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(message) = decode(&bytes) {
            let again = decode(&self::bytes(&message));
            prop_assert_eq!(again, Ok(message));
        }
    }
}

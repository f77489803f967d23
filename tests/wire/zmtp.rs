//! ZMTP: golden bytes, any cut of the stream, and bytes of any kind.

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::wire::Frames;
use zmqlocker::wire::seed::{BYTES_MAX, FRAMES_MAX};
use zmqlocker::wire::zmtp::{self, Connection, Item, OPENING, READY, ZmtpError};

/// What a ROUTER socket of libzmq 4.3.5 sends after its greeting.
const ROUTER_READY: &[u8] =
    b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER\x08Identity\x00\x00\x00\x00";

fn greeting(major: u8, mechanism: &[u8]) -> Vec<u8> {
    let mut greeting = OPENING.to_vec();
    greeting.resize(64, 0);
    (greeting[10], greeting[11]) = (major, 1);
    greeting[12..12 + mechanism.len()].copy_from_slice(mechanism);
    greeting
}

/// What is said when a server of the NULL mechanism has greeted.
fn answer() -> Item {
    Item::Answer([&greeting(3, b"NULL")[OPENING.len()..], READY].concat())
}

/// All that a connection says to `bytes`, cut into pieces of `size`.
fn decode(bytes: &[u8], size: usize) -> Result<Vec<Item>, ZmtpError> {
    let mut connection = Connection::default();
    let mut items = Vec::new();
    for piece in bytes.chunks(size) {
        connection.push(piece);
        while let Some(item) = connection.poll_item()? {
            items.push(item);
        }
    }
    Ok(items)
}

fn after_handshake(traffic: &[u8]) -> Vec<u8> {
    [greeting(3, b"NULL").as_slice(), ROUTER_READY, traffic].concat()
}

#[test]
fn the_golden_bytes() {
    assert_eq!(OPENING, b"\xff\0\0\0\0\0\0\0\0\x7f\x03");
    let said = decode(&greeting(3, b"NULL"), 64).unwrap();
    let rest = [b"\x01NULL".as_slice(), &[0; 48], READY].concat();
    assert_eq!(said, [Item::Answer(rest)]);
    assert_eq!(READY, b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER");
    let mut out = Vec::new();
    zmtp::encode_message(&mut out, [b"\0\0\0\0\0\0\0\x07".as_slice(), b"", b"let me go"]);
    assert_eq!(out, b"\x01\x08\0\0\0\0\0\0\0\x07\x01\x00\x00\x09let me go");
    out.clear();
    zmtp::encode_message(&mut out, [[7_u8; 256].as_slice()]);
    assert_eq!(out[..9], *b"\x02\0\0\0\0\0\0\x01\0");
}

#[test]
fn a_conversation_is_understood_however_it_is_cut() {
    let mut traffic = b"\x04\x0a\x04PING\0\x01abc\x04\x04\x03NEW".to_vec();
    zmtp::encode_message(&mut traffic, [b"7".as_slice(), b"", &[b'x'; 300]]);
    let bytes = after_handshake(&traffic);
    let message = [b"7".as_slice(), b"", &[b'x'; 300]].into_iter().collect::<Frames>();
    for size in 1..=bytes.len() {
        assert_eq!(
            decode(&bytes, size).unwrap(),
            [
                answer(),
                Item::Ready,
                Item::Answer(b"\x04\x08\x04PONGabc".to_vec()),
                Item::Message(message.clone())
            ]
        );
    }
}

#[test]
fn strangers_are_told_apart() {
    let cases = [
        (b"HTTP/1.1 200 OK".to_vec(), ZmtpError::NotZmtp),
        (greeting(1, b"NULL"), ZmtpError::NotZmtp),
        (greeting(3, b"CURVE"), ZmtpError::KeysNeeded),
        (greeting(3, b"PLAIN"), ZmtpError::Mechanism("PLAIN".to_owned())),
        (
            [greeting(3, b"NULL").as_slice(), b"\x04\x0a\x05ERROR\x03400"].concat(),
            ZmtpError::NotLetIn,
        ),
        (
            [greeting(3, b"NULL").as_slice(), b"\x04\x08\x05ERROR\x01x"].concat(),
            ZmtpError::Refused("x".to_owned()),
        ),
        ([greeting(3, b"NULL").as_slice(), b"\x00\x01x"].concat(), ZmtpError::Malformed),
        (after_handshake(b"\x08\x00"), ZmtpError::Malformed),
        (after_handshake(b"\x05\x00"), ZmtpError::Malformed),
        (after_handshake(b"\x04\x00"), ZmtpError::Malformed),
        (after_handshake(b"\x04\x02\x09x"), ZmtpError::Malformed),
        (after_handshake(b"\x04\x05\x04PING"), ZmtpError::Malformed),
        (after_handshake(b"\x02\xff\xff\xff\xff\xff\xff\xff\xff"), ZmtpError::Size),
        // One byte too many, refused before any of them has come.
        (after_handshake(b"\x02\0\0\0\0\0\x01\0\x01"), ZmtpError::Size),
        (after_handshake(&b"\x01\x00".repeat(FRAMES_MAX + 1)), ZmtpError::Size),
        (
            after_handshake(
                &[b"\x03\0\0\0\0\0\0\x80\0".as_slice(), &vec![0; 32768]].concat().repeat(3),
            ),
            ZmtpError::Size,
        ),
    ];
    for (bytes, error) in cases {
        for size in [1, 7, bytes.len()] {
            assert_eq!(decode(&bytes, size).unwrap_err(), error);
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        messages in vec(vec(vec(any::<u8>(), 0..600), 1..=FRAMES_MAX), 0..5),
        size in 1..2000_usize,
    ) {
        let mut traffic = Vec::new();
        let mut expected = vec![answer(), Item::Ready];
        for message in &messages {
            zmtp::encode_message(&mut traffic, message.iter().map(Vec::as_slice));
            expected.push(Item::Message(message.iter().map(Vec::as_slice).collect()));
        }
        prop_assert_eq!(decode(&after_handshake(&traffic), size).unwrap(), expected);
    }

    #[test]
    fn any_bytes_end_in_an_item_an_error_or_a_wait(
        traffic in vec(any::<u8>(), 0..300),
        handshake in any::<bool>(),
        size in 1..300_usize,
    ) {
        let bytes = if handshake { after_handshake(&traffic) } else { traffic };
        let whole = decode(&bytes, bytes.len().max(1));
        prop_assert_eq!(decode(&bytes, size), whole.clone());
        for item in whole.into_iter().flatten() {
            if let Item::Message(message) = item {
                prop_assert!(message.len() <= FRAMES_MAX && message.byte_len() <= BYTES_MAX);
            }
        }
    }
}

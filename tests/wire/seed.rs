//! The seed's protocol as a ROUTER socket sees it.

use zmqlocker::answer::Answer::{Go, Sorry};
use zmqlocker::wire::Frames;
use zmqlocker::wire::seed::{self, BYTES_MAX, BadMessage, FRAMES_MAX};

fn frames(all: &[&[u8]]) -> Frames {
    all.iter().copied().collect()
}

#[test]
fn the_words_on_the_wire() {
    assert_eq!(seed::REQUEST, b"let me go");
    assert_eq!(seed::encode_answer(Go), b"go");
    assert_eq!(seed::encode_answer(Sorry), b"sorry");
    assert_eq!(seed::parse_answer(b"go"), Some(Go));
    assert_eq!(seed::parse_answer(b"sorry"), Some(Sorry));
    for other in ["", "g", "go ", "GO", "error: x"] {
        assert_eq!(seed::parse_answer(other.as_bytes()), None);
    }
}

#[test]
fn the_answer_goes_back_the_way_the_request_came() {
    for envelope in [
        &[b"peer".as_slice(), b""] as &[&[u8]],
        &[b"peer", b"number", b""],
        &[b"peer", b"proxy", b"another", b"number", b""],
        &[b"peer", &[b'x'; 1020], b""],
    ] {
        for body in [b"let me go".as_slice(), b"", b"whatever"] {
            let request = frames(&[envelope, &[body]].concat());
            let parsed = seed::parse_request(&request).unwrap();
            assert_eq!(parsed.routing_id(), b"peer");
            assert_eq!(parsed.answer(b"go"), frames(&[envelope, &[b"go"]].concat()));
        }
    }
}

#[test]
fn what_no_req_socket_sends_is_bad() {
    let long = vec![b'x'; BYTES_MAX + 1];
    let many = vec![b"x".as_slice(); FRAMES_MAX + 1];
    for (message, bad, way_back) in [
        (frames(&[b"peer"]), BadMessage::Envelope, frames(&[b"peer"])),
        (frames(&[b"peer", b"let me go"]), BadMessage::Envelope, frames(&[b"peer"])),
        (frames(&[b"peer", b""]), BadMessage::Body, frames(&[b"peer", b""])),
        (frames(&[b"peer", b"", b"a", b"b"]), BadMessage::Body, frames(&[b"peer", b""])),
        (frames(&[b"peer", b"", &long]), BadMessage::Size, frames(&[b"peer", b""])),
        (frames(&many), BadMessage::Size, frames(&[b"x"])),
        (frames(&[b"peer", &[b'x'; 1021], b"", b"a"]), BadMessage::Size, frames(&[b"peer"])),
        // A peer may call itself nothing; ZeroMQ gives it a name, but the parser need not know.
        (frames(&[b"", b"let me go"]), BadMessage::Envelope, frames(&[b""])),
    ] {
        let (seen, envelope) = seed::parse_request(&message).unwrap_err();
        assert_eq!(seen, bad);
        let mut answer = way_back;
        answer.push(b"error");
        assert_eq!(envelope.answer(b"error"), answer);
    }
}

#[test]
fn the_texts_of_what_is_bad() {
    assert_eq!(
        [BadMessage::Envelope, BadMessage::Body, BadMessage::Size].map(|bad| bad.to_string()),
        [
            "error: an empty frame must stand before the body, as a REQ socket sends it",
            "error: one body frame must follow the empty frame",
            "error: a message has at most 16 frames and 65536 bytes, 1024 of them before the body",
        ]
    );
}

#[test]
fn a_message_without_frames_is_bad() {
    let (bad, envelope) = seed::parse_request(&Frames::default()).unwrap_err();
    assert_eq!((bad, envelope.routing_id()), (BadMessage::Envelope, b"".as_slice()));
}

//! Bytes of any kind, as a stream from a server and as a message to one, in all protocols.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zmqlocker::wire::reply::Replies;
use zmqlocker::wire::request::Items;
use zmqlocker::wire::seed::{self, BYTES_MAX, FRAMES_MAX};
use zmqlocker::wire::zmtp::{Connection, Item, READY};
use zmqlocker::wire::{ITEMS_MAX, peers};

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else { return };

    // The first byte cuts the stream, and says whether it starts behind the handshake.
    let mut connection = Connection::default();
    if cut & 1 == 1 {
        let mut greeting = b"\xff\0\0\0\0\0\0\0\0\x7f\x03\x01NULL".to_vec();
        greeting.resize(64, 0);
        connection.push(&greeting);
        assert!(matches!(connection.poll_item(), Ok(Some(Item::Answer(_)))));
        connection.push(READY);
        assert_eq!(connection.poll_item(), Ok(Some(Item::Ready)));
    }
    'stream: for piece in bytes.chunks(usize::from(cut).max(1)) {
        connection.push(piece);
        loop {
            match connection.poll_item() {
                Ok(Some(Item::Message(message))) => {
                    assert!(message.len() <= FRAMES_MAX && message.byte_len() <= BYTES_MAX);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => break 'stream,
            }
        }
    }

    // The same bytes as a body of ours, in both directions; an error may follow the last item.
    assert!(Items::new(bytes).count() <= bytes.len().min(ITEMS_MAX + 1));
    assert!(Replies::new(bytes).count() <= bytes.len().min(ITEMS_MAX + 1));

    // The same bytes as what another server says of its grants.
    if let Ok(message) = peers::decode(bytes) {
        let mut again = Vec::new();
        peers::encode(&mut again, &message);
        assert_eq!(peers::decode(&again).ok(), Some(message));
    }

    // The same bytes as the frames of a message: every `cut` ends one.
    let message = bytes.split(|byte| *byte == cut).collect();
    let envelope = match seed::parse_request(&message) {
        Ok(envelope) | Err((_, envelope)) => envelope,
    };
    assert!(envelope.answer(b"go").len() <= FRAMES_MAX + 1 || bytes.len() > FRAMES_MAX);
});

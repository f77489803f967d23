//! Bytes of any kind, as a stream from a server and as a message to one, in both protocols.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zmqlocker::wire::ITEMS_MAX;
use zmqlocker::wire::reply::Replies;
use zmqlocker::wire::request::Items;
use zmqlocker::wire::seed::{self, BYTES_MAX, FRAMES_MAX};
use zmqlocker::wire::zmtp::{Decoder, GREETING, Item, READY};

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else { return };

    // The first byte cuts the stream, and says whether it starts behind the handshake.
    let mut decoder = Decoder::default();
    if cut & 1 == 1 {
        decoder.push(&GREETING);
        assert_eq!(decoder.poll_item(), Ok(Some(Item::Greeting)));
        decoder.push(READY);
        assert_eq!(decoder.poll_item(), Ok(Some(Item::Ready)));
    }
    'stream: for piece in bytes.chunks(usize::from(cut).max(1)) {
        decoder.push(piece);
        loop {
            match decoder.poll_item() {
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

    // The same bytes as the frames of a message: every `cut` ends one.
    let message = bytes.split(|byte| *byte == cut).collect();
    let envelope = match seed::parse_request(&message) {
        Ok(envelope) | Err((_, envelope)) => envelope,
    };
    assert!(envelope.answer(b"go").len() <= FRAMES_MAX + 1 || bytes.len() > FRAMES_MAX);
});

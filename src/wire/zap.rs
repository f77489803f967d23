//! ZAP: how a socket of libzmq asks whether a client is let in, and is answered.
//!
//! Source: RFC 27 of the ZeroMQ project, version 1.0, as a ROUTER socket sees it:
//!
//! ```text
//! request   sender | (empty) | version | request id | domain | address | routing id | CURVE | key
//! reply     sender | (empty) | version | request id | status | text | user id | metadata
//! ```

use crate::access::{KEY_BYTES, PublicKey};
use crate::wire::Frames;

/// Where the handler is bound, in the context of the socket that asks.
pub const ENDPOINT: &str = "inproc://zeromq.zap.01";

/// How many frames a question about a key has.
const FRAMES: usize = 9;

const VERSION: &[u8] = b"1.0";

/// A question whether a client is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    sender: &'a [u8],
    id: &'a [u8],
    /// What the socket that asks is called.
    pub domain: &'a [u8],
    /// The network address that the client connects from; empty where there is none.
    pub address: &'a str,
    /// The client's public key. Libzmq has seen that the client has the secret one.
    pub key: PublicKey,
}

impl<'a> Question<'a> {
    /// Reads what a ROUTER socket has received; `None` if it is not about a key of CURVE.
    #[must_use]
    pub fn parse(message: &'a Frames) -> Option<Self> {
        let frame = |place| message.get(place);
        let key: [u8; KEY_BYTES] = frame(8)?.try_into().ok()?;
        let is_one = message.len() == FRAMES
            && frame(1)?.is_empty()
            && frame(2)? == VERSION
            && frame(7)? == b"CURVE";
        is_one.then_some(Self {
            sender: frame(0)?,
            id: frame(3)?,
            domain: frame(4)?,
            address: std::str::from_utf8(frame(5)?).unwrap_or_default(),
            key: PublicKey::new(key),
        })
    }

    /// The answer. Each message of a client that is let in says its user id, which is its key.
    #[must_use]
    pub fn answer(&self, is_let_in: bool) -> Frames {
        let (status, text) = if is_let_in { ("200", "OK") } else { ("400", "not let in") };
        let user_id = if is_let_in { self.key.to_string() } else { String::new() };
        let user_id = user_id.as_bytes();
        let status = status.as_bytes();
        [self.sender, b"", VERSION, self.id, status, text.as_bytes(), user_id, b""]
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; KEY_BYTES] = [7; KEY_BYTES];

    fn frames() -> [&'static [u8]; FRAMES] {
        [b"sender", b"", b"1.0", b"1", b"zmqlocker", b"10.0.0.7", b"", b"CURVE", &KEY]
    }

    #[test]
    fn a_question_is_answered_with_its_number() {
        let message = frames().into_iter().collect();
        let question = Question::parse(&message).unwrap();
        assert_eq!((question.address, question.key), ("10.0.0.7", PublicKey::new(KEY)));
        let user_id = question.key.to_string();
        let texts = |frames: &Frames| -> Vec<String> {
            frames.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect()
        };
        assert_eq!(
            texts(&question.answer(true)),
            ["sender", "", "1.0", "1", "200", "OK", &user_id, ""]
        );
        assert_eq!(
            texts(&question.answer(false)),
            ["sender", "", "1.0", "1", "400", "not let in", "", ""]
        );
    }

    #[test]
    fn what_is_no_question_about_a_key_is_none() {
        for (place, other) in
            [(1, b"x".as_slice()), (2, b"2.0"), (7, b"PLAIN"), (8, b""), (8, &[7; 33])]
        {
            let mut frames = frames();
            frames[place] = other;
            assert_eq!(Question::parse(&frames.into_iter().collect()), None, "{place}");
        }
        for count in 0..FRAMES {
            assert_eq!(Question::parse(&frames().into_iter().take(count).collect()), None);
        }
        assert_eq!(Question::parse(&frames().into_iter().chain([b"".as_slice()]).collect()), None);
    }
}

//! The seed's protocol: a REQ socket sends `let me go`, a REP socket answers `go` or `sorry`.
//!
//! A ROUTER socket sees the request of a REQ socket as
//!
//! ```text
//! ┌────────────┬──────────────────────┬───────┬─────────────┐
//! │ routing id │ 0 or more frames ... │ empty │ one body    │
//! └────────────┴──────────────────────┴───────┴─────────────┘
//!  ╰────────────── the envelope ─────────────╯
//! ```
//!
//! and sends the envelope back before its answer. The frames before the empty one are whatever the
//! client and proxies put there; a client of ours puts a number there by which it knows the answer.
//! A REP socket, and so a server of the seed, sends them back as well.

use thiserror::Error;

use crate::answer::Answer;
use crate::wire::Frames;

/// The body of a request. A server takes any other body for the same.
pub const REQUEST: &[u8] = b"let me go";

/// The most frames that a message may have, the routing id and the body included.
pub const FRAMES_MAX: usize = 16;

/// The most bytes that a message may have, over all its frames.
pub const BYTES_MAX: usize = 64 * 1024;

/// The way back to whoever asked: the routing id and all frames up to the empty one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope(Frames);

impl Envelope {
    /// The routing id: ZeroMQ's name for the connection that the request came on.
    #[must_use]
    pub fn routing_id(&self) -> &[u8] {
        self.0.get(0).unwrap_or_default()
    }

    /// The message that takes `body` back.
    #[must_use]
    pub fn answer(mut self, body: &[u8]) -> Frames {
        self.0.push(body);
        self.0
    }
}

/// Why a message is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadMessage {
    /// No empty frame stands between an envelope and a body.
    #[error("error: an empty frame must stand before the body, as a REQ socket sends it")]
    Envelope,
    /// There is not one body, but none or several.
    #[error("error: one body frame must follow the empty frame")]
    Body,
    /// More than [`FRAMES_MAX`] frames or [`BYTES_MAX`] bytes.
    #[error("error: a message has at most {FRAMES_MAX} frames and {BYTES_MAX} bytes")]
    Size,
}

/// Finds the way back in a message that a ROUTER socket received.
///
/// # Errors
///
/// [`BadMessage`] for what no REQ socket sends; its text is the answer to send. What is given back
/// with it is as much of the way back as could be found.
pub fn parse_request(mut message: Frames) -> Result<Envelope, (BadMessage, Envelope)> {
    let delimiter = message.iter().skip(1).position(<[u8]>::is_empty).map(|index| index + 1);
    let bodies = delimiter.map_or(0, |index| message.len() - index - 1);
    let bad = if message.len() > FRAMES_MAX || message.byte_len() > BYTES_MAX {
        Some(BadMessage::Size)
    } else if delimiter.is_none() {
        Some(BadMessage::Envelope)
    } else if bodies != 1 {
        Some(BadMessage::Body)
    } else {
        None
    };
    message.truncate(delimiter.map_or(1, |index| index + 1));
    match bad {
        None => Ok(Envelope(message)),
        Some(bad) => Err((bad, Envelope(message))),
    }
}

/// The body of an answer.
#[must_use]
pub const fn encode_answer(answer: Answer) -> &'static [u8] {
    answer.as_str().as_bytes()
}

/// Reads the body of an answer; `None` if it is none.
#[must_use]
pub fn parse_answer(body: &[u8]) -> Option<Answer> {
    [Answer::Go, Answer::Sorry].into_iter().find(|answer| encode_answer(*answer) == body)
}

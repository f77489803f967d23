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

/// How the answer to a client begins that has no right to what it asks for.
pub const DENIAL: &[u8] = b"error: this client ";

/// The most frames that a message may have, the routing id and the body included.
pub const FRAMES_MAX: usize = 16;

/// The most bytes that a message may have, over all its frames.
pub const BYTES_MAX: usize = 64 * 1024;

/// The most bytes that the frames up to the empty one may have, the routing id included.
pub const ENVELOPE_BYTES_MAX: usize = 1024;

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
    /// More than [`FRAMES_MAX`] frames, [`BYTES_MAX`] bytes, or [`ENVELOPE_BYTES_MAX`] of them
    /// before the body.
    #[error(
        "error: a message has at most {FRAMES_MAX} frames and {BYTES_MAX} bytes, \
         {ENVELOPE_BYTES_MAX} of them before the body"
    )]
    Size,
}

/// Finds the way back in a message that a ROUTER socket received.
///
/// # Errors
///
/// [`BadMessage`] for what no REQ socket sends; its text is the answer to send. What is given back
/// with it is as much of the way back as could be found.
pub fn parse_request(message: &Frames) -> Result<Envelope, (BadMessage, Envelope)> {
    let delimiter = message.iter().skip(1).position(<[u8]>::is_empty).map(|index| index + 1);
    // What waits for its answer keeps its envelope, so it is copied, and has a bound of its own.
    let envelope: Frames = message.iter().take(delimiter.map_or(1, |index| index + 1)).collect();
    let bodies = delimiter.map_or(0, |index| message.len() - index - 1);
    let too_large = message.len() > FRAMES_MAX || message.byte_len() > BYTES_MAX;
    if envelope.byte_len() > ENVELOPE_BYTES_MAX {
        let peer = message.iter().take(1).collect();
        Err((BadMessage::Size, Envelope(peer)))
    } else if too_large {
        Err((BadMessage::Size, Envelope(envelope)))
    } else if delimiter.is_none() {
        Err((BadMessage::Envelope, Envelope(envelope)))
    } else if bodies != 1 {
        Err((BadMessage::Body, Envelope(envelope)))
    } else {
        Ok(Envelope(envelope))
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

//! ZMTP, the protocol between ZeroMQ sockets, as far as a client needs it. Pure: it moves no byte.
//!
//! Source: ZMTP 3.1 (RFC 37 of the ZeroMQ project) with the NULL mechanism. Each side sends a
//! [`GREETING`] and then a `READY` command; after that, messages travel both ways:
//!
//! ```text
//! ┌───────┬──────────────────┬──────┐   flags: 1 more frames follow, 2 the size has 8 bytes,
//! │ flags │ size, 1 or 8 B   │ body │          4 this is a command
//! └───────┴──────────────────┴──────┘
//! ```
//!
//! A client that speaks it by itself needs no thread for its sockets: a request is one `write` and
//! an answer one `read`.

use thiserror::Error;

use crate::wire::Frames;
use crate::wire::seed::{BYTES_MAX, FRAMES_MAX};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

const GREETING_BYTES: usize = 64;

/// Signature, version 3.1, mechanism `NULL`, not a server, and filler.
pub const GREETING: [u8; GREETING_BYTES] = {
    let mut greeting = [0; GREETING_BYTES];
    (greeting[0], greeting[9]) = (0xFF, 0x7F);
    (greeting[10], greeting[11]) = (3, 1);
    (greeting[12], greeting[13], greeting[14], greeting[15]) = (b'N', b'U', b'L', b'L');
    greeting
};

/// The `READY` command of a DEALER socket: it may talk to ROUTER and REP sockets.
pub const READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER";

/// Why a peer cannot be talked to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ZmtpError {
    /// The peer is no ZeroMQ socket, or older than ZMTP 3.
    #[error("it is no ZeroMQ socket of version 4 or later")]
    NotZmtp,
    /// The peer wants another mechanism than NULL.
    #[error("it asks for the security mechanism {0:?}")]
    Mechanism(String),
    /// The peer refused the handshake.
    #[error("it refused the connection: {0:?}")]
    Refused(String),
    /// A frame that the protocol does not have here.
    #[error("it sent a malformed frame")]
    Malformed,
    /// More than [`FRAMES_MAX`] frames or [`BYTES_MAX`] bytes in one message.
    #[error("it sent a message of more than {FRAMES_MAX} frames or {BYTES_MAX} bytes")]
    Size,
}

/// What a peer has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Its greeting: answer with [`READY`].
    Greeting,
    /// Its `READY`: from now on messages may be sent.
    Ready,
    /// A whole message.
    Message(Frames),
    /// A heartbeat: answer with [`encode_pong`] of this context.
    Ping(Vec<u8>),
}

/// Adds a message to `out`.
pub fn encode_message<'a>(out: &mut Vec<u8>, frames: impl IntoIterator<Item = &'a [u8]>) {
    let mut frames = frames.into_iter().peekable();
    while let Some(frame) = frames.next() {
        let more = if frames.peek().is_some() { MORE } else { 0 };
        encode_frame(out, more, frame);
    }
}

/// Adds the answer to a heartbeat to `out`.
pub fn encode_pong(out: &mut Vec<u8>, context: &[u8]) {
    let mut command = b"\x04PONG".to_vec();
    command.extend_from_slice(context);
    encode_frame(out, COMMAND, &command);
}

fn encode_frame(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    if let Ok(size) = u8::try_from(body.len()) {
        out.extend_from_slice(&[flags, size]);
    } else {
        out.push(flags | LONG);
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
    }
    out.extend_from_slice(body);
}

/// Takes the bytes of one connection apart, however they were cut on their way.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// How many of `bytes` are done with.
    done: usize,
    stage: Stage,
    message: Frames,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Greeting,
    Handshake,
    Traffic,
}

/// A frame within the bytes of a decoder.
struct Frame {
    flags: u8,
    body: std::ops::Range<usize>,
}

impl Decoder {
    /// Takes in what came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.done == self.bytes.len() {
            self.bytes.clear();
        } else {
            self.bytes.drain(..self.done);
        }
        self.done = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Gives what the peer said next, if all of it has come.
    ///
    /// # Errors
    ///
    /// [`ZmtpError`] if the peer cannot be talked to; the connection is of no use any more.
    pub fn poll_item(&mut self) -> Result<Option<Item>, ZmtpError> {
        if self.stage == Stage::Greeting {
            return self.greeting();
        }
        while let Some(frame) = self.frame()? {
            let body = &self.bytes[frame.body.clone()];
            self.done = frame.body.end;
            if frame.flags & COMMAND != 0 {
                if let Some(item) = command(&mut self.stage, body)? {
                    return Ok(Some(item));
                }
                continue;
            }
            if self.stage != Stage::Traffic {
                return Err(ZmtpError::Malformed);
            }
            if self.message.len() >= FRAMES_MAX || self.message.byte_len() + body.len() > BYTES_MAX
            {
                return Err(ZmtpError::Size);
            }
            self.message.push(body);
            if frame.flags & MORE == 0 {
                return Ok(Some(Item::Message(std::mem::take(&mut self.message))));
            }
        }
        Ok(None)
    }

    fn greeting(&mut self) -> Result<Option<Item>, ZmtpError> {
        let bytes = &self.bytes[self.done..];
        let differs =
            |place: usize, fits: fn(u8) -> bool| bytes.get(place).is_some_and(|b| !fits(*b));
        if differs(0, |byte| byte == 0xFF)
            || differs(9, |byte| byte == 0x7F)
            || differs(10, |byte| byte >= 3)
        {
            return Err(ZmtpError::NotZmtp);
        }
        let Some(greeting) = bytes.get(..GREETING_BYTES) else { return Ok(None) };
        if greeting[12..32] != GREETING[12..32] {
            let name = String::from_utf8_lossy(&greeting[12..32]);
            return Err(ZmtpError::Mechanism(name.trim_end_matches('\0').to_owned()));
        }
        self.done += GREETING_BYTES;
        self.stage = Stage::Handshake;
        Ok(Some(Item::Greeting))
    }

    /// The next frame, if all of it has come.
    fn frame(&self) -> Result<Option<Frame>, ZmtpError> {
        let rest = &self.bytes[self.done..];
        let Some((&flags, sized)) = rest.split_first() else { return Ok(None) };
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
            return Err(ZmtpError::Malformed);
        }
        let (size, head) = if flags & LONG == 0 {
            let Some(&size) = sized.first() else { return Ok(None) };
            (u64::from(size), 2)
        } else {
            let Some(size) = sized.first_chunk() else { return Ok(None) };
            (u64::from_be_bytes(*size), 9)
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > BYTES_MAX {
            return Err(ZmtpError::Size);
        }
        let start = self.done + head;
        let body = start..start + size;
        Ok((body.end <= self.bytes.len()).then_some(Frame { flags, body }))
    }
}

/// Reads a command; those that a client has no use for say nothing.
fn command(stage: &mut Stage, body: &[u8]) -> Result<Option<Item>, ZmtpError> {
    let (&size, rest) = body.split_first().ok_or(ZmtpError::Malformed)?;
    let (name, data) = rest.split_at_checked(usize::from(size)).ok_or(ZmtpError::Malformed)?;
    match (name, *stage) {
        (b"READY", Stage::Handshake) => {
            *stage = Stage::Traffic;
            Ok(Some(Item::Ready))
        }
        (b"ERROR", Stage::Handshake) => {
            let reason = String::from_utf8_lossy(data.get(1..).unwrap_or_default());
            Err(ZmtpError::Refused(reason.into_owned()))
        }
        (b"PING", Stage::Traffic) => {
            // Two bytes say for how long; the context behind them has 16 bytes at most.
            let context = data.get(2..).ok_or(ZmtpError::Malformed)?;
            Ok(Some(Item::Ping(context[..context.len().min(16)].to_vec())))
        }
        (_, Stage::Traffic) => Ok(None),
        _ => Err(ZmtpError::Malformed),
    }
}

//! ZMTP, the protocol between ZeroMQ sockets, as far as a client needs it. Pure: it moves no byte.
//!
//! Source: ZMTP 3.1 (RFC 37 of the ZeroMQ project) with the mechanisms NULL and CURVE. Each side
//! sends a greeting and then, with NULL, a `READY` command, or the commands of [`curve`]; after
//! that, messages travel both ways:
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
use crate::wire::curve::{self, Curve};
use crate::wire::seed::{BYTES_MAX, FRAMES_MAX};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// The flag of a command within a box of CURVE.
const SEALED_COMMAND: u8 = 2;

const GREETING_BYTES: usize = 64;

/// What a client says first: the signature and the version. The rest of its greeting it says when
/// it has heard that of the server. A libzmq that hears another mechanism than its own hangs up at
/// once, and would leave its own unsaid.
pub const OPENING: &[u8] = b"\xFF\0\0\0\0\0\0\0\0\x7F\x03";

/// Where the mechanism stands in a greeting.
const MECHANISM: std::ops::Range<usize> = 12..32;

const NULL: &[u8] = b"NULL";
const CURVE: &[u8] = b"CURVE";

/// The `READY` command of a DEALER socket: it may talk to ROUTER and REP sockets.
pub const READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER";

/// Why a peer cannot be talked to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ZmtpError {
    /// The peer is no ZeroMQ socket, or older than ZMTP 3.
    #[error("it is no ZeroMQ socket of version 4 or later")]
    NotZmtp,
    /// The peer wants another mechanism than NULL and CURVE.
    #[error("it asks for the security mechanism {0:?}")]
    Mechanism(String),
    /// The peer has a key, and we know none.
    #[error("it lets in clients with keys only: give server_key and key_file")]
    KeysNeeded,
    /// We know a key, and the peer has none.
    #[error(
        "it has no key, and so it is not the one that server_key is for: nothing was sent to it"
    )]
    NoKey,
    /// The peer has another key than the one that we know.
    #[error("it has another key than server_key")]
    ServerKey,
    /// The peer does not let us in.
    #[error("it does not let this client's key in: add the public key to the server's clients")]
    NotLetIn,
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

impl ZmtpError {
    /// Whether keys are missing or wrong: it will be so again until somebody changes that.
    #[must_use]
    pub const fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::Mechanism(_) | Self::KeysNeeded | Self::NoKey | Self::ServerKey | Self::NotLetIn
        )
    }
}

/// What a peer has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Something that is answered with these bytes, before anything else.
    Answer(Vec<u8>),
    /// It is ready: from now on messages may be sent.
    Ready,
    /// A whole message.
    Message(Frames),
}

/// Adds a message to `out`.
pub fn encode_message<'a>(out: &mut Vec<u8>, frames: impl IntoIterator<Item = &'a [u8]>) {
    let mut frames = frames.into_iter().peekable();
    while let Some(frame) = frames.next() {
        let more = if frames.peek().is_some() { MORE } else { 0 };
        encode_frame(out, more, frame);
    }
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

/// A client's side of one connection: takes its bytes apart, however they were cut on their way.
#[derive(Debug, Default)]
pub struct Connection {
    bytes: Vec<u8>,
    /// How many of `bytes` are done with.
    done: usize,
    stage: Stage,
    message: Frames,
    /// The mechanism is NULL if there is none.
    curve: Option<Box<Curve>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Greeting,
    /// With CURVE only.
    Welcome,
    Ready,
    Traffic,
}

/// A frame within the bytes of a decoder.
struct Frame {
    flags: u8,
    body: std::ops::Range<usize>,
}

impl Connection {
    /// A connection that is encrypted.
    #[must_use]
    pub fn encrypted(curve: Curve) -> Self {
        Self { curve: Some(Box::new(curve)), ..Self::default() }
    }

    /// Whether the peer was told that we know its key, and has not shown yet that it has it.
    #[must_use]
    pub fn is_proving_itself(&self) -> bool {
        self.stage == Stage::Welcome
    }

    /// Adds a message to `out`.
    pub fn write_message(&mut self, out: &mut Vec<u8>, message: &Frames) {
        let Some(curve) = &mut self.curve else { return encode_message(out, message.iter()) };
        for (place, frame) in message.iter().enumerate() {
            let more = if place + 1 < message.len() { MORE } else { 0 };
            encode_frame(out, 0, &curve.seal(more, frame));
        }
    }

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
            self.done = frame.body.end;
            let body = &self.bytes[frame.body];
            let opened;
            let (flags, body) = match &mut self.curve {
                Some(curve) if self.stage == Stage::Traffic => {
                    opened = open(curve, frame.flags, body)?;
                    (opened.0, opened.1.as_slice())
                }
                _ => (frame.flags, body),
            };
            if flags & COMMAND != 0 {
                if let Some(item) = command(&mut self.stage, self.curve.as_deref_mut(), body)? {
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
            if flags & MORE == 0 {
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
        let theirs = String::from_utf8_lossy(&greeting[MECHANISM]);
        let theirs = theirs.trim_end_matches('\0').as_bytes();
        let ours = if self.curve.is_some() { CURVE } else { NULL };
        match theirs {
            _ if theirs == ours => {}
            CURVE => return Err(ZmtpError::KeysNeeded),
            NULL => return Err(ZmtpError::NoKey),
            other => {
                return Err(ZmtpError::Mechanism(String::from_utf8_lossy(other).into_owned()));
            }
        }
        self.done += GREETING_BYTES;
        let mut answer = greeting_of(ours)[OPENING.len()..].to_vec();
        if let Some(curve) = &mut self.curve {
            self.stage = Stage::Welcome;
            encode_frame(&mut answer, COMMAND, &curve.hello());
        } else {
            self.stage = Stage::Ready;
            answer.extend_from_slice(READY);
        }
        Ok(Some(Item::Answer(answer)))
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
        let overhead = if self.curve.is_some() { curve::OVERHEAD_BYTES } else { 0 };
        if size > BYTES_MAX + overhead {
            return Err(ZmtpError::Size);
        }
        let start = self.done + head;
        let body = start..start + size;
        Ok((body.end <= self.bytes.len()).then_some(Frame { flags, body }))
    }
}

/// A greeting of version 3.1 with this mechanism, of no server, and filler.
fn greeting_of(mechanism: &[u8]) -> [u8; GREETING_BYTES] {
    let mut greeting = [0; GREETING_BYTES];
    greeting[..OPENING.len()].copy_from_slice(OPENING);
    greeting[OPENING.len()] = 1;
    greeting[MECHANISM][..mechanism.len()].copy_from_slice(mechanism);
    greeting
}

/// Opens a box: its flags as those of a frame, and what is in it.
fn open(curve: &mut Curve, outer: u8, sealed: &[u8]) -> Result<(u8, Vec<u8>), ZmtpError> {
    if outer & MORE != 0 {
        return Err(ZmtpError::Malformed);
    }
    let (inner, frame) = curve.open(sealed)?;
    let command = if inner & SEALED_COMMAND != 0 { COMMAND } else { 0 };
    Ok((inner & MORE | command, frame))
}

/// Reads a command; those that a client has no use for say nothing.
fn command(
    stage: &mut Stage,
    curve: Option<&mut Curve>,
    body: &[u8],
) -> Result<Option<Item>, ZmtpError> {
    let (&size, rest) = body.split_first().ok_or(ZmtpError::Malformed)?;
    let (name, data) = rest.split_at_checked(usize::from(size)).ok_or(ZmtpError::Malformed)?;
    match (name, *stage, curve) {
        (b"WELCOME", Stage::Welcome, Some(curve)) => {
            let mut answer = Vec::new();
            encode_frame(&mut answer, COMMAND, &curve.initiate(body)?);
            *stage = Stage::Ready;
            Ok(Some(Item::Answer(answer)))
        }
        (b"READY", Stage::Ready, curve) => {
            curve.map_or(Ok(()), |curve| curve.take_ready(body))?;
            *stage = Stage::Traffic;
            Ok(Some(Item::Ready))
        }
        (b"ERROR", Stage::Welcome | Stage::Ready, _) => {
            match data.get(1..).unwrap_or_default() {
                // A status of ZAP, RFC 27: the client is not let in.
                b"400" => Err(ZmtpError::NotLetIn),
                reason => Err(ZmtpError::Refused(String::from_utf8_lossy(reason).into_owned())),
            }
        }
        (b"PING", Stage::Traffic, curve) => {
            // Two bytes say for how long; the context behind them has 16 bytes at most.
            let context = data.get(2..).ok_or(ZmtpError::Malformed)?;
            let pong = [b"\x04PONG".as_slice(), &context[..context.len().min(16)]].concat();
            let mut answer = Vec::new();
            match curve {
                Some(curve) => encode_frame(&mut answer, 0, &curve.seal(SEALED_COMMAND, &pong)),
                None => encode_frame(&mut answer, COMMAND, &pong),
            }
            Ok(Some(Item::Answer(answer)))
        }
        (_, Stage::Traffic, _) => Ok(None),
        _ => Err(ZmtpError::Malformed),
    }
}

//! CURVE, the mechanism by which ZeroMQ sockets authenticate and encrypt: a client's side of one
//! connection. Pure: what is random comes as an argument.
//!
//! Source: `CurveZMQ` (RFC 26 of the ZeroMQ project), version 1.0. S and C are the keys of the
//! server and the client, S' and C' are drawn anew for each connection; `Box[x](A->B)` is the
//! `crypto_box` of `NaCl`: X25519, `XSalsa20` and Poly1305.
//!
//! ```text
//! client                                            server
//! HELLO     C', Box[64 zeros](C'->S)           ──▶  has it the key S?
//! has it the key S?                            ◀──  WELCOME   Box[S', cookie](S->C')
//! INITIATE  cookie, Box[C, vouch](C'->S')      ──▶  vouch = Box[C', S](C->S'): has it the key C?
//!                                              ◀──  READY     Box[metadata](S'->C')
//! MESSAGE   Box[flags, frame](C'->S')          ◀─▶  MESSAGE   Box[flags, frame](S'->C')
//! ```
//!
//! Each box has a nonce that no other one of its connection has, and that rises: a frame cannot be
//! read, changed, left out or sent again by whoever carries it.

use std::fmt;

use crypto_box::aead::AeadInPlace;
use crypto_box::{SalsaBox, SecretKey};

use crate::access::{KEY_BYTES, KeyPair, PublicKey};
use crate::wire::zmtp::ZmtpError;

/// How many random bytes a connection needs.
pub const RANDOM_BYTES: usize = KEY_BYTES + LONG_NONCE_BYTES;

/// How many bytes a box in a message has more than the frame that is in it.
pub const OVERHEAD_BYTES: usize = MESSAGE.len() + SHORT_NONCE_BYTES + TAG_BYTES + 1;

/// A nonce has 24 bytes: a prefix and either a counter or something random.
const SHORT_NONCE_BYTES: usize = 8;
const LONG_NONCE_BYTES: usize = 16;

const TAG_BYTES: usize = 16;
const COOKIE_BYTES: usize = 96;

const WELCOME: &[u8] = b"\x07WELCOME";
const READY: &[u8] = b"\x05READY";
const MESSAGE: &[u8] = b"\x07MESSAGE";

/// What a DEALER socket says of itself.
const METADATA: &[u8] = b"\x0bSocket-Type\x00\x00\x00\x06DEALER";

/// The keys that a client needs to speak to a server.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The server's.
    pub server: PublicKey,
    /// The client's.
    pub client: KeyPair,
}

/// A client's side of one connection.
pub struct Curve {
    keys: Keys,
    /// C', the secret part.
    short: SecretKey,
    vouch_nonce: [u8; LONG_NONCE_BYTES],
    /// Opens and seals between C' and S', once that is known.
    between: Option<SalsaBox>,
    /// The counter of the last nonce that was used.
    sealed: u64,
    /// The counter of the last nonce that was seen.
    opened: u64,
}

impl Curve {
    /// A connection that has not begun. The random bytes must be of no other connection.
    #[must_use]
    pub fn new(keys: Keys, random: &[u8; RANDOM_BYTES]) -> Self {
        let (mut short, mut vouch_nonce) = ([0; KEY_BYTES], [0; LONG_NONCE_BYTES]);
        short.copy_from_slice(&random[..KEY_BYTES]);
        vouch_nonce.copy_from_slice(&random[KEY_BYTES..]);
        let short = SecretKey::from(short);
        Self { keys, short, vouch_nonce, between: None, sealed: 0, opened: 0 }
    }

    /// The command with which a client begins.
    pub fn hello(&mut self) -> Vec<u8> {
        let counter = self.next_counter();
        let signature = seal(&self.to_server(), &nonce(b"CurveZMQHELLO---", counter), vec![0; 64]);
        let mut hello = b"\x05HELLO\x01\x00".to_vec();
        hello.resize(hello.len() + 72, 0);
        hello.extend_from_slice(self.short.public_key().as_bytes());
        hello.extend_from_slice(&counter);
        hello.extend_from_slice(&signature);
        hello
    }

    /// Takes the server's answer to the hello, and gives the answer to that.
    ///
    /// # Errors
    ///
    /// [`ZmtpError::ServerKey`] if the server has not the key that we know.
    pub fn initiate(&mut self, welcome: &[u8]) -> Result<Vec<u8>, ZmtpError> {
        let body = welcome.strip_prefix(WELCOME).ok_or(ZmtpError::Malformed)?;
        let (long, sealed) =
            body.split_first_chunk::<LONG_NONCE_BYTES>().ok_or(ZmtpError::Malformed)?;
        if sealed.len() != KEY_BYTES + COOKIE_BYTES + TAG_BYTES {
            return Err(ZmtpError::Malformed);
        }
        let opened = open(&self.to_server(), &nonce(b"WELCOME-", *long), sealed)
            .ok_or(ZmtpError::ServerKey)?;
        let (server, cookie) =
            opened.split_first_chunk::<KEY_BYTES>().ok_or(ZmtpError::Malformed)?;
        let server = crypto_box::PublicKey::from(*server);
        let between = SalsaBox::new(&server, &self.short);

        let vouched = [*self.short.public_key().as_bytes(), *self.keys.server.bytes()].concat();
        let vouching = SalsaBox::new(&server, self.keys.client.secret());
        let vouch = seal(&vouching, &nonce(b"VOUCH---", self.vouch_nonce), vouched);
        let counter = self.next_counter();
        let own = self.keys.client.public();
        let inner = [own.bytes().as_slice(), &self.vouch_nonce, &vouch, METADATA].concat();
        let inner = seal(&between, &nonce(b"CurveZMQINITIATE", counter), inner);
        self.between = Some(between);
        Ok([b"\x08INITIATE".as_slice(), cookie, &counter, &inner].concat())
    }

    /// Takes the command by which the server lets us in.
    ///
    /// # Errors
    ///
    /// [`ZmtpError::Malformed`] if it is none, or of somebody else.
    pub fn take_ready(&mut self, ready: &[u8]) -> Result<(), ZmtpError> {
        let body = ready.strip_prefix(READY).ok_or(ZmtpError::Malformed)?;
        self.open_next(b"CurveZMQREADY---", body).map(drop)
    }

    /// A frame of a message as the server alone can read it, with its flags.
    pub fn seal(&mut self, flags: u8, frame: &[u8]) -> Vec<u8> {
        let counter = self.next_counter();
        let Some(between) = &self.between else { return Vec::new() };
        let mut inner = Vec::with_capacity(1 + frame.len() + TAG_BYTES);
        inner.push(flags);
        inner.extend_from_slice(frame);
        let inner = seal(between, &nonce(b"CurveZMQMESSAGEC", counter), inner);
        [MESSAGE, &counter, &inner].concat()
    }

    /// The flags of what the server has sealed, and what it is.
    ///
    /// # Errors
    ///
    /// [`ZmtpError::Malformed`] if it is no box of this connection, or was opened before.
    pub fn open(&mut self, sealed: &[u8]) -> Result<(u8, Vec<u8>), ZmtpError> {
        let body = sealed.strip_prefix(MESSAGE).ok_or(ZmtpError::Malformed)?;
        let mut inner = self.open_next(b"CurveZMQMESSAGES", body)?;
        if inner.is_empty() {
            return Err(ZmtpError::Malformed);
        }
        let flags = inner.remove(0);
        Ok((flags, inner))
    }

    /// Opens a box whose nonce is a counter that stands before it.
    fn open_next(&mut self, prefix: &[u8; 16], body: &[u8]) -> Result<Vec<u8>, ZmtpError> {
        let (counter, sealed) = body.split_first_chunk().ok_or(ZmtpError::Malformed)?;
        let number = u64::from_be_bytes(*counter);
        let between = self.between.as_ref().ok_or(ZmtpError::Malformed)?;
        if number <= self.opened {
            return Err(ZmtpError::Malformed);
        }
        let inner = open(between, &nonce(prefix, *counter), sealed).ok_or(ZmtpError::Malformed)?;
        self.opened = number;
        Ok(inner)
    }

    /// Of 2^64 counters no connection will see the end.
    const fn next_counter(&mut self) -> [u8; SHORT_NONCE_BYTES] {
        self.sealed += 1;
        self.sealed.to_be_bytes()
    }

    /// Opens and seals between C' and S.
    fn to_server(&self) -> SalsaBox {
        SalsaBox::new(&crypto_box::PublicKey::from(*self.keys.server.bytes()), &self.short)
    }
}

impl fmt::Debug for Curve {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Curve").field("keys", &self.keys).finish_non_exhaustive()
    }
}

fn nonce<const PREFIX: usize, const REST: usize>(
    prefix: &[u8; PREFIX],
    rest: [u8; REST],
) -> crypto_box::Nonce {
    const { assert!(PREFIX + REST == 24, "a nonce has 24 bytes") }
    let mut nonce = crypto_box::Nonce::default();
    nonce[..PREFIX].copy_from_slice(prefix);
    nonce[PREFIX..].copy_from_slice(&rest);
    nonce
}

/// The tag, and what was `plain` behind it.
fn seal(between: &SalsaBox, nonce: &crypto_box::Nonce, mut plain: Vec<u8>) -> Vec<u8> {
    // It fails for more bytes than there is memory.
    let tag = between.encrypt_in_place_detached(nonce, b"", &mut plain).unwrap_or_default();
    plain.splice(..0, tag);
    plain
}

fn open(between: &SalsaBox, nonce: &crypto_box::Nonce, sealed: &[u8]) -> Option<Vec<u8>> {
    let (tag, inner) = sealed.split_first_chunk::<TAG_BYTES>()?;
    let mut plain = inner.to_vec();
    let tag = crypto_box::Tag::from(*tag);
    between.decrypt_in_place_detached(nonce, b"", &mut plain, &tag).ok()?;
    Some(plain)
}

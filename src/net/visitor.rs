//! A connection of somebody who watches: one request, one answer, and an end in any case.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;

use crate::net::http::{Asked, HEAD_BYTES_MAX, Refusal, Route, parse};
use crate::time::Timestamp;

/// What a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It goes on.
    GoesOn,
    /// Something is asked for; only how it looks, if it is `HEAD`.
    Asks(Route, bool),
    /// What is asked for cannot be answered.
    Refused(Refusal),
    /// It is over: the answer is sent.
    Done,
    /// It is over without that.
    Gone,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) stream: TcpStream,
    /// When it is closed, whatever was said.
    pub(super) deadline: Timestamp,
    /// What was asked for and is not answered yet, and since when.
    pub(super) awaits: Option<(Route, bool, Timestamp)>,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    phase: Phase,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request is to come.
    Asking,
    /// An answer is made.
    Waiting,
    /// An answer is sent.
    Hearing,
    /// All is said. What still comes is read, lest its sender miss the answer.
    Leaving,
}

impl Visitor {
    pub(super) fn new(stream: TcpStream, deadline: Timestamp) -> Self {
        let (input, output) = (Vec::new(), Vec::new());
        let (awaits, sent, phase) = (None, 0, Phase::Asking);
        Self { stream, deadline, awaits, input, output, sent, phase }
    }

    /// Reads and writes as much as there is to.
    pub(super) fn go_on(&mut self, is_local: bool) -> Progress {
        match self.phase {
            Phase::Asking => {
                let read = self.read();
                let asked = parse(&self.input, is_local);
                if asked != Asked::NotYet {
                    self.phase = Phase::Waiting;
                }
                match asked {
                    Asked::NotYet => read,
                    Asked::For { route, is_head } => Progress::Asks(route, is_head),
                    Asked::Refused(refusal) => Progress::Refused(refusal),
                }
            }
            Phase::Waiting | Phase::Leaving => self.read(),
            Phase::Hearing => self.write(),
        }
    }

    /// Answers, as far as it can be written at once.
    pub(super) fn answer(&mut self, bytes: Vec<u8>) -> Progress {
        self.output = bytes;
        (self.phase, self.awaits) = (Phase::Hearing, None);
        self.write()
    }

    fn read(&mut self) -> Progress {
        let mut some = [0; 4096];
        loop {
            match self.stream.read(&mut some) {
                Ok(0) if self.phase == Phase::Leaving => return Progress::Done,
                // Whoever says no more may listen still.
                Ok(0) if self.phase == Phase::Waiting => return Progress::GoesOn,
                Ok(0) => return Progress::Gone,
                Ok(count) if self.phase == Phase::Asking => {
                    let room = HEAD_BYTES_MAX.saturating_sub(self.input.len());
                    self.input.extend_from_slice(&some[..count.min(room)]);
                    if room <= count {
                        return Progress::GoesOn;
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::GoesOn,
                Err(_) => return Progress::Gone,
            }
        }
    }

    /// Whether all was said that there was to say.
    pub(super) fn is_served(&self) -> bool {
        self.phase == Phase::Leaving
    }

    fn write(&mut self) -> Progress {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::GoesOn,
                Err(_) => return Progress::Gone,
            }
        }
        // That it is closed already is all that can be wrong.
        let _ = self.stream.shutdown(Shutdown::Write);
        self.phase = Phase::Leaving;
        self.read()
    }
}

//! What is typed at a terminal, from the bytes that it sends.

use std::time::Duration;

use crate::cli::top::model::Press;
use crate::time::Timestamp;

/// How long after the byte of Esc the rest of another key's may come. Over a network a key may come
/// in pieces.
const ESCAPE_TIME: Duration = Duration::from_millis(50);

/// What begins like a key and has more bytes than this is none.
const BYTES_MAX: usize = 16;

const ESCAPE: u8 = 0x1b;

/// The keyboard of a terminal.
#[derive(Debug, Default)]
pub(super) struct Keyboard {
    /// The bytes of a key that has not come as a whole.
    begun: Vec<u8>,
    begun_at: Timestamp,
}

/// What bytes begin with.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// A key, or one that means nothing here, of so many bytes.
    Whole(Option<Press>, usize),
    /// A key of which there is more to come.
    Part,
}

impl Keyboard {
    /// Takes in what the terminal has sent. The keys that were pressed.
    pub(super) fn handle(&mut self, now: Timestamp, bytes: &[u8]) -> Vec<Press> {
        let mut presses = Vec::new();
        self.begun.extend_from_slice(bytes);
        self.begun_at = now;
        while !self.begun.is_empty() {
            match beginning(&self.begun) {
                Beginning::Whole(press, length) => {
                    presses.extend(press);
                    self.begun.drain(..length);
                }
                Beginning::Part if self.begun.len() > BYTES_MAX => self.begun.clear(),
                Beginning::Part => break,
            }
        }
        presses
    }

    /// The key that is one because nothing has followed it.
    pub(super) fn poll(&mut self, now: Timestamp) -> Option<Press> {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return None;
        }
        let is_escape = self.begun == [ESCAPE];
        self.begun.clear();
        is_escape.then_some(Press::Escape)
    }

    /// When to poll next, if nothing comes before.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        (!self.begun.is_empty()).then(|| self.begun_at + ESCAPE_TIME)
    }
}

/// The first key of these bytes.
fn beginning(bytes: &[u8]) -> Beginning {
    let Some(first) = bytes.first() else { return Beginning::Part };
    let press = match first {
        &ESCAPE => return sequence(bytes),
        0x03 => Press::Interrupt,
        b'\t' => Press::Tab,
        b'\r' | b'\n' => Press::Enter,
        0x08 | 0x7f => Press::Backspace,
        0..b' ' => return Beginning::Whole(None, 1),
        _ => return letter(bytes),
    };
    Beginning::Whole(Some(press), 1)
}

/// A key that sends the byte of Esc and more, as VT100 and xterm have them.
fn sequence(bytes: &[u8]) -> Beginning {
    match bytes.get(1) {
        None => Beginning::Part,
        Some(&ESCAPE) => Beginning::Whole(Some(Press::Escape), 1),
        Some(b'O') => match bytes.get(2) {
            None => Beginning::Part,
            Some(last) => Beginning::Whole(named(b"", *last), 3),
        },
        Some(b'[') => {
            let rest = &bytes[2..];
            match rest.iter().position(|byte| (0x40..0x7f).contains(byte)) {
                None => Beginning::Part,
                Some(end) => Beginning::Whole(named(&rest[..end], rest[end]), end + 3),
            }
        }
        // A letter with Alt.
        Some(_) => Beginning::Whole(None, 2),
    }
}

fn named(numbers: &[u8], last: u8) -> Option<Press> {
    Some(match (numbers, last) {
        (_, b'A') => Press::Up,
        (_, b'B') => Press::Down,
        (_, b'H') | (b"1" | b"7", b'~') => Press::Home,
        (_, b'F') | (b"4" | b"8", b'~') => Press::End,
        (b"5", b'~') => Press::PageUp,
        (b"6", b'~') => Press::PageDown,
        (_, b'Z') => Press::BackTab,
        _ => return None,
    })
}

/// A letter in UTF-8; a byte that begins none is left out.
fn letter(bytes: &[u8]) -> Beginning {
    let bytes = &bytes[..bytes.len().min(4)];
    let valid = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => {
            return Beginning::Part;
        }
        Err(error) => str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(letter) => Beginning::Whole(Some(Press::Letter(letter)), letter.len_utf8()),
        None => Beginning::Whole(None, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    fn presses(bytes: &[u8]) -> Vec<Press> {
        Keyboard::default().handle(at(0), bytes)
    }

    #[test]
    fn keys_are_those_of_terminals() {
        for (bytes, press) in [
            (&b"\x1b[A"[..], Press::Up),
            (b"\x1bOB", Press::Down),
            (b"\x1b[1;5A", Press::Up),
            (b"\x1b[5~", Press::PageUp),
            (b"\x1b[6~", Press::PageDown),
            (b"\x1b[1~", Press::Home),
            (b"\x1bOF", Press::End),
            (b"\x1b[Z", Press::BackTab),
            (b"\t", Press::Tab),
            (b"\r", Press::Enter),
            (b"\x7f", Press::Backspace),
            (b"\x03", Press::Interrupt),
            ("鍵".as_bytes(), Press::Letter('鍵')),
        ] {
            assert_eq!(presses(bytes), [press], "{bytes:?}");
        }
        assert_eq!(presses(b"\x1b[15~\x1b[3~\x1bx\x01\xff"), [], "they mean nothing here");
        assert_eq!(presses(b"s\x1b[Br"), [Press::Letter('s'), Press::Down, Press::Letter('r')]);
    }

    #[test]
    fn a_key_may_come_in_pieces() {
        for whole in ["\x1b[5~", "\x1bOH", "é", "鍵"] {
            let mut keyboard = Keyboard::default();
            let (last, before) = whole.as_bytes().split_last().unwrap();
            for (place, byte) in (0..).zip(before) {
                assert_eq!(keyboard.handle(at(place), &[*byte]), []);
                assert_eq!(keyboard.poll(at(place)), None);
            }
            assert_eq!(keyboard.handle(at(10), &[*last]), presses(whole.as_bytes()));
            assert_eq!(keyboard.poll_timeout(), None);
        }
    }

    #[test]
    fn escape_is_a_key_once_nothing_has_followed_it() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.handle(at(0), b"\x1b"), []);
        assert_eq!((keyboard.poll(at(49)), keyboard.poll_timeout()), (None, Some(at(50))));
        assert_eq!((keyboard.poll(at(50)), keyboard.poll_timeout()), (Some(Press::Escape), None));
        assert_eq!(keyboard.poll(at(99)), None);
        assert_eq!(keyboard.handle(at(100), b"\x1b\x1b"), [Press::Escape]);
        assert_eq!(keyboard.handle(at(110), b"[A"), [Press::Up]);
        assert_eq!(keyboard.handle(at(200), b"\x1b["), []);
        assert_eq!((keyboard.poll(at(250)), keyboard.poll_timeout()), (None, None), "cut short");
    }

    #[test]
    fn a_sequence_without_an_end_is_bounded() {
        let mut keyboard = Keyboard::default();
        let presses = keyboard.handle(at(0), &[&b"\x1b["[..], &[b'1'; 1000]].concat());
        assert_eq!((presses, keyboard.begun.len()), (vec![], 0));
    }
}

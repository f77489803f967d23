//! The body of a message of ours, whichever way it goes: MessagePack arrays, one behind another.

use crate::engine::{Code, Cost, Key, Problem};
use crate::error::Error;
use crate::wire::message_pack::{Malformed, NIL, Value, read, take_byte, take_number, take_text};
use crate::wire::seed::BYTES_MAX;

/// The version of the protocol.
pub const VERSION: u64 = 1;

/// The most items that one body may have.
pub const ITEMS_MAX: usize = 4096;

/// Why an item was not read.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is no legal item, but it is known where the next one begins.
    Bad(Problem),
    /// Nothing behind it can be trusted.
    Fatal(Problem),
}

impl Fault {
    pub(super) fn protocol(message: impl Into<String>) -> Self {
        Self::Bad(Problem { code: Code::Protocol, message: message.into() })
    }

    pub(super) fn config(message: impl Into<String>) -> Self {
        Self::Bad(Problem { code: Code::Config, message: message.into() })
    }

    fn fatal(message: impl Into<String>) -> Self {
        Self::Fatal(Problem { code: Code::Protocol, message: message.into() })
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::config(error.to_string())
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::fatal(match malformed {
            Malformed::Truncated => "the message ends within an item",
            Malformed::Byte => "the message has a byte that MessagePack does not have",
        })
    }
}

/// What is left of a body.
#[derive(Clone, Debug)]
pub(super) struct Body<'a> {
    rest: &'a [u8],
    items: usize,
    too_large: bool,
}

impl<'a> Body<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, items: 0, too_large: bytes.len() > BYTES_MAX }
    }

    /// Has `parse` read the next item. There is none behind [`Fault::Fatal`].
    pub(super) fn next_item<T>(
        &mut self,
        parse: impl FnOnce(&mut Fields<'a>) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.item(parse);
        if matches!(item, Err(Fault::Fatal(_))) {
            self.rest = &[];
        }
        Some(item)
    }

    fn item<T>(
        &mut self,
        parse: impl FnOnce(&mut Fields<'a>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if self.too_large {
            return Err(Fault::fatal(format!("a message has at most {BYTES_MAX} bytes")));
        }
        if self.items == ITEMS_MAX {
            return Err(Fault::fatal(format!("a message has at most {ITEMS_MAX} items")));
        }
        self.items += 1;
        let left = match self.rest.split_first() {
            Some((head @ 0x90..=0x9f, behind)) => {
                self.rest = behind;
                (head & 0x0f).into()
            }
            _ => match read(&mut self.rest)? {
                Value::Array(left) => left,
                _ => return Err(Fault::fatal("an item must be an array")),
            },
        };
        let mut fields = Fields { rest: self.rest, left };
        let item = parse(&mut fields);
        if !matches!(item, Err(Fault::Fatal(_))) {
            while fields.left > 0 {
                fields.value()?;
            }
            self.rest = fields.rest;
        }
        item
    }
}

/// The elements of one item that were not read yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    left: u64,
}

impl<'a> Fields<'a> {
    /// How many elements the sender says there are.
    pub(super) const fn left(&self) -> u64 {
        self.left
    }

    #[inline]
    pub(super) fn number(&mut self, name: &str) -> Result<u64, Fault> {
        match self.take(take_number) {
            Some(number) => Ok(number),
            None => self.odd_number(name),
        }
    }

    /// A number that is written as a signed one, or what is none.
    #[cold]
    fn odd_number(&mut self, name: &str) -> Result<u64, Fault> {
        match self.value()? {
            Value::Number(number) => Ok(number),
            _ => Err(not_a(name, "a whole number from 0 to 2^64 - 1")),
        }
    }

    #[inline]
    pub(super) fn number_or_nil(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        if self.take(|rest| take_byte(rest, NIL).then_some(())).is_some() {
            return Ok(None);
        }
        match self.take(take_number) {
            Some(number) => Ok(Some(number)),
            None => self.odd_number_or_nil(name),
        }
    }

    #[cold]
    fn odd_number_or_nil(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        match self.value()? {
            Value::Nil => Ok(None),
            Value::Number(number) => Ok(Some(number)),
            _ => Err(not_a(name, "nil or a whole number from 0 to 2^64 - 1")),
        }
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<bool, Fault> {
        match self.value()? {
            Value::Boolean(value) => Ok(value),
            _ => Err(not_a(name, "true or false")),
        }
    }

    pub(super) fn boolean_or_nil(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        match self.value()? {
            Value::Nil => Ok(None),
            Value::Boolean(value) => Ok(Some(value)),
            _ => Err(not_a(name, "nil, true or false")),
        }
    }

    pub(super) fn bytes(&mut self, name: &str) -> Result<&'a [u8], Fault> {
        match self.value()? {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(not_a(name, "bytes")),
        }
    }

    /// Text of at most `bytes_max` bytes.
    pub(super) fn text(&mut self, name: &str, bytes_max: usize) -> Result<&'a str, Fault> {
        let bytes = self.text_bytes(name)?;
        str::from_utf8(bytes).ok().filter(|text| text.len() <= bytes_max).ok_or_else(|| {
            Fault::config(format!("{name} must be at most {bytes_max} bytes of UTF-8"))
        })
    }

    pub(super) fn key(&mut self) -> Result<Key<'a>, Fault> {
        let bytes = self.text_bytes("key")?;
        let text = str::from_utf8(bytes).map_err(|_| {
            Fault::config(format!("key must be 1 to {} bytes of UTF-8", Key::BYTES_MAX))
        })?;
        Ok(Key::parse(text)?)
    }

    pub(super) fn cost(&mut self, name: &'static str) -> Result<Cost, Fault> {
        let permits: i128 = match self.value()? {
            Value::Number(permits) => permits.into(),
            Value::Negative(permits) => permits.into(),
            _ => return Err(not_a(name, "a whole number")),
        };
        Ok(Cost::new(permits).map_err(|error| error.about(name))?)
    }

    /// There must be no more elements.
    pub(super) fn end(&self) -> Result<(), Fault> {
        match self.left {
            0 => Ok(()),
            left => Err(Fault::protocol(format!("the item has {left} elements too many"))),
        }
    }

    /// Passes over whatever is left, arrays and maps in it as well.
    pub(super) fn skip(&mut self) -> Result<(), Fault> {
        while self.left > 0 {
            // Each element takes a byte at least: this ends with the bytes, whatever is claimed.
            self.left -= 1;
            let inner = match read(&mut self.rest)? {
                Value::Array(count) => count,
                Value::Map(count) => count.saturating_mul(2),
                _ => 0,
            };
            self.left = self.left.saturating_add(inner);
        }
        Ok(())
    }

    #[inline]
    fn text_bytes(&mut self, name: &str) -> Result<&'a [u8], Fault> {
        match self.take(take_text) {
            Some(text) => Ok(text),
            None => self.odd_text(name),
        }
    }

    /// A text that is long, or what is none.
    #[cold]
    fn odd_text(&mut self, name: &str) -> Result<&'a [u8], Fault> {
        match self.value()? {
            Value::Text(bytes) => Ok(bytes),
            _ => Err(not_a(name, "text")),
        }
    }

    /// Takes the next element if it is what nearly always stands there. Otherwise nothing is taken.
    #[inline]
    fn take<T>(&mut self, take: impl FnOnce(&mut &'a [u8]) -> Option<T>) -> Option<T> {
        let left = self.left.checked_sub(1)?;
        let taken = take(&mut self.rest)?;
        self.left = left;
        Some(taken)
    }

    fn value(&mut self) -> Result<Value<'a>, Fault> {
        self.left =
            self.left.checked_sub(1).ok_or_else(|| Fault::protocol("the item is too short"))?;
        match read(&mut self.rest)? {
            Value::Array(_) | Value::Map(_) => {
                Err(Fault::fatal("an item must not have an array or a map within it"))
            }
            value => Ok(value),
        }
    }
}

fn not_a(name: &str, wanted: &str) -> Fault {
    Fault::protocol(format!("{name} must be {wanted}"))
}

//! MessagePack, as much of it as our protocol needs: numbers, text, bytes and flat arrays.
//!
//! Source: the MessagePack specification, <https://github.com/msgpack/msgpack>. What is read is
//! borrowed, so that a length that is only claimed costs nothing; every value is written in its
//! shortest form, and read in any.

use std::time::Duration;

/// One value. Of arrays and maps only the head: the elements are values that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Nil,
    Boolean(bool),
    Number(u64),
    Negative(i64),
    /// Not yet known to be UTF-8.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    Array(u64),
    Map(u64),
    /// A float or an extension, which nothing here has a use for.
    Other,
}

/// Why bytes are no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    Truncated,
    /// The one byte that begins no value.
    Byte,
}

/// Takes a value from the front of `rest`.
pub(super) fn read<'a>(rest: &mut &'a [u8]) -> Result<Value<'a>, Malformed> {
    let first = take(rest, 1)?[0];
    Ok(match first {
        0x00..=0x7f => Value::Number(first.into()),
        0x80..=0x8f => Value::Map((first & 0x0f).into()),
        0x90..=0x9f => Value::Array((first & 0x0f).into()),
        0xa0..=0xbf => Value::Text(take(rest, (first & 0x1f).into())?),
        0xc0 => Value::Nil,
        0xc1 => return Err(Malformed::Byte),
        0xc2 | 0xc3 => Value::Boolean(first == 0xc3),
        0xc4..=0xc6 => Value::Bytes(sized(rest, 1 << (first - 0xc4))?),
        0xc7..=0xc9 => {
            sized(rest, 1 << (first - 0xc7)).and_then(|_| take(rest, 1))?;
            Value::Other
        }
        0xca | 0xcb => {
            take(rest, 4 << (first - 0xca))?;
            Value::Other
        }
        0xcc..=0xcf => Value::Number(unsigned(rest, 1 << (first - 0xcc))?),
        0xd0..=0xd3 => {
            let width = 1 << (first - 0xd0);
            let unused = 64 - 8 * width;
            let number = (unsigned(rest, width)? << unused).cast_signed() >> unused;
            u64::try_from(number).map_or(Value::Negative(number), Value::Number)
        }
        0xd4..=0xd8 => {
            take(rest, 1 + (1 << (first - 0xd4)))?;
            Value::Other
        }
        0xd9..=0xdb => Value::Text(sized(rest, 1 << (first - 0xd9))?),
        0xdc | 0xdd => Value::Array(unsigned(rest, 2 << (first - 0xdc))?),
        0xde | 0xdf => Value::Map(unsigned(rest, 2 << (first - 0xde))?),
        0xe0..=0xff => Value::Negative(first.cast_signed().into()),
    })
}

/// Takes a number from the front of `rest`, if it is one that is written as unsigned. What
/// [`read`] would find, without a look at all the other kinds of values.
#[inline]
pub(super) fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let (first, behind) = rest.split_first()?;
    let (number, behind) = match *first {
        first @ 0x00..=0x7f => (first.into(), behind),
        0xcc => take_unsigned(behind, u8::from_be_bytes)?,
        0xcd => take_unsigned(behind, u16::from_be_bytes)?,
        0xce => take_unsigned(behind, u32::from_be_bytes)?,
        0xcf => take_unsigned(behind, u64::from_be_bytes)?,
        _ => return None,
    };
    *rest = behind;
    Some(number)
}

#[inline]
fn take_unsigned<const N: usize, T: Into<u64>>(
    rest: &[u8],
    read: impl FnOnce([u8; N]) -> T,
) -> Option<(u64, &[u8])> {
    let (bytes, behind) = rest.split_first_chunk()?;
    Some((read(*bytes).into(), behind))
}

/// Takes a text of less than 256 bytes from the front of `rest`, if there is one.
#[inline]
pub(super) fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (size, behind) = match **rest {
        [first @ 0xa0..=0xbf, ref behind @ ..] => (first & 0x1f, behind),
        [0xd9, size, ref behind @ ..] => (size, behind),
        _ => return None,
    };
    let (text, behind) = behind.split_at_checked(size.into())?;
    *rest = behind;
    Some(text)
}

/// Takes one byte from the front of `rest` if it is this one.
#[inline]
pub(super) fn take_byte(rest: &mut &[u8], byte: u8) -> bool {
    let found = rest.first() == Some(&byte);
    if found {
        *rest = &rest[1..];
    }
    found
}

/// Bytes behind their number, which is `width` bytes long.
fn sized<'a>(rest: &mut &'a [u8], width: usize) -> Result<&'a [u8], Malformed> {
    let size = unsigned(rest, width)?;
    take(rest, usize::try_from(size).map_err(|_| Malformed::Truncated)?)
}

fn unsigned(rest: &mut &[u8], width: usize) -> Result<u64, Malformed> {
    Ok(take(rest, width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (taken, behind) = rest.split_at_checked(count).ok_or(Malformed::Truncated)?;
    *rest = behind;
    Ok(taken)
}

/// The only byte of nil.
pub(super) const NIL: u8 = 0xc0;

pub(super) fn write_nil(out: &mut Vec<u8>) {
    out.push(NIL);
}

pub(super) fn write_boolean(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

pub(super) fn write_number(out: &mut Vec<u8>, number: u64) {
    if let Ok(number) = u8::try_from(number) {
        if number < 0x80 {
            out.push(number);
        } else {
            out.extend_from_slice(&[0xcc, number]);
        }
    } else if let Ok(number) = u16::try_from(number) {
        write_sized(out, 0xcd, number.to_be_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        write_sized(out, 0xce, number.to_be_bytes());
    } else {
        write_sized(out, 0xcf, number.to_be_bytes());
    }
}

/// A length of time, as nanoseconds; one of 584 years stands for all that are longer.
pub(super) fn write_nanos(out: &mut Vec<u8>, length: Duration) {
    write_number(out, u64::try_from(length.as_nanos()).unwrap_or(u64::MAX));
}

/// The head of an array; its elements are to be written next.
pub(super) fn write_array(out: &mut Vec<u8>, count: usize) {
    match u8::try_from(count) {
        Ok(count @ ..0x10) => out.push(0x90 | count),
        _ => write_long_head(out, [0xdc, 0xdd], count),
    }
}

pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(size @ ..0x20) => out.push(0xa0 | size),
        Ok(size) => out.extend_from_slice(&[0xd9, size]),
        Err(_) => write_long_head(out, [0xda, 0xdb], text.len()),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Bytes whose number is known to be small.
pub(super) fn write_bytes<const N: usize>(out: &mut Vec<u8>, bytes: &[u8; N]) {
    const { assert!(N < 0x100, "one byte says how many there are") }
    out.extend_from_slice(&[0xc4, N.to_le_bytes()[0]]);
    out.extend_from_slice(bytes);
}

/// A head with a size of two bytes or, if that is not enough, of four.
fn write_long_head(out: &mut Vec<u8>, heads: [u8; 2], size: usize) {
    if let Ok(size) = u16::try_from(size) {
        write_sized(out, heads[0], size.to_be_bytes());
    } else {
        // More than that fits into no message, and so the reader says that it is truncated.
        write_sized(out, heads[1], u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
    }
}

fn write_sized<const N: usize>(out: &mut Vec<u8>, head: u8, bytes: [u8; N]) {
    out.push(head);
    out.extend_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_what_would_be_read() {
        for first in 0..=u8::MAX {
            for length in 0..12 {
                let bytes: Vec<u8> = [first].into_iter().chain(1..=length).collect();
                let (mut read_from, mut number_from, mut text_from) = (&*bytes, &*bytes, &*bytes);
                let value = read(&mut read_from);
                if let Some(number) = take_number(&mut number_from) {
                    assert_eq!((value, read_from), (Ok(Value::Number(number)), number_from));
                } else {
                    assert_eq!(number_from, bytes, "nothing is taken");
                }
                if let Some(text) = take_text(&mut text_from) {
                    assert_eq!((value, read_from), (Ok(Value::Text(text)), text_from));
                } else {
                    assert_eq!(text_from, bytes, "nothing is taken");
                }
            }
        }
    }
}

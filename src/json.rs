//! JSON as RFC 8259 has it, written and never read.

use std::fmt::Write;

/// Something that is written as JSON.
pub(crate) trait Json {
    /// Adds it to `text`.
    fn write(&self, text: &mut String);
}

/// A text, in quotes.
impl Json for str {
    fn write(&self, text: &mut String) {
        text.push('"');
        for letter in self.chars() {
            match letter {
                '"' | '\\' => text.extend(['\\', letter]),
                '\n' => text.push_str("\\n"),
                '\0'..' ' => {
                    // Writing to a string does not fail.
                    let _ = write!(text, "\\u{:04x}", u32::from(letter));
                }
                _ => text.push(letter),
            }
        }
        text.push('"');
    }
}

impl Json for String {
    fn write(&self, text: &mut String) {
        self.as_str().write(text);
    }
}

impl<T: Json + ?Sized> Json for &T {
    fn write(&self, text: &mut String) {
        (*self).write(text);
    }
}

macro_rules! as_displayed {
    ($($type:ty),*) => {$(
        impl Json for $type {
            fn write(&self, text: &mut String) {
                let _ = write!(text, "{self}");
            }
        }
    )*};
}

as_displayed!(bool, i64, i128, u8, u32, u64, u128, usize);

/// What is no number of JSON is null.
impl Json for f64 {
    fn write(&self, text: &mut String) {
        if self.is_finite() {
            let _ = write!(text, "{self}");
        } else {
            text.push_str("null");
        }
    }
}

/// In seconds.
impl Json for std::time::Duration {
    fn write(&self, text: &mut String) {
        self.as_secs_f64().write(text);
    }
}

/// Nothing is null.
impl<T: Json> Json for Option<T> {
    fn write(&self, text: &mut String) {
        match self {
            Some(value) => value.write(text),
            None => text.push_str("null"),
        }
    }
}

impl<T: Json> Json for [T] {
    fn write(&self, text: &mut String) {
        text.push('[');
        for (place, value) in self.iter().enumerate() {
            if place > 0 {
                text.push_str(", ");
            }
            value.write(text);
        }
        text.push(']');
    }
}

impl<T: Json> Json for Vec<T> {
    fn write(&self, text: &mut String) {
        self.as_slice().write(text);
    }
}

/// An object, whose members are in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The object with one member more.
    pub(crate) fn with(mut self, name: &str, value: &(impl Json + ?Sized)) -> Self {
        self.add(name, value);
        self
    }

    pub(crate) fn add(&mut self, name: &str, value: &(impl Json + ?Sized)) {
        if !self.0.is_empty() {
            self.0.push_str(", ");
        }
        name.write(&mut self.0);
        self.0.push_str(": ");
        value.write(&mut self.0);
    }
}

impl Json for Object {
    fn write(&self, text: &mut String) {
        text.push('{');
        text.push_str(&self.0);
        text.push('}');
    }
}

/// A value as a document of its own.
pub(crate) fn document(value: &(impl Json + ?Sized)) -> String {
    let mut text = String::new();
    value.write(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(document("a\"b\\c\n\u{1b}é"), r#""a\"b\\c\n\u001bé""#);
    }

    #[test]
    fn an_object_has_its_members_in_order() {
        let object = Object::new()
            .with("b", &true)
            .with("a", &Some(0.8))
            .with("none", &None::<u64>)
            .with("no number", &f64::NAN)
            .with("list", &vec![Object::new().with("x", &1_u64), Object::new()]);
        let text =
            r#"{"b": true, "a": 0.8, "none": null, "no number": null, "list": [{"x": 1}, {}]}"#;
        assert_eq!(document(&object), text);
    }
}

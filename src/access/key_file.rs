//! The text of key files: TOML that says what it is.

use crate::access::key::{KeyPair, PublicKey};
use crate::config_file::{Errors, string};
use crate::error::Error;

/// The longest file of a key, in bytes.
pub const KEY_FILE_BYTES_MAX: usize = 4096;

const PUBLIC: &str = "public_key";
const SECRET: &str = "secret_key";

/// What a file says.
#[derive(Default)]
struct Keys {
    public: Option<PublicKey>,
    secret: Option<KeyPair>,
}

/// The text of a file with a secret key, and the public key with it.
#[must_use]
pub fn secret_text(keys: &KeyPair) -> String {
    format!(
        "# A secret key of zmqlocker: whoever can read this file can pass for its owner.\n\
         {PUBLIC} = \"{}\"\n\
         {SECRET} = \"{}\"\n",
        keys.public(),
        keys.secret_text()
    )
}

/// The text of a file with a public key alone.
#[must_use]
pub fn public_text(key: &PublicKey) -> String {
    format!("# A public key of zmqlocker: it may be shown to anybody.\n{PUBLIC} = \"{key}\"\n")
}

/// Reads the text of a file with a secret key; `argument` and `name` are what errors call it.
///
/// # Errors
///
/// [`Error::Config`] that tells every line that is wrong, or that it is the file of a public key.
pub fn parse_secret(argument: &'static str, name: &str, text: &str) -> Result<KeyPair, Error> {
    let keys = parse(argument, name, text)?;
    let Some(secret) = keys.secret else {
        let problem = if keys.public.is_some() {
            format!("{name} has a public key only: name the file with the secret key beside it")
        } else {
            format!("{name} has no {SECRET}")
        };
        return Err(Error::Config { argument, problem });
    };
    if keys.public.is_some_and(|public| public != secret.public()) {
        let problem = format!("{name}: {PUBLIC} does not belong to {SECRET}");
        return Err(Error::Config { argument, problem });
    }
    Ok(secret)
}

/// Reads the text of a file with a public key; `argument` and `name` are what errors call it.
///
/// # Errors
///
/// [`Error::Config`] that tells every line that is wrong, or that it is the file of a secret key.
pub fn parse_public(argument: &'static str, name: &str, text: &str) -> Result<PublicKey, Error> {
    let keys = parse(argument, name, text)?;
    if keys.secret.is_some() {
        let problem = format!(
            "{name} has a secret key, which only its owner should have: name the file with the \
             public key beside it"
        );
        return Err(Error::Config { argument, problem });
    }
    keys.public.ok_or_else(|| {
        let problem = format!("{name} has no {PUBLIC}");
        Error::Config { argument, problem }
    })
}

fn parse(argument: &'static str, name: &str, text: &str) -> Result<Keys, Error> {
    Errors::parse(argument, name, text, KEY_FILE_BYTES_MAX, |errors, table| {
        errors.refuse_unknown(table, &[PUBLIC, SECRET]);
        Keys {
            public: errors.value(table, PUBLIC, |argument, value| {
                PublicKey::parse(argument, string(argument, value)?)
            }),
            secret: errors.value(table, SECRET, |argument, value| {
                KeyPair::parse(argument, string(argument, value)?)
            }),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> KeyPair {
        KeyPair::of_secret([7; 32])
    }

    #[test]
    fn what_is_written_is_read() {
        let keys = keys();
        let read = parse_secret("key_file", "a.key", &secret_text(&keys)).unwrap();
        assert_eq!(read.secret_bytes(), keys.secret_bytes());
        let public = public_text(&keys.public());
        assert_eq!(parse_public("server_key", "a.pub", &public).unwrap(), keys.public());
        assert!(!public.contains(&keys.secret_text()));
    }

    #[test]
    fn errors_have_places_and_say_what_to_do() {
        let keys = keys();
        let public = public_text(&keys.public());
        let other = secret_text(&KeyPair::of_secret([8; 32]));
        let mixed = format!("{public}{}", other.lines().last().unwrap());
        for (text, error) in [
            ("", "key_file a.key has no secret_key"),
            (
                &public,
                "key_file a.key has a public key only: name the file with the secret key beside it",
            ),
            (&mixed, "key_file a.key: public_key does not belong to secret_key"),
            (
                "\nsecret_key = \"x\"",
                "key_file a.key:2:14: secret_key must be a key of 40 letters of Z85",
            ),
            (
                "secret = 1\nsecret_key = 7",
                "key_file a.key:1:1: unknown key \"secret\": there are public_key, secret_key\n\
                 a.key:2:14: secret_key must be a string, not a whole number",
            ),
        ] {
            assert_eq!(parse_secret("key_file", "a.key", text).unwrap_err().to_string(), error);
        }
        assert_eq!(
            parse_public("server_key", "a.key", &secret_text(&keys)).unwrap_err().to_string(),
            "server_key a.key has a secret key, which only its owner should have: name the file \
             with the public key beside it"
        );
        let long = "#".repeat(KEY_FILE_BYTES_MAX + 1);
        assert_eq!(
            parse_public("server_key", "a.key", &long).unwrap_err().to_string(),
            "server_key a.key:1:1: must be at most 4096 bytes, not 4097"
        );
    }
}

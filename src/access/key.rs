//! Keys of CURVE: 32 bytes each, written as 40 letters of Z85.

use std::fmt;

use crate::error::Error;

/// How many bytes a key has.
pub const KEY_BYTES: usize = 32;

/// How many letters the text of a key has.
pub const KEY_LETTERS: usize = 40;

/// The letters of Z85, by what they count: RFC 32 of the ZeroMQ project.
const Z85: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// One more than what each byte counts as a letter; 0 if it is none.
const DIGITS: [u8; 256] = {
    let mut digits = [0; 256];
    let mut digit = 0_u8;
    while digit < 85 {
        digits[Z85[digit as usize] as usize] = digit + 1;
        digit += 1;
    }
    digits
};

/// A public key: it may be shown to anybody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// A key of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads the text of a key; `argument` is what an error calls it.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that says how a key reads.
    ///
    /// ```
    /// use zmqlocker::access::PublicKey;
    ///
    /// let text = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
    /// assert_eq!(PublicKey::parse("server_key", text)?.to_string(), text);
    /// assert!(PublicKey::parse("server_key", "secret").is_err());
    /// # Ok::<(), zmqlocker::error::Error>(())
    /// ```
    pub fn parse(argument: &'static str, text: &str) -> Result<Self, Error> {
        decode(text).map(Self).ok_or_else(|| not_a_key(argument))
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({self})")
    }
}

/// A secret key and the public key that goes with it. The secret is wiped from memory when it is
/// dropped, and no `Debug` shows it.
#[derive(Clone)]
pub struct KeyPair {
    public: PublicKey,
    secret: crypto_box::SecretKey,
}

impl KeyPair {
    /// The pair of a secret key, which is 32 bytes drawn at random.
    #[must_use]
    pub fn of_secret(secret: [u8; KEY_BYTES]) -> Self {
        let secret = crypto_box::SecretKey::from(secret);
        Self { public: PublicKey(*secret.public_key().as_bytes()), secret }
    }

    /// Reads the text of a secret key; `argument` is what an error calls it.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that says how a key reads, and does not quote the text.
    pub fn parse(argument: &'static str, secret: &str) -> Result<Self, Error> {
        decode(secret).map(Self::of_secret).ok_or_else(|| not_a_key(argument))
    }

    /// The public key.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The secret key.
    pub(crate) const fn secret(&self) -> &crypto_box::SecretKey {
        &self.secret
    }

    /// The bytes of the secret key.
    #[must_use]
    pub fn secret_bytes(&self) -> [u8; KEY_BYTES] {
        self.secret.to_bytes()
    }

    /// The text of the secret key.
    #[must_use]
    pub fn secret_text(&self) -> String {
        encode(&self.secret.to_bytes())
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyPair({}, ...)", self.public)
    }
}

fn not_a_key(argument: &'static str) -> Error {
    let problem = format!("must be a key of {KEY_LETTERS} letters of Z85");
    Error::Config { argument, problem }
}

/// Four bytes become five letters.
fn encode(bytes: &[u8; KEY_BYTES]) -> String {
    let mut text = String::with_capacity(KEY_LETTERS);
    for four in bytes.chunks_exact(4) {
        let mut number = four.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let mut letters = [0; 5];
        for letter in letters.iter_mut().rev() {
            *letter = Z85[(number % 85) as usize];
            number /= 85;
        }
        text.extend(letters.map(char::from));
    }
    text
}

fn decode(text: &str) -> Option<[u8; KEY_BYTES]> {
    if text.len() != KEY_LETTERS {
        return None;
    }
    let mut bytes = [0; KEY_BYTES];
    for (four, letters) in bytes.chunks_exact_mut(4).zip(text.as_bytes().chunks_exact(5)) {
        let mut number = 0_u64;
        for letter in letters {
            let digit = DIGITS[usize::from(*letter)].checked_sub(1)?;
            number = number * 85 + u64::from(digit);
        }
        four.copy_from_slice(&u32::try_from(number).ok()?.to_be_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of RFC 26's examples, as libzmq's own tests have them.
    const PUBLIC: &str = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
    const SECRET: &str = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";

    #[test]
    fn a_public_key_belongs_to_its_secret() {
        let pair = KeyPair::parse("key", SECRET).unwrap();
        assert_eq!(pair.public().to_string(), PUBLIC);
        assert_eq!(pair.secret_text(), SECRET);
    }

    #[test]
    fn no_debug_shows_a_secret() {
        let pair = KeyPair::parse("key", SECRET).unwrap();
        assert_eq!(format!("{pair:?}"), format!("KeyPair({PUBLIC}, ...)"));
    }

    #[test]
    fn the_vector_of_rfc_32() {
        let eight = [0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B];
        let key = PublicKey::new(std::array::from_fn(|place| eight[place % 8]));
        assert_eq!(key.to_string(), "HelloWorld".repeat(4));
        assert_eq!(PublicKey::parse("key", &key.to_string()).unwrap(), key);
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_quoted() {
        let longest = "#".repeat(KEY_LETTERS);
        let letter = format!("{}\"", &PUBLIC[1..]);
        let short = &PUBLIC[1..];
        for text in ["", short, &longest, &letter, &"é".repeat(20)] {
            let error = KeyPair::parse("key_file", text).unwrap_err().to_string();
            assert_eq!(error, "key_file must be a key of 40 letters of Z85");
        }
    }
}

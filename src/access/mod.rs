//! Who may do what: keys, the files that hold them, and the list of a server's clients. Pure.

mod clients;
mod key;
mod key_file;
mod right;

pub use clients::{Client, Clients};
pub use key::{KEY_BYTES, KEY_LETTERS, KeyPair, PublicKey};
pub use key_file::{KEY_FILE_BYTES_MAX, parse_public, parse_secret, public_text, secret_text};
pub use right::{Right, Rights, needs};

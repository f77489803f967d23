//! `zmqlocker keygen`: makes a key for a server or a client.

use std::path::PathBuf;

use clap::Args;

use crate::cli::client::print;
use crate::cli::json::{Object, document};
use crate::cli::{Failure, Status};
use crate::net::{new_keys, write_keys};

/// Make a secret key, and a public key beside it.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker keygen worker.key

The secret key is for its owner alone: a server's goes to `serve --curve-key`, a client's to \
`--key-file`. The public key is for the others: a server's goes to `--server-key`, a client's into \
the file of `serve --clients`.

Exit status: 0 made, 2 one of the files is there already, 3 they cannot be written.")]
pub(super) struct Keygen {
    /// The file of the secret key, with mode 0600. The public key goes into PATH.pub. A file that
    /// is there already is never written over.
    path: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

impl Keygen {
    pub(super) fn run(&self) -> Result<Status, Failure> {
        let keys = new_keys()?;
        let public = write_keys(&self.path, &keys)?;
        let (key, file) = (keys.public().to_string(), public.display().to_string());
        print(&if self.json {
            let object = Object::new().with("public_key", &key).with("public_key_file", &file);
            document(&object) + "\n"
        } else {
            format!("{key}  {file}\n")
        })?;
        Ok(Status::Done)
    }
}

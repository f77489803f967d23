//! Files of keys: made once, and refused where others can read a secret.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::access::{
    KEY_BYTES, KEY_FILE_BYTES_MAX, KeyPair, PublicKey, parse_public, parse_secret, public_text,
    secret_text,
};
use crate::error::Error;
use crate::wire::curve::Keys;

/// What the name of a public key's file has behind that of the secret one.
const PUBLIC_SUFFIX: &str = ".pub";

/// What the owner alone may do with a secret.
const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// Bits of a mode: what others than the owner may do, and what others than the group may.
const OTHERS: u32 = 0o077;
const OUTSIDE_GROUP: u32 = 0o037;

/// Draws a new pair of keys.
///
/// # Errors
///
/// [`Error::System`] if the system has no random bytes.
pub fn new_keys() -> Result<KeyPair, Error> {
    let mut secret = [0; KEY_BYTES];
    getrandom::fill(&mut secret).map_err(|error| Error::system("draw a key", &error))?;
    Ok(KeyPair::of_secret(secret))
}

/// Writes a secret key to `path`, which nobody but its owner may read, and the public key to a file
/// beside it: its path.
///
/// # Errors
///
/// [`Error::Config`] if one of the files is there already, [`Error::System`] if they cannot be
/// written; then neither is left.
pub fn write_keys(path: &Path, keys: &KeyPair) -> Result<PathBuf, Error> {
    let mut public = path.as_os_str().to_owned();
    public.push(PUBLIC_SUFFIX);
    let public = PathBuf::from(public);
    if public.symlink_metadata().is_ok() {
        return Err(is_there(&public));
    }
    write_new(path, SECRET_MODE, &secret_text(keys))?;
    if let Err(error) = write_new(&public, PUBLIC_MODE, &public_text(&keys.public())) {
        // The key was used by nobody. If it cannot be removed, it cannot be written over either.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(public)
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), Error> {
    let unwritable = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(path),
        _ => Error::system("write a key", &format!("{}: {error}", path.display())),
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(path).map_err(unwritable)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Nobody has read half a key.
        let _ = fs::remove_file(path);
        unwritable(error)
    })
}

fn is_there(path: &Path) -> Error {
    let problem = format!("{} is there already: a key is never written over", path.display());
    Error::Config { argument: "path", problem }
}

/// Reads the file of a secret key; `argument` is what errors call it.
///
/// # Errors
///
/// [`Error::Config`] if it cannot be read, is no such file, or can be read by others than its
/// owner. The group of a file of root may read it, as containers mount secrets.
pub fn read_secret(argument: &'static str, path: &Path) -> Result<KeyPair, Error> {
    let name = path.to_string_lossy();
    let (file, text) = read(argument, path)?;
    let keys = parse_secret(argument, &name, &text)?;
    let metadata = file.metadata().map_err(|error| unreadable(argument, path, &error))?;
    let others = if metadata.uid() == 0 { OUTSIDE_GROUP } else { OTHERS };
    let mode = metadata.mode() & 0o777;
    if mode & others != 0 {
        let problem = format!(
            "{name} can be read by others than its owner, its mode is {mode:04o}: chmod 600 \
             {name}, and make a new key if somebody may have read it"
        );
        return Err(Error::Config { argument, problem });
    }
    Ok(keys)
}

/// The keys of a client: `server_key` is the text of the server's public key or the path of its
/// file, `key_file` the path of the client's own secret key. Without that one, a client has a new
/// key that no server knows, which is enough for those that let anybody in.
///
/// # Errors
///
/// [`Error::Config`] if a file cannot be read or is none of a key, or if there is a key of the
/// client's and none of the server's.
pub fn client_keys(
    server_key: Option<&Path>,
    key_file: Option<&Path>,
) -> Result<Option<Keys>, Error> {
    let Some(server_key) = server_key else {
        return key_file.map_or(Ok(None), |_| {
            let problem = "needs server_key, the public key of the server".to_owned();
            Err(Error::Config { argument: "key_file", problem })
        });
    };
    let server = read_server_key(server_key)?;
    let client = key_file.map_or_else(new_keys, |path| read_secret("key_file", path))?;
    Ok(Some(Keys { server, client }))
}

/// The text of a key, or the path of its file.
fn read_server_key(key: &Path) -> Result<PublicKey, Error> {
    let (argument, text) = ("server_key", key.to_string_lossy());
    if let (Ok(key), false) = (PublicKey::parse(argument, &text), key.exists()) {
        return Ok(key);
    }
    let (_, content) = read(argument, key)?;
    parse_public(argument, &text, &content)
}

fn read(argument: &'static str, path: &Path) -> Result<(File, String), Error> {
    let unreadable = |error| unreadable(argument, path, &error);
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    // One byte more than a file may have, at most: then it is seen to be too long.
    (&file).take(KEY_FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    Ok((file, text))
}

fn unreadable(argument: &'static str, path: &Path, error: &std::io::Error) -> Error {
    let error = error.to_string().to_lowercase();
    let problem = format!("{} cannot be read: {error}", path.display());
    Error::Config { argument, problem }
}

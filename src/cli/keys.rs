//! The keys of a command that asks a server: two options that all of them have.

use std::path::PathBuf;

use clap::Args;

use crate::config::ClientConfig;
use crate::error::Error;
use crate::net::client_keys;

/// The keys with which a server is asked; without them, nothing is encrypted.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Keys {
    /// The server's public key, as text or as a file, if it has one.
    #[arg(long, value_name = "KEY", env = "ZMQLOCKER_SERVER_KEY", hide_env_values = true)]
    server_key: Option<PathBuf>,
    /// The file of the secret key to be known by, as `keygen` makes it.
    #[arg(long, value_name = "FILE", env = "ZMQLOCKER_KEY_FILE", hide_env_values = true)]
    key_file: Option<PathBuf>,
}

impl Keys {
    /// The same settings for a client that has these keys.
    pub(super) fn give(&self, config: ClientConfig) -> Result<ClientConfig, Error> {
        config.with_keys(client_keys(self.server_key.as_deref(), self.key_file.as_deref())?)
    }
}

//! What a server is told, by its caller and by a file: what the caller says goes first.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{ServerConfig, Url};
use crate::config_file::FileConfig;
use crate::engine::{Bounds, Limits, Rate, Rules, SomeBounds};
use crate::error::Error;

/// Where a server serves if nothing else is said.
const URL: &str = "tcp://*:7777";

/// Where it does so for this host alone.
const LOCAL_URL: &str = "tcp://127.0.0.1:7777";

/// What the caller says; what is left out, the file says, or else the default holds.
#[derive(Clone, Debug, Default)]
pub struct ServerSettings {
    /// The file `zmqlocker.toml`.
    pub config: Option<PathBuf>,
    /// Where to serve.
    pub url: Option<Url>,
    /// Whether this host alone is served where no URL is said.
    pub is_local: bool,
    /// The limit of every key without a rule.
    pub rate: Option<Rate>,
    /// The limits of keys and patterns. They go before those of the file for the same ones.
    pub limits: Option<Vec<(String, Limits)>>,
    /// How long a request may wait for its permits.
    pub patience: Option<Duration>,
    /// Where usage outlives the server.
    pub data_dir: Option<PathBuf>,
    /// How many of what there may be at a time.
    pub bounds: SomeBounds,
}

impl ServerSettings {
    /// The settings, with the file as it is now.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the file cannot be read, or is wrong anywhere.
    pub fn resolve(&self) -> Result<ServerConfig, Error> {
        let file = self.config.as_deref().map(read_config).transpose()?.unwrap_or_default();
        let url = self.url.clone().or(file.url);
        let default_url = if self.is_local { LOCAL_URL } else { URL };
        Ok(ServerConfig {
            rules: self.rules(file.limits, file.rate)?,
            url: url.map_or_else(|| Url::parse(default_url), Ok)?,
            patience: self.patience.or(file.patience).unwrap_or_default(),
            data_dir: self.data_dir.clone().or(file.data_dir),
            bounds: self.bounds.over(file.bounds.over(Bounds::default())),
        })
    }

    /// The rules of both. Where neither names a key nor a rate, all keys have the seed's limit.
    fn rules(&self, file: Vec<(String, Limits)>, rate: Option<Rate>) -> Result<Rules, Error> {
        let none_named = self.limits.is_none() && file.is_empty();
        let ours = self.limits.as_deref().unwrap_or_default();
        let is_ours = |key: &String| ours.iter().any(|(our, _)| our == key);
        let theirs = file.into_iter().filter(|(key, _)| !is_ours(key));
        let rate = self.rate.or(rate);
        let others = match rate {
            Some(rate) => Some(rate),
            None if none_named => Some(Rate::new(1, 1.0)?),
            None => None,
        };
        Rules::new(ours.iter().cloned().chain(theirs), others.map(Limits::of_rate))
    }
}

/// Reads a file of settings.
///
/// # Errors
///
/// [`Error::Config`] that names the file; of one that is wrong, every line that is.
pub fn read_config(path: &Path) -> Result<FileConfig, Error> {
    let name = path.to_string_lossy();
    let unreadable = |error: std::io::Error| Error::Config {
        argument: "config",
        problem: format!("{name} cannot be read: {}", error.to_string().to_lowercase()),
    };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    // One byte more than a file may have, at most: then it is seen to be too long.
    let most = FileConfig::TEXT_BYTES_MAX as u64 + 1;
    file.take(most).read_to_string(&mut text).map_err(unreadable)?;
    FileConfig::parse(&name, &text)
}

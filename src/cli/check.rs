//! `zmqlocker check`: says whether a configuration file is right, and where it is not.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use clap::Args;

use crate::cli::{Failure, Status};
use crate::config_file::FileConfig;
use crate::engine::Limits;
use crate::error::Error;
use crate::net::read_config;

/// Check a configuration file and print each error with its line and column.
#[derive(Args, Debug)]
pub(super) struct Check {
    /// The file, as zmqlocker.toml.
    file: String,
}

impl Check {
    pub(super) fn run(&self) -> Result<Status, Failure> {
        // A file that is not there is no wrong file.
        let unreadable =
            |error: io::Error| Error::system("read the file", &format!("{}: {error}", self.file));
        drop(File::open(&self.file).map_err(unreadable)?);
        let config = match read_config(Path::new(&self.file)) {
            Ok(config) => config,
            Err(Error::Config { problem, .. }) => {
                writeln!(io::stderr(), "{problem}")?;
                return Ok(Status::Usage);
            }
            Err(error) => return Err(error.into()),
        };
        write!(io::stdout(), "{}", summary(&self.file, &config))?;
        Ok(Status::Done)
    }
}

/// The limits as they were read, one a line, and that all is well.
fn summary(name: &str, config: &FileConfig) -> String {
    let others = config.rate.map(|rate| ("other keys".to_owned(), Limits::of_rate(rate)));
    let rules: Vec<_> = config.limits.iter().cloned().chain(others).collect();
    let width = rules.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let lines = rules.iter().map(|(key, limits)| {
        let texts: Vec<&str> = (0..limits.count()).map(|place| &**limits.text(place)).collect();
        format!("{key:width$}  {}\n", texts.join(", "))
    });
    let noun = if rules.len() == 1 { "rule" } else { "rules" };
    lines.collect::<String>() + &format!("{name}: ok, {} {noun}\n", rules.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_shown_in_its_shortest_form() {
        let text = "max_requests = 5\nin_seconds = 0.8\n\
                    [limits]\na = [\"5/second\", \"2 at once\"]\n\
                    \"tenant:*\" = \"60/60s sliding\"";
        let config = FileConfig::parse("a.toml", text).unwrap();
        let lines = "a           5/s, 2 at once\n\
                     tenant:*    60/min sliding\n\
                     other keys  5/0.8s\n\
                     a.toml: ok, 3 rules\n";
        assert_eq!(summary("a.toml", &config), lines);
    }
}

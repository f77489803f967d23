//! `zmqlocker check`: says whether a configuration file is right, and where it is not.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use clap::Args;

use crate::cli::client::print;
use crate::cli::json::{Object, document};
use crate::cli::{Failure, Status};
use crate::config_file::FileConfig;
use crate::engine::Limits;
use crate::error::Error;
use crate::net::{ServerSettings, read_config};

/// Check a configuration file and print each error with its line and column.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker check zmqlocker.toml

Exit status: 0 it is right, 2 it is wrong, 3 it cannot be read.")]
pub(super) struct Check {
    /// The file, as zmqlocker.toml.
    file: String,
    /// One JSON object: the rules that the file has, or its errors.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(&self) -> Result<Status, Failure> {
        // A file that cannot be read is no wrong file.
        let unreadable =
            |error: io::Error| Error::system("read the file", &format!("{}: {error}", self.file));
        let first_byte = |mut file: File| file.read(&mut [0]);
        File::open(&self.file).and_then(first_byte).map_err(unreadable)?;
        let config = read_config(Path::new(&self.file)).and_then(|config| {
            let named = |error| match error {
                Error::Config { argument, problem } => {
                    let problem = format!("{}: {argument} {problem}", self.file);
                    Error::Config { argument: "config", problem }
                }
                error => error,
            };
            ServerSettings::check(config.clone()).map_err(named)?;
            Ok(config)
        });
        let config = match config {
            Ok(config) => config,
            Err(Error::Config { problem, .. }) => {
                if self.json {
                    print(&(document(&wrong(&self.file, &problem)) + "\n"))?;
                } else {
                    writeln!(io::stderr(), "{problem}")?;
                }
                return Ok(Status::Usage);
            }
            Err(error) => return Err(error.into()),
        };
        let rules = rules(&config);
        print(&if self.json {
            document(&right(&self.file, &rules)) + "\n"
        } else {
            summary(&self.file, &rules)
        })?;
        Ok(Status::Done)
    }
}

/// The name of each rule and its limits, in their shortest form.
fn rules(config: &FileConfig) -> Vec<(String, Vec<String>)> {
    let others = config.rate.map(|rate| ("other keys".to_owned(), Limits::of_rate(rate)));
    let texts = |(key, limits): (String, Limits)| {
        (key, (0..limits.count()).map(|place| limits.text(place).to_string()).collect())
    };
    config.limits.iter().cloned().chain(others).map(texts).collect()
}

/// The rules, one a line, and that all is well.
fn summary(name: &str, rules: &[(String, Vec<String>)]) -> String {
    let width = rules.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let lines = rules.iter().map(|(key, texts)| format!("{key:width$}  {}\n", texts.join(", ")));
    let noun = if rules.len() == 1 { "rule" } else { "rules" };
    lines.collect::<String>() + &format!("{name}: ok, {} {noun}\n", rules.len())
}

fn right(name: &str, rules: &[(String, Vec<String>)]) -> Object {
    let rule = |(key, limits): &(String, Vec<String>)| {
        Object::new().with("key", key).with("limits", limits)
    };
    let rules: Vec<_> = rules.iter().map(rule).collect();
    Object::new().with("file", name).with("ok", &true).with("rules", &rules)
}

fn wrong(name: &str, problem: &str) -> Object {
    let errors: Vec<_> = problem.lines().collect();
    Object::new().with("file", name).with("ok", &false).with("errors", &errors)
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
        assert_eq!(summary("a.toml", &rules(&config)), lines);
        assert_eq!(
            document(&right("a.toml", &rules(&config)[..1])),
            "{\"file\": \"a.toml\", \"ok\": true, \
             \"rules\": [{\"key\": \"a\", \"limits\": [\"5/s\", \"2 at once\"]}]}"
        );
    }
}

//! `zmqlocker completions`: what has a shell complete the command line.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use crate::cli::client::print;
use crate::cli::{CommandLine, Failure, Status};

/// Print a script that has a shell complete this command.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples: zmqlocker completions bash > /usr/share/bash-completion/completions/zmqlocker
          zmqlocker completions zsh > ~/.zfunc/_zmqlocker
          zmqlocker completions fish > ~/.config/fish/completions/zmqlocker.fish

Exit status: 0 printed, 2 wrong usage.")]
pub(super) struct Completions {
    /// The shell.
    shell: Script,
}

/// The shells for which there is a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Script {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(super) fn run(&self) -> Result<Status, Failure> {
        let shell = match self.shell {
            Script::Bash => Shell::Bash,
            Script::Zsh => Shell::Zsh,
            Script::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        generate(shell, &mut CommandLine::command(), "zmqlocker", &mut script);
        print(&String::from_utf8_lossy(&script))?;
        Ok(Status::Done)
    }
}

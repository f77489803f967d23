//! The command `zmqlocker`.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Bytes that are no text become marks: no argument of this command has a use for them.
    let mut words = env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called_as = words.next().unwrap_or_else(|| "zmqlocker".to_owned());
    let program = env::current_exe().map_or(called_as, |path| path.to_string_lossy().into_owned());
    ExitCode::from(zmqlocker::cli::run(&[program], words))
}

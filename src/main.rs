//! The command `zmqlocker`.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = env::args_os();
    let called_as = words.next().unwrap_or_else(|| "zmqlocker".into());
    let program = env::current_exe().map_or(called_as, Into::into).to_string_lossy().into_owned();
    let take_log = |logger| {
        // Nobody was before us.
        let _ = log::set_boxed_logger(logger);
    };
    ExitCode::from(zmqlocker::cli::run(&[program], words, take_log))
}

//! The command `zmqlocker`.

fn main() {}

//! The yardstick: a raw TCP ping-pong of 9 bytes there and 2 bytes back, in two processes.
//!
//! `tcp_ping serve` prints the port it listens on and echoes; `tcp_ping ask PORT COUNT` prints the
//! median round trip in microseconds.

use std::env;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve"] => serve(),
        ["ask", port, count] => ask(port, count.parse().expect("COUNT is a number")),
        _ => panic!("usage: tcp_ping serve | tcp_ping ask PORT COUNT"),
    }
}

fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut request = [0; 9];
        while stream.read_exact(&mut request).is_ok() {
            stream.write_all(b"go")?;
        }
    }
}

// A benchmark is about the time that passes.
#[allow(clippy::disallowed_methods)]
fn ask(port: &str, count: usize) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    stream.set_nodelay(true)?;
    let mut answer = [0; 2];
    let mut trips = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(b"let me go")?;
        stream.read_exact(&mut answer)?;
        trips.push(start.elapsed());
    }
    trips.sort_unstable();
    println!("{:.3}", trips[count / 2].as_secs_f64() * 1e6);
    Ok(())
}

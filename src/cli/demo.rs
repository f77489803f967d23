//! `zmqlocker demo`: a server, three clients, and what they hear.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use clap::Args;

use crate::answer::Answer;
use crate::cli::json::document;
use crate::cli::timeline::{Style, Timeline};
use crate::cli::{Failure, Status};
use crate::config::{ServerConfig, Url};
use crate::engine::Rate;
use crate::error::Error;
use crate::net::{Server, unix_time};
use crate::wire::seed;

const CLIENTS: usize = 3;

/// How often each client asks in a second.
const RATE: u32 = 10;

/// How many seconds a client stays without a server: the demo may have been killed.
const LOST: &str = "5";

/// How often the drawing is renewed.
const FRAME: Duration = Duration::from_millis(100);

/// See it work: a server that grants 5 requests in 0.8 s, and three clients that ask it.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker demo --seconds 10

Exit status: 0 no slot had more than 5, 1 one had, 3 no port or another failure.")]
pub(super) struct Demo {
    /// How long the clients ask, in whole seconds from 1 to 3600.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=3600)
    )]
    seconds: u32,
    /// One JSON object at the end, and no drawing.
    #[arg(long)]
    json: bool,
}

/// What a client heard, and when.
type Heard = (usize, Duration, Answer);

impl Demo {
    pub(super) fn run(&self, program: &[String]) -> Result<Status, Failure> {
        let limit = Rate::new(5, 0.8)?;
        let url = Url::parse("tcp://127.0.0.1:*")?;
        let started = unix_time();
        let server = Server::start(&ServerConfig::of_rate(limit, url))?;
        let mut output = io::stdout();
        if !self.json {
            writeln!(
                output,
                "a server grants {limit} at {}, {CLIENTS} processes ask",
                server.url()
            )?;
        }

        let requests = (RATE * self.seconds).to_string();
        let every = (1.0 / f64::from(RATE)).to_string();
        let asking = [
            "next",
            "--url",
            server.url(),
            "--every",
            &every,
            "--repeat",
            &requests,
            "--timeout",
            LOST,
        ];
        let (sender, heard) = mpsc::channel();
        let mut clients = Clients(Vec::new());
        for number in 0..CLIENTS {
            clients.0.push(start_client(program, number, &asking, sender.clone())?);
        }
        drop(sender);

        let mut timeline = Timeline::new(limit, CLIENTS, Duration::from_secs(self.seconds.into()));
        let live = output.is_terminal() && !self.json;
        let mut drawn = 0;
        loop {
            match heard.recv_timeout(FRAME) {
                Ok((client, at, answer)) => {
                    timeline.add(client, at.saturating_sub(started), answer);
                    if live {
                        drawn = redraw(&mut output, &timeline, drawn)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if self.json {
            writeln!(output, "{}", document(&timeline.object()))?;
        } else if !live {
            write!(output, "{}", timeline.draw(Style::Plain))?;
        }
        clients.finish()?;
        server.stop();
        Ok(if timeline.is_kept() { Status::Done } else { Status::Refused })
    }
}

/// Draws over what was drawn before, `above` lines of it. How many lines there are now.
fn redraw(output: &mut impl Write, timeline: &Timeline, above: usize) -> io::Result<usize> {
    let drawing = timeline.draw(Style::Terminal);
    if above > 0 {
        write!(output, "\x1b[{above}A")?;
    }
    write!(output, "{drawing}")?;
    output.flush()?;
    Ok(drawing.lines().count())
}

/// Starts a client in a process of its own, and a thread that reads what it prints.
fn start_client(
    program: &[String],
    number: usize,
    asking: &[&str],
    heard: Sender<Heard>,
) -> Result<Client, Failure> {
    let missing = || io::Error::other("the command does not know how it was started");
    let (command, arguments) = program.split_first().ok_or_else(missing)?;
    let mut process = Command::new(command)
        .args(arguments)
        .args(asking)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = process.stdout.take().ok_or_else(missing)?;
    let reader = thread::Builder::new().name(format!("zmql-demo-{number}")).spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some((at, answer)) = parse_line(&line) {
                // The other end is gone if the demo failed; then the client is about to be killed.
                let _ = heard.send((number, at, answer));
            }
        }
    })?;
    Ok(Client { process, reader: Some(reader) })
}

/// Reads a line that `zmqlocker next` has printed.
fn parse_line(line: &str) -> Option<(Duration, Answer)> {
    let (at, answer) = line.split_once(' ')?;
    let at = Duration::try_from_secs_f64(at.parse().ok()?).ok()?;
    seed::parse_answer(answer.as_bytes()).map(|answer| (at, answer))
}

struct Client {
    process: Child,
    reader: Option<thread::JoinHandle<()>>,
}

/// The client processes. They end with the demo, or a little later if it is killed.
struct Clients(Vec<Client>);

impl Clients {
    /// Waits for the clients, which have asked all they had to ask.
    fn finish(&mut self) -> Result<(), Failure> {
        for client in &mut self.0 {
            let status = client.process.wait()?;
            if !matches!(status.code(), Some(0 | 1)) {
                let problem = format!("it ended with {status}");
                return Err(Error::System { action: "run a client", problem }.into());
            }
        }
        Ok(())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for client in &mut self.0 {
            // Both fail only where the process has ended and was waited for.
            let _ = client.process.kill();
            let _ = client.process.wait();
            if let Some(reader) = client.reader.take() {
                let _ = reader.join();
            }
        }
    }
}

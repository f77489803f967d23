//! `zmqlocker top`: what a server does, as it does it.

mod bars;
mod draw;
#[cfg(test)]
mod example;
mod grid;
mod head;
mod keyboard;
mod line;
mod model;
mod pane;
mod sample;
mod screen;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};

use crate::cli::client::{Asker, ClientOptions};
use crate::cli::signals::Signals;
use crate::cli::top::model::Model;
use crate::cli::top::sample::Sample;
use crate::cli::top::screen::Screen;
use crate::cli::{Failure, Status};
use crate::error::Error;
use crate::net::BootClock;
use crate::time::{Clock, Timestamp};

/// How many seconds may lie between two looks.
const INTERVAL_MIN: f64 = 0.1;
const INTERVAL_MAX: f64 = 60.0;

/// How long a signal is not seen at most.
const SLICE: Duration = Duration::from_millis(100);

/// The looks after the first one are in the middle of seconds: one that is a little late is in none
/// that had one already.
const PHASE: Duration = Duration::from_millis(500);

/// Watch a server: its busiest keys, who holds locks, and its clients, as they are now.
#[derive(Args, Debug)]
#[command(after_help = "\
Keys: q, Esc or Ctrl-C quits. Tab goes on to locks and clients. s sorts by the next column, r the \
other way round. / keeps those with a text in their names. Arrows select. Space pauses.

Example: zmqlocker top --once | head -20

RATE is answered requests a second, over the last few seconds. Bars are of 5 seconds each, red \
where more was refused than allowed.

Exit status: 0 shown, 2 wrong usage, or no terminal and no --once, 3 no server or another \
failure.")]
pub(super) struct Top {
    /// How many seconds between two looks: 0.1 to 60.
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    interval: f64,
    /// Print one snapshot, for which no terminal is needed. With --json it is one JSON object.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    options: ClientOptions,
}

impl Top {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let interval = parse_interval(self.interval)?;
        if self.once {
            let sample = Sample::ask(&self.options.client()?, &mut || true)?;
            self.options.print(&sample.object(), &sample.text())?;
            return Ok(Status::Done);
        }
        if self.options.json {
            let problem = "needs --once: a view is no document".to_owned();
            return Err(Error::Config { argument: "--json", problem }.into());
        }
        if !screen::is_there() {
            let problem = "is needed: there is no terminal to draw on, and --once prints one \
                           snapshot without any";
            return Err(Error::Config { argument: "--once", problem: problem.to_owned() }.into());
        }
        let client = self.options.client()?;
        let heard = Arc::new(Heard::default());
        let hearing = Arc::clone(&heard);
        let signals = Signals::hear(&[SIGINT, SIGTERM, SIGHUP, SIGWINCH])?;
        let listener = signals.act(move |signal| {
            let is_new_size = signal.number == SIGWINCH;
            let place = if is_new_size { &hearing.resized } else { &hearing.stopped };
            place.store(true, Ordering::Release);
            true
        })?;
        let url = client.urls().first().map_or_else(String::new, ToString::to_string);
        let ended = Screen::take().map_err(Failure::from).and_then(|screen| {
            View { model: Model::new(url), screen, heard, broken: None }.run(&client, interval)
        });
        listener.stop();
        ended
    }
}

/// What signals have said.
#[derive(Debug, Default)]
struct Heard {
    /// That this is to end.
    stopped: AtomicBool,
    /// That the terminal has another size.
    resized: AtomicBool,
}

/// The view, its terminal, and who may end it.
struct View {
    model: Model,
    screen: Screen,
    heard: Arc<Heard>,
    /// What ended it, if the terminal did.
    broken: Option<Failure>,
}

impl View {
    /// Asks and draws until somebody has enough of it.
    fn run(mut self, client: &Asker, interval: Duration) -> Result<Status, Failure> {
        let mut next = BootClock.now() + PHASE;
        while self.goes_on() {
            self.model.handle_question(BootClock.now());
            let sample = Sample::ask(client, &mut || {
                self.attend(Duration::ZERO);
                self.goes_on()
            });
            match sample {
                Ok(sample) => self.model.handle_sample(BootClock.now(), sample),
                Err(error) => self.model.handle_failure(error)?,
            }
            self.draw();
            next = following(next, BootClock.now(), interval);
            while self.goes_on() && BootClock.now() < next {
                self.attend(next.since(BootClock.now()).min(SLICE));
            }
        }
        self.broken.map_or(Ok(Status::Done), Err)
    }

    fn goes_on(&self) -> bool {
        !self.model.ended && self.broken.is_none() && !self.heard.stopped.load(Ordering::Acquire)
    }

    /// Does what keys ask for that are pressed within this time, and draws if anything is new.
    fn attend(&mut self, within: Duration) {
        match self.screen.hear(within) {
            Ok(presses) => {
                let is_away = self.model.trouble(BootClock.now()).is_some();
                let is_resized = self.heard.resized.swap(false, Ordering::AcqRel);
                let is_new = is_away || is_resized || !presses.is_empty();
                for press in presses {
                    self.model.handle_press(press);
                }
                if is_new {
                    self.draw();
                }
            }
            Err(error) => self.end_by(error),
        }
    }

    fn draw(&mut self) {
        if let Err(error) = self.screen.draw(&self.model, BootClock.now()) {
            self.end_by(error);
        }
    }

    /// The terminal cannot be used. One that was hung up is an end as any other.
    fn end_by(&mut self, error: io::Error) {
        if screen::is_hung_up(&error) {
            self.model.ended = true;
        } else {
            self.broken = Some(error.into());
        }
    }
}

/// When to look next: at a multiple of the interval, those that have passed are left out.
fn following(last: Timestamp, now: Timestamp, interval: Duration) -> Timestamp {
    let next = last + interval;
    if next < now { now + interval } else { next }
}

fn parse_interval(seconds: f64) -> Result<Duration, Error> {
    if (INTERVAL_MIN..=INTERVAL_MAX).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    let problem = format!("must be {INTERVAL_MIN} to {INTERVAL_MAX} seconds, not {seconds:?}");
    Err(Error::Config { argument: "--interval", problem })
}

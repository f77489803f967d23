//! The terminal: taken for the view, and given back in every end.

use std::io::{self, BufWriter, IsTerminal, Stdout};
use std::mem::ManuallyDrop;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};

use crate::cli::top::draw::{Palette, draw};
use crate::cli::top::keyboard::Keyboard;
use crate::cli::top::model::{Model, Press};
use crate::net::BootClock;
use crate::time::{Clock, Timestamp};

/// Whether there is a terminal to draw on and to be typed at.
pub(super) fn is_there() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
    io::stdin().is_terminal() && io::stdout().is_terminal() && !is_dumb
}

/// The terminal while the view has it.
pub(super) struct Screen {
    /// Never dropped: it would tell the standard error what goes wrong then, and panic where that
    /// was hung up. The guard does what is to be done.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<BufWriter<Stdout>>>>,
    palette: Palette,
    keyboard: Keyboard,
    _guard: Guard,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take() -> io::Result<Self> {
        enable_raw_mode()?;
        let guard = Guard::new(give_back);
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        let terminal = Terminal::new(CrosstermBackend::new(BufWriter::new(io::stdout())))?;
        // https://no-color.org: any text but the empty one.
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|text| !text.is_empty());
        let palette = if is_plain { Palette::Plain } else { Palette::Colours };
        let terminal = ManuallyDrop::new(terminal);
        Ok(Self { terminal, palette, keyboard: Keyboard::default(), _guard: guard })
    }

    pub(super) fn draw(&mut self, model: &Model, now: Timestamp) -> io::Result<()> {
        let palette = self.palette;
        self.terminal.draw(|frame| {
            let area = frame.area();
            draw(model, now, palette, area, frame.buffer_mut());
        })?;
        Ok(())
    }

    /// The keys that are pressed within this time.
    ///
    /// The terminal is read here and not by `crossterm`, which does not return once it is hung up.
    pub(super) fn hear(&mut self, within: Duration) -> io::Result<Vec<Press>> {
        let now = BootClock.now();
        let left = self.keyboard.poll_timeout().map(|at| at.since(now));
        let within = left.map_or(within, |left| left.min(within));
        let stdin = io::stdin();
        let mut watched = [PollFd::new(&stdin, PollFlags::IN)];
        let within = Timespec::try_from(within).map_err(io::Error::other)?;
        match poll(&mut watched, Some(&within)) {
            Ok(0) | Err(Errno::INTR) => {
                return Ok(self.keyboard.poll(BootClock.now()).into_iter().collect());
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 256];
        match read(&stdin, &mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => Ok(self.keyboard.handle(BootClock.now(), &bytes[..length])),
            Err(Errno::INTR | Errno::AGAIN) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether nobody can be at the terminal any more.
pub(super) fn is_hung_up(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || Errno::from_io_error(error) == Some(Errno::IO)
}

/// Gives the terminal back as it was. Where it goes cannot be helped.
fn give_back() {
    let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

type Hook = Box<dyn Fn(&panic::PanicHookInfo<'_>) + Send + Sync>;

/// Gives something back once: when it is dropped, or before a panic of this thread is told.
struct Guard {
    give_back: Arc<dyn Fn() + Send + Sync>,
    previous: Arc<Hook>,
}

impl Guard {
    fn new(give_back: impl Fn() + Send + Sync + 'static) -> Self {
        let given = AtomicBool::new(false);
        let once = move || {
            if !given.swap(true, Ordering::AcqRel) {
                give_back();
            }
        };
        let give_back: Arc<dyn Fn() + Send + Sync> = Arc::new(once);
        let previous: Arc<Hook> = Arc::new(panic::take_hook());
        let owner = thread::current().id();
        let (to_give, to_tell) = (Arc::clone(&give_back), Arc::clone(&previous));
        panic::set_hook(Box::new(move |info| {
            if thread::current().id() == owner {
                to_give();
            }
            to_tell(info);
        }));
        Self { give_back, previous }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        (self.give_back)();
        // A hook cannot be changed while it is at work.
        if !thread::panicking() {
            let previous = Arc::clone(&self.previous);
            panic::set_hook(Box::new(move |info| previous(info)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn the_terminal_is_given_back_once_and_before_a_panic_is_told() {
        let steps: Arc<Mutex<Vec<&str>>> = Arc::default();
        let note = |step: &'static str| {
            let steps = Arc::clone(&steps);
            move || steps.lock().unwrap().push(step)
        };
        let (give, tell) = (note("given back"), note("told"));
        let broken = thread::spawn(move || {
            let before = panic::take_hook();
            let this = thread::current().id();
            panic::set_hook(Box::new(move |info| match thread::current().id() {
                id if id == this => tell(),
                _ => before(info),
            }));
            let _guard = Guard::new(give);
            panic!("broken");
        });
        assert!(broken.join().is_err());
        assert_eq!(*steps.lock().unwrap(), ["given back", "told"]);
        drop(Guard::new(note("in peace")));
        assert_eq!(steps.lock().unwrap().last(), Some(&"in peace"));
    }
}

//! What the view shows and what the keyboard changes, without a terminal, a server or a clock.

use std::collections::VecDeque;
use std::time::Duration;

use crate::cli::top::line::{self, Line};
use crate::cli::top::pane::{Move, PAGE, Pane, Subject};
use crate::cli::top::sample::Sample;
use crate::engine::Code;
use crate::error::Error;
use crate::observe::{Answers, History};
use crate::time::Timestamp;

/// Of how many round trips the least, the mean and the most are shown.
const TRIPS_MAX: usize = 60;

/// How many letters a filter has at most.
pub(super) const FILTER_MAX: usize = 64;

/// With no answer for so long a server is said to be away.
const SILENCE: Duration = Duration::from_secs(1);

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Press {
    Letter(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Tab,
    BackTab,
    Enter,
    Backspace,
    Escape,
    /// Ctrl-C.
    Interrupt,
}

/// What stands on the screen until the next look.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) sample: Sample,
    pub(super) at: Timestamp,
    /// What was answered in each of the last seconds.
    pub(super) total: Vec<Answers>,
    /// The lines of keys, locks and clients, in no order.
    lines: [Vec<Line>; 3],
    /// The last round trips.
    pub(super) trips: Vec<Duration>,
}

/// The whole view.
#[derive(Debug)]
pub(super) struct Model {
    /// Where the server should be.
    pub(super) url: String,
    history: History,
    trips: VecDeque<Duration>,
    /// What is drawn; none before the first answer.
    pub(super) shown: Option<Shown>,
    /// What is drawn once the pause has ended.
    unseen: Option<Shown>,
    pub(super) paused: bool,
    /// Since when a question has no answer.
    unanswered: Option<Timestamp>,
    /// Why the last question had none, if that is known.
    problem: String,
    pub(super) focus: Subject,
    panes: [Pane; 3],
    pub(super) filter: String,
    /// Whether letters are for the filter.
    pub(super) typing: bool,
    /// Whether somebody wants no more of it.
    pub(super) ended: bool,
}

impl Model {
    /// A view of the server at this URL, of which nothing is known yet.
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            history: History::default(),
            trips: VecDeque::new(),
            shown: None,
            unseen: None,
            paused: false,
            unanswered: None,
            problem: String::new(),
            focus: Subject::Keys,
            panes: Subject::ALL.map(Pane::new),
            filter: String::new(),
            typing: false,
            ended: false,
        }
    }

    /// The server is being asked.
    pub(super) fn handle_question(&mut self, now: Timestamp) {
        self.unanswered.get_or_insert(now);
    }

    /// The server has answered.
    pub(super) fn handle_sample(&mut self, now: Timestamp, sample: Sample) {
        self.unanswered = None;
        self.problem.clear();
        if self.trips.len() == TRIPS_MAX {
            self.trips.pop_front();
        }
        self.trips.push_back(sample.round_trip);
        self.history.take(now, &sample.status.tally, &sample.keys);
        let points = |is_lock, key: &str| self.history.points(is_lock, key);
        let keys = sample.keys.iter().map(|row| line::key(row, points(row.is_lock, &row.key)));
        let locks = line::locks(&sample.locks, &sample.keys);
        let clients = sample.clients.iter().flatten().map(line::client);
        let shown = Shown {
            at: now,
            total: self.history.total().collect(),
            lines: [keys.collect(), locks, clients.collect()],
            trips: self.trips.iter().copied().collect(),
            sample,
        };
        if self.paused {
            self.unseen = Some(shown);
        } else {
            self.show(shown);
        }
    }

    /// The server has not answered, and will be asked again. An error that asking again cannot
    /// mend is given back.
    pub(super) fn handle_failure(&mut self, error: Error) -> Result<(), Error> {
        match error {
            Error::Unavailable { problem, .. } | Error::Timeout { problem, .. } => {
                self.problem = problem;
                Ok(())
            }
            Error::Interrupted => Ok(()),
            // It stops, or has no room for one more: that passes.
            Error::Refused(problem) if problem.code != Code::Auth => {
                self.problem = problem.message;
                Ok(())
            }
            other => Err(other),
        }
    }

    /// Somebody has pressed a key.
    pub(super) fn handle_press(&mut self, press: Press) {
        match press {
            Press::Interrupt => self.ended = true,
            press if self.typing => self.type_filter(press),
            Press::Letter('q') | Press::Escape => self.ended = true,
            Press::Letter('/') => self.typing = true,
            Press::Letter('s') => self.pane_mut().sort_by_next(),
            Press::Letter('r') => self.pane_mut().reverse(),
            Press::Letter(' ' | 'p') => self.pause(),
            Press::Tab => self.focus = self.focus.next(),
            Press::BackTab => self.focus = self.focus.previous(),
            Press::Up | Press::Letter('k') => self.go(Move::Up(1)),
            Press::Down | Press::Letter('j') => self.go(Move::Down(1)),
            Press::PageUp => self.go(Move::Up(PAGE)),
            Press::PageDown => self.go(Move::Down(PAGE)),
            Press::Home => self.go(Move::First),
            Press::End => self.go(Move::Last),
            Press::Letter(_) | Press::Enter | Press::Backspace => return,
        }
        self.follow();
    }

    fn type_filter(&mut self, press: Press) {
        match press {
            Press::Letter(letter) if self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(letter);
            }
            Press::Backspace => {
                self.filter.pop();
            }
            Press::Escape => {
                self.filter.clear();
                self.typing = false;
            }
            Press::Enter => self.typing = false,
            Press::Up => self.go(Move::Up(1)),
            Press::Down => self.go(Move::Down(1)),
            _ => {}
        }
        self.follow();
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        if let Some(unseen) = self.unseen.take().filter(|_| !self.paused) {
            self.show(unseen);
        }
    }

    fn show(&mut self, shown: Shown) {
        self.shown = Some(shown);
        self.follow();
    }

    fn go(&mut self, to: Move) {
        let lines = self.lines(self.focus);
        self.pane_mut().go(to, &lines);
    }

    /// Lines have moved, or are others.
    fn follow(&mut self) {
        for subject in Subject::ALL {
            let lines = self.lines(subject);
            self.panes[subject as usize].follow(&lines);
        }
    }

    fn pane_mut(&mut self) -> &mut Pane {
        &mut self.panes[self.focus as usize]
    }

    pub(super) fn pane(&self, subject: Subject) -> &Pane {
        &self.panes[subject as usize]
    }

    /// The lines of a part of the view, as they are sorted. The filter is for keys and locks.
    pub(super) fn lines(&self, subject: Subject) -> Vec<Line> {
        let lines = self.shown.as_ref().map(|shown| shown.lines[subject as usize].clone());
        let filter = if subject == Subject::Clients { "" } else { &self.filter };
        self.pane(subject).arrange(lines.unwrap_or_default(), filter)
    }

    /// Why and for how long the server is away, if it is.
    pub(super) fn trouble(&self, now: Timestamp) -> Option<String> {
        let silent = now.since(self.unanswered?);
        if silent < SILENCE && self.problem.is_empty() {
            return None;
        }
        let mut text = format!("no answer from {} for {} s", self.url, silent.as_secs());
        if !self.problem.is_empty() {
            text += ": ";
            text += &self.problem;
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::example::{at, key, lock, sample};
    use crate::engine::{KeyRow, Problem};

    fn model(keys: &[(&str, u64, u64)]) -> Model {
        let mut model = Model::new("tcp://localhost:7777".to_owned());
        take(&mut model, 0, keys);
        model
    }

    fn take(model: &mut Model, second: u64, keys: &[(&str, u64, u64)]) {
        let keys = keys.iter().map(|(name, allowed, refused)| key(name, *allowed, *refused));
        model.handle_question(at(second));
        model.handle_sample(at(second), sample(keys.collect()));
    }

    fn press(model: &mut Model, letters: &str) {
        letters.chars().for_each(|letter| model.handle_press(Press::Letter(letter)));
    }

    fn names(model: &Model, subject: Subject) -> Vec<String> {
        let name = |line: Line| line.cells[0].text.clone();
        model.lines(subject).into_iter().map(name).collect()
    }

    fn selected(model: &Model) -> Option<String> {
        let place = model.pane(model.focus).selected;
        names(model, model.focus).get(place).cloned()
    }

    #[test]
    fn keys_are_sorted_by_any_column_and_the_other_way_round() {
        let mut model = model(&[("b", 5, 0), ("a", 70, 9), ("c", 6, 1)]);
        // All have the same rate: those are sorted by name.
        assert_eq!(names(&model, Subject::Keys), ["a", "b", "c"]);
        press(&mut model, "ss");
        assert_eq!(names(&model, Subject::Keys), ["a", "c", "b"], "by what was allowed");
        press(&mut model, "r");
        assert_eq!(names(&model, Subject::Keys), ["b", "c", "a"]);
        press(&mut model, "ssssss");
        assert_eq!(model.pane(Subject::Keys).column, 0, "all columns have had their turn");
        press(&mut model, "r");
        assert_eq!(names(&model, Subject::Keys), ["c", "b", "a"]);
        assert_eq!(names(&model, Subject::Locks), ["invoice:42", "table"]);
    }

    #[test]
    fn clients_are_sorted_by_themselves() {
        let mut model = model(&[]);
        model.handle_press(Press::BackTab);
        assert_eq!(names(&model, Subject::Clients), ["nightly", "worker-3"]);
        press(&mut model, "sssr");
        assert_eq!(names(&model, Subject::Clients), ["worker-3", "nightly"], "silent for longer");
    }

    #[test]
    fn a_filter_is_a_part_of_a_name_in_large_letters_or_small() {
        let mut model = model(&[("Tenant:7", 1, 0), ("openai", 1, 0), ("鍵:é", 1, 0)]);
        press(&mut model, "/TENq");
        assert_eq!(model.lines(Subject::Keys), []);
        model.handle_press(Press::Backspace);
        assert_eq!(names(&model, Subject::Keys), ["Tenant:7"]);
        assert_eq!(model.lines(Subject::Locks), []);
        assert_eq!(names(&model, Subject::Clients).len(), 2);
        model.handle_press(Press::Enter);
        assert!(!model.typing && model.filter == "TEN");
        press(&mut model, "/");
        model.handle_press(Press::Escape);
        assert!(!model.ended && names(&model, Subject::Keys).len() == 3);
        press(&mut model, "/É");
        assert_eq!(names(&model, Subject::Keys), ["鍵:é"]);
        press(&mut model, &"x".repeat(1000));
        assert_eq!(model.filter.chars().count(), FILTER_MAX);
    }

    #[test]
    fn a_selection_stays_within_the_lines_and_with_the_line_that_was_chosen() {
        let mut model = model(&[("a", 1, 0), ("b", 2, 0), ("c", 3, 0)]);
        model.handle_press(Press::Up);
        assert_eq!(selected(&model).as_deref(), Some("a"));
        model.handle_press(Press::Down);
        assert_eq!(selected(&model).as_deref(), Some("b"));
        press(&mut model, "ss");
        assert_eq!(
            (selected(&model).as_deref(), model.pane(Subject::Keys).selected),
            (Some("b"), 1)
        );
        take(&mut model, 1, &[("b", 9, 0), ("x", 5, 0), ("y", 4, 0)]);
        assert_eq!(
            (selected(&model).as_deref(), model.pane(Subject::Keys).selected),
            (Some("b"), 0)
        );
        model.handle_press(Press::PageDown);
        assert_eq!(selected(&model).as_deref(), Some("y"));
        take(&mut model, 2, &[("x", 5, 0)]);
        assert_eq!(selected(&model).as_deref(), Some("x"));
        take(&mut model, 3, &[]);
        assert_eq!(selected(&model), None);
        for press in [Press::Down, Press::End, Press::PageUp, Press::Home, Press::Up] {
            model.handle_press(press);
            assert_eq!(model.pane(Subject::Keys).selected, 0);
        }
    }

    #[test]
    fn the_first_place_is_of_whatever_comes_there() {
        let mut model = model(&[("a", 9, 0), ("b", 2, 0)]);
        press(&mut model, "ssj");
        model.handle_press(Press::Home);
        take(&mut model, 1, &[("a", 9, 0), ("b", 20, 0)]);
        assert_eq!(selected(&model).as_deref(), Some("b"));
    }

    #[test]
    fn a_pause_holds_what_is_shown_and_misses_nothing() {
        let mut model = model(&[("a", 1, 0)]);
        press(&mut model, " ");
        take(&mut model, 1, &[("a", 5, 1), ("b", 2, 0)]);
        take(&mut model, 2, &[("a", 6, 1), ("b", 2, 0)]);
        assert_eq!(names(&model, Subject::Keys), ["a"]);
        press(&mut model, "p");
        assert_eq!(names(&model, Subject::Keys), ["a", "b"]);
        let shown = model.shown.unwrap();
        assert_eq!((shown.at, shown.total), (at(2), vec![[0, 0], [6, 1], [1, 0]]));
    }

    #[test]
    fn a_queue_is_counted_whole_and_a_lock_without_a_holder_is_wanted() {
        let mut sample = sample(vec![KeyRow { is_lock: true, waiting: 40, ..key("table", 1, 0) }]);
        sample.locks.push(lock("free", None, 900, "first"));
        sample.locks.push(lock("free", None, 900, "second"));
        let mut model = Model::new(String::new());
        model.handle_sample(at(0), sample);
        let cells = |line: Line| line.cells.iter().map(|cell| cell.text.clone()).collect();
        let lines: Vec<Vec<String>> = model.lines(Subject::Locks).into_iter().map(cells).collect();
        assert_eq!(
            lines,
            [
                ["free", "wanted", "12.0s", "0.9s", "2", "first 4711 db1"],
                ["invoice:42", "held", "12.0s", "0.7s", "2", "nightly 4711 db1"],
                ["table", "held", "12.0s", "0.3s", "40", "reader 4711 db1"],
            ]
        );
    }

    #[test]
    fn a_server_that_is_away_is_told_of_until_it_answers() {
        let mut model = model(&[("a", 1, 0)]);
        model.handle_question(at(10));
        assert_eq!(model.trouble(at(10)), None);
        assert_eq!(
            model.trouble(at(13)).as_deref(),
            Some("no answer from tcp://localhost:7777 for 3 s")
        );
        let problem = "connection refused (os error 111)".to_owned();
        let timeout = Duration::from_secs(10);
        let away = Error::Unavailable { servers: "a".to_owned(), timeout, problem };
        assert_eq!(model.handle_failure(away), Ok(()));
        model.handle_question(at(20));
        assert_eq!(
            model.trouble(at(21)).as_deref(),
            Some("no answer from tcp://localhost:7777 for 11 s: connection refused (os error 111)")
        );
        assert_eq!(names(&model, Subject::Keys), ["a"], "what was known is still shown");
        take(&mut model, 30, &[("a", 0, 0)]);
        assert_eq!(model.trouble(at(30)), None);
    }

    #[test]
    fn what_asking_again_cannot_mend_ends_it() {
        let mut model = model(&[]);
        let refused = |code| Error::Refused(Problem { code, message: "no".to_owned() });
        assert_eq!(model.handle_failure(refused(Code::Closing)), Ok(()));
        assert_eq!(model.handle_failure(refused(Code::Auth)), Err(refused(Code::Auth)));
        assert_eq!(model.handle_failure(Error::Closed), Err(Error::Closed));
    }

    #[test]
    fn three_keys_quit_and_while_a_filter_is_typed_one() {
        for press in [Press::Letter('q'), Press::Escape, Press::Interrupt] {
            let mut model = model(&[]);
            model.handle_press(press);
            assert!(model.ended);
            let mut model = self::model(&[]);
            model.handle_press(Press::Letter('/'));
            model.handle_press(press);
            assert_eq!(model.ended, press == Press::Interrupt);
        }
    }

    #[test]
    fn no_more_than_the_last_round_trips_is_kept() {
        let mut model = Model::new(String::new());
        for second in 0..100 {
            let round_trip = Duration::from_millis(second);
            model.handle_sample(at(second), Sample { round_trip, ..sample(vec![]) });
        }
        let trips = model.shown.unwrap().trips;
        assert_eq!((trips.len(), trips[0]), (TRIPS_MAX, Duration::from_millis(40)));
    }
}

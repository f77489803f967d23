//! The view as cells of a terminal: a pure function of the model.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::cli::table::{columns, short, shortened};
use crate::cli::top::bars::bars;
use crate::cli::top::grid::{GAP, fit};
use crate::cli::top::head::{header, help};
use crate::cli::top::line::{BARS, Line};
use crate::cli::top::model::Model;
use crate::cli::top::pane::{Pane, Subject};
use crate::cli::top::sample::{CLIENTS_MAX, LOCK_ROWS_MAX, Sample};
use crate::time::Timestamp;

/// How many lines of a list are shown at least while another one has the focus.
const LINES_MIN: usize = 3;

/// A terminal with fewer lines shows one list at a time.
const ALL_LISTS: usize = 16;

/// How things look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Palette {
    /// Bold, dim and reversed alone.
    Plain,
    /// The sixteen colours that every terminal has.
    Colours,
}

impl Palette {
    fn coloured(self, style: Style, colour: Color) -> Style {
        match self {
            Self::Plain => style,
            Self::Colours => style.fg(colour),
        }
    }

    const fn bold() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn alarm(self) -> Style {
        self.coloured(Self::bold().add_modifier(Modifier::REVERSED), Color::Red)
    }

    fn note(self) -> Style {
        self.coloured(Self::bold().add_modifier(Modifier::REVERSED), Color::Yellow)
    }

    fn title(self, has_focus: bool) -> Style {
        let style = if has_focus { Self::bold() } else { Style::new() };
        self.coloured(style.add_modifier(Modifier::UNDERLINED), Color::Cyan)
    }

    fn bars(self, is_refused: bool) -> Style {
        self.coloured(Style::new(), if is_refused { Color::Red } else { Color::Green })
    }
}

/// Draws line by line.
struct Pen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    palette: Palette,
    /// The next line.
    line: usize,
}

impl Pen<'_> {
    fn width(&self) -> usize {
        self.area.width.into()
    }

    fn lines_left(&self) -> usize {
        usize::from(self.area.height).saturating_sub(self.line)
    }

    /// Writes at this column of the next line, at most so wide.
    fn write(&mut self, column: usize, text: &str, wide: usize, style: Style) {
        let wide = wide.min(self.width().saturating_sub(column));
        if self.lines_left() == 0 || wide == 0 {
            return;
        }
        let place =
            |from: u16, by: usize| from.saturating_add(u16::try_from(by).unwrap_or(u16::MAX));
        let (x, y) = (place(self.area.x, column), place(self.area.y, self.line));
        self.buffer.set_stringn(x, y, shortened(text, wide), wide, style);
    }

    /// Writes the next line, all of it in this style.
    fn fill(&mut self, text: &str, style: Style) {
        let text = shortened(text, self.width());
        let blank = " ".repeat(self.width().saturating_sub(columns(&text)));
        self.write(0, &(text + &blank), self.width(), style);
        self.line += 1;
    }

    fn add(&mut self, text: &str, style: Style) {
        self.write(0, text, self.width(), style);
        self.line += 1;
    }
}

/// Draws all of it.
pub(super) fn draw(
    model: &Model,
    now: Timestamp,
    palette: Palette,
    area: Rect,
    buffer: &mut Buffer,
) {
    let area = area.intersection(buffer.area);
    let below = usize::from(area.height > 1) + usize::from(area.height >= 12);
    let mut pen = Pen { buffer, area, palette, line: 0 };
    let width = pen.width();
    let trouble = model.trouble(now);
    if let Some(trouble) = &trouble {
        pen.fill(trouble, palette.alarm());
    }
    if let Some(shown) = &model.shown {
        if model.paused || trouble.is_some() {
            let age = short(now.since(shown.at));
            let why = if model.paused { "paused" } else { "away" };
            pen.fill(&format!("{why}: what is shown is {age} old"), palette.note());
        }
        // On a low terminal the lists come first.
        let most = (usize::from(area.height) / 3).max(1);
        for (place, line) in header(shown, width).iter().take(most).enumerate() {
            pen.add(line, if place == 0 { Palette::bold() } else { Style::new() });
        }
        lists(model, &shown.sample, &mut pen, below);
    } else if trouble.is_none() {
        pen.add(&format!("asking {}", model.url), Style::new());
    }
    footer(model, &mut pen, below);
}

/// The lists, with so many lines left free below.
fn lists(model: &Model, sample: &Sample, pen: &mut Pen<'_>, below: usize) {
    let room = pen.lines_left().saturating_sub(below);
    let all = Subject::ALL.map(|subject| (subject, model.lines(subject)));
    if room < ALL_LISTS {
        let focused = all.iter().find(|(subject, _)| *subject == model.focus);
        if let Some((subject, lines)) = focused {
            list(model, sample, pen, (*subject, lines), room);
        }
        return;
    }
    for ((subject, lines), room) in all.iter().zip(rooms(model.focus, &all, room)) {
        list(model, sample, pen, (*subject, lines), room);
    }
}

/// How many lines each list has: the one with the focus what it needs, the others at least a few,
/// and what is left.
fn rooms(focus: Subject, lists: &[(Subject, Vec<Line>); 3], room: usize) -> [usize; 3] {
    let share = LINES_MIN.max(room / 5) + 2;
    // A title and the names of the columns, and of an empty list the title alone.
    let needed = [0, 1, 2].map(|place| match lists[place].1.len() {
        0 => 1,
        lines => lines + 2,
    });
    let mut rooms = needed.map(|needed| needed.min(share));
    let mut left = room.saturating_sub(rooms.iter().sum());
    let has_focus = |place: &usize| lists[*place].0 == focus;
    let in_turn = (0..3).filter(has_focus).chain((0..3).filter(|place| !has_focus(place)));
    for place in in_turn {
        let more = (needed[place] - rooms[place]).min(left);
        rooms[place] += more;
        left -= more;
    }
    rooms
}

/// A list, in so many lines.
fn list(
    model: &Model,
    sample: &Sample,
    pen: &mut Pen<'_>,
    (subject, lines): (Subject, &[Line]),
    room: usize,
) {
    if room == 0 {
        return;
    }
    let has_focus = subject == model.focus;
    let pane = model.pane(subject);
    pen.add(&title(model, sample, subject, lines.len()), pen.palette.title(has_focus));
    let Some(room) = room.checked_sub(2).filter(|_| !lines.is_empty()) else { return };
    let widths = fit(subject, lines, pen.width());
    head(pen, subject, pane, &widths);
    let first = (pane.selected + 1).saturating_sub(room.max(1));
    for (place, line) in lines.iter().enumerate().skip(first).take(room) {
        row(pen, subject, line, &widths, has_focus && place == pane.selected);
    }
}

fn title(model: &Model, sample: &Sample, subject: Subject, count: usize) -> String {
    let tally = &sample.status.tally;
    let filtered = |text: String| match &*model.filter {
        "" => text,
        filter => format!("{text}, with {filter:?} in their names"),
    };
    match subject {
        Subject::Keys => filtered(format!("keys: the {count} busiest of {}", tally.keys)),
        Subject::Locks if sample.locks.is_empty() => "locks: nobody holds one".to_owned(),
        Subject::Locks if sample.locks.len() == LOCK_ROWS_MAX => {
            filtered(format!("locks: {count} holders among the first {LOCK_ROWS_MAX}"))
        }
        Subject::Locks => filtered(format!("locks: {count} held or wanted")),
        Subject::Clients if sample.clients.is_none() => {
            "clients: only who may administer a key sees them".to_owned()
        }
        Subject::Clients if count == CLIENTS_MAX => {
            format!("clients: {count} of {}", tally.sessions)
        }
        Subject::Clients => format!("clients: {count}"),
    }
}

/// The names of the columns; a mark is at the one that gives the order.
fn head(pen: &mut Pen<'_>, subject: Subject, pane: &Pane, widths: &[(usize, usize)]) {
    let mut column = 0;
    for (place, wide) in widths {
        let described = &subject.columns()[*place];
        let mark = match (*place == pane.column, pane.reversed) {
            (false, _) => "",
            (true, false) => "▼",
            (true, true) => "▲",
        };
        let text = described.align.pad(&format!("{}{mark}", described.title), *wide);
        pen.write(column, &text, *wide, Style::new().add_modifier(Modifier::BOLD));
        column += wide + GAP;
    }
    pen.line += 1;
}

fn row(
    pen: &mut Pen<'_>,
    subject: Subject,
    line: &Line,
    widths: &[(usize, usize)],
    is_selected: bool,
) {
    let style = if is_selected { Modifier::REVERSED.into() } else { Style::new() };
    let y = pen.line;
    pen.fill("", style);
    pen.line = y;
    let mut column = 0;
    for (place, wide) in widths {
        if subject == Subject::Keys && *place == BARS {
            let sums = line.points.iter().map(|[one, other]| u64::from(*one) + u64::from(*other));
            let drawn = bars(&sums.collect::<Vec<_>>(), *wide);
            let is_refused = line.points.last().is_some_and(|[allowed, refused]| refused > allowed);
            pen.write(column, &drawn, *wide, style.patch(pen.palette.bars(is_refused)));
        } else if let Some(cell) = line.cells.get(*place) {
            let align = subject.columns()[*place].align;
            pen.write(column, &align.pad(&shortened(&cell.text, *wide), *wide), *wide, style);
        }
        column += wide + GAP;
    }
    pen.line += 1;
}

/// The selected line in whole, and what keys do.
fn footer(model: &Model, pen: &mut Pen<'_>, below: usize) {
    let height = usize::from(pen.area.height);
    pen.line = height.saturating_sub(below);
    if below > 1 {
        let lines = model.lines(model.focus);
        let selected = lines.get(model.pane(model.focus).selected);
        pen.add(selected.map_or("", |line| &line.whole), Style::new().add_modifier(Modifier::DIM));
    }
    if below > 0 {
        pen.fill(&help(model, pen.width()), Modifier::REVERSED.into());
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::top::example::{at, key, sample};
    use crate::cli::top::model::Press;

    /// What stands on a terminal of this size, a text for each line.
    fn screen(model: &Model, (width, height): (u16, u16), seconds: u64) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let paint = |frame: &mut ratatui::Frame<'_>| {
            let area = frame.area();
            draw(model, at(seconds), Palette::Plain, area, frame.buffer_mut());
        };
        terminal.draw(paint).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y: u16| {
            let mut line = String::new();
            let mut x = 0;
            while x < width {
                let symbol = buffer[(x, y)].symbol();
                line += symbol;
                x += u16::try_from(columns(symbol)).unwrap().max(1);
            }
            line.trim_end().to_owned()
        };
        (0..height).map(line).collect()
    }

    fn model() -> Model {
        let mut model = Model::new("tcp://localhost:7777".to_owned());
        for second in 0..20 {
            let long = "tenant:".repeat(9);
            let keys =
                [("openai", 90 + second, 10), (&*long, 2 * second, 0), ("鍵\u{1b}[2J", 1, 7)];
            let keys = keys.map(|(name, allowed, refused)| key(name, allowed, refused));
            model.handle_question(at(second));
            model.handle_sample(at(second), sample(keys.to_vec()));
        }
        model
    }

    /// The line with this text.
    fn find<'a>(lines: &'a [String], text: &str) -> &'a str {
        let line = lines.iter().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("{text:?} is in none of {lines:#?}"))
    }

    #[test]
    fn a_screen_shows_the_server_its_keys_locks_and_clients() {
        let lines = screen(&model(), (80, 32), 19);
        assert_eq!(
            lines[..3],
            [
                "zmqlocker 0.1.0  tcp://127.0.0.1:7777  up 1h02m  security none  durable",
                "allowed 148, 3.0/s  refused 17, 0.0/s  waiting 0  keys 12  leases 0  clients 2",
                "problems 0, 0 by a bound  bad messages 3  round trip 0.41 ms (0.41/0.41/0.41)",
            ]
        );
        let load = find(&lines, "load");
        assert!(load.ends_with(&("█".repeat(19) + " at most 3/s")), "{load}");
        let header = find(&lines, "KEY");
        let names = ["KEY", "RATE▼", "LAST MINUTE", "ALLOWED", "REFUSED", "WAIT", "HELD", "LEFT"];
        assert_eq!(header.split_whitespace().collect::<Vec<_>>().join(" "), names.join(" "));
        let openai = find(&lines[5..], "openai");
        assert!(openai.contains("10.0") && openai.contains("▇███"), "{openai}");
        assert!(openai.ends_with("109        10      2      1     18"), "{openai}");
        let invoice = find(&lines, "invoice:42").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(invoice, "invoice:42 held 12.0s 0.7s 2 nightly 4711 db1");
        let client = find(&lines, "812").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(client, "nightly 812 1m30s 0.9s 2 1 10.0.0.7 web2");
        assert_eq!(lines[30], "openai: 500/min sliding, unused in 12.0s");
        assert!(lines[31].starts_with("q quit  / filter  s sort"), "{}", lines[31]);
    }

    #[test]
    fn a_wide_key_pushes_nothing_out_of_its_column_and_does_nothing_to_a_terminal() {
        let lines = screen(&model(), (80, 32), 19);
        let [wide, narrow] = ["鍵", "openai"].map(|name| find(&lines[5..], name));
        assert!(wide.starts_with("鍵\u{fffd}[2J "), "{wide}");
        let before = |line: &str| columns(line.split("10.0").next().unwrap());
        assert_eq!(before(wide), before(narrow));
        assert!(find(&lines, "tenant:tenant:").contains("…  "));
    }

    #[test]
    fn every_size_has_what_fits_and_none_breaks_it() {
        let mut model = model();
        for (width, height) in [(1, 1), (2, 30), (9, 3), (20, 10), (40, 5), (300, 100)] {
            for subject in Subject::ALL {
                assert_eq!(model.focus, subject);
                let lines = screen(&model, (width, height), 19);
                assert!(lines.iter().all(|line| columns(line) <= width.into()));
                model.handle_press(Press::Tab);
            }
        }
        let low = screen(&model, (40, 10), 19);
        assert!(low[0].starts_with("zmqlocker 0.1.0"), "{low:#?}");
        assert!(find(&low[4..], "openai").contains("10.0"));
        assert!(low.iter().all(|line| !line.contains("invoice")), "one list alone");
        assert!(low[9].starts_with("q quit"), "{low:#?}");
    }

    #[test]
    fn a_selected_line_is_seen_however_far_down() {
        let mut model = Model::new(String::new());
        let keys = (0..60).map(|number| key(&format!("key-{number:02}"), 1, 0)).collect();
        model.handle_sample(at(0), sample(keys));
        assert!(screen(&model, (80, 24), 0).iter().all(|line| !line.contains("key-59")));
        model.handle_press(Press::End);
        let lines = screen(&model, (80, 24), 0);
        assert!(find(&lines, "key-59").contains("10.0"));
        assert!(lines.iter().all(|line| !line.contains("key-00")));
        assert!(find(&lines, "invoice:42").contains("nightly"), "the other lists stay");
        // What the list with the focus does not need is for the others.
        model.handle_press(Press::Tab);
        let lines = screen(&model, (80, 60), 0);
        assert!(find(&lines, "key-40").contains("10.0") && lines[57].contains("worker-3"));
    }

    #[test]
    fn a_server_that_is_away_is_the_first_thing_to_be_seen() {
        let mut model = model();
        model.handle_question(at(19));
        let lines = screen(&model, (80, 24), 24);
        assert_eq!(lines[0], "no answer from tcp://localhost:7777 for 5 s");
        assert_eq!(lines[1], "away: what is shown is 5.0s old");
        assert!(find(&lines[6..], "openai").contains("10.0"));
        let mut never = Model::new("tcp://localhost:7777".to_owned());
        assert_eq!(screen(&never, (80, 24), 0)[0], "asking tcp://localhost:7777");
        never.handle_question(at(0));
        let lines = screen(&never, (80, 24), 3);
        assert_eq!(lines[0], "no answer from tcp://localhost:7777 for 3 s");
        assert!(lines[23].starts_with("q quit"));
    }

    #[test]
    fn a_pause_and_a_filter_are_said() {
        let mut model = model();
        for press in [' ', '/', 'o', 'p', 'e'] {
            model.handle_press(Press::Letter(press));
        }
        let lines = screen(&model, (80, 24), 25);
        assert_eq!(lines[0], "paused: what is shown is 6.0s old");
        assert_eq!(
            find(&lines, "busiest"),
            "keys: the 1 busiest of 12, with \"ope\" in their names"
        );
        assert_eq!(lines[23], "filter: ope_  Enter keep  Esc drop");
    }

    #[test]
    fn without_colours_there_are_none() {
        let model = model();
        for (palette, is_coloured) in [(Palette::Plain, false), (Palette::Colours, true)] {
            let area = Rect::new(0, 0, 80, 24);
            let mut buffer = Buffer::empty(area);
            draw(&model, at(30), palette, area, &mut buffer);
            let any = buffer.content.iter().any(|cell| cell.fg != Color::Reset);
            assert_eq!(any, is_coloured);
        }
    }
}

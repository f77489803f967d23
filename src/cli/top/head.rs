//! What stands above and below the lists: the server, what it has counted, and what keys do.

use std::time::Duration;

use crate::cli::table::{columns, harmless, short, shortened};
use crate::cli::top::bars::bars;
use crate::cli::top::line::{brief, per_second};
use crate::cli::top::model::{Model, Shown};
use crate::cli::top::sample::millis;
use crate::observe::Answers;

/// How many of the last seconds a rate is the mean of.
const RATE_SECONDS: usize = 5;

/// How many seconds are drawn as bars at most.
const BARS_MAX: usize = 60;

/// What stands between two facts in a line.
const BETWEEN: &str = "  ";

/// The lines about the server, each at most so wide.
pub(super) fn header(shown: &Shown, width: usize) -> Vec<String> {
    let (facts, tally) = (&shown.sample.status.facts, &shown.sample.status.tally);
    let rates = rates(&shown.total);
    let rate =
        |part: usize| rates.as_ref().map_or(String::new(), |rates| format!(", {}/s", rates[part]));
    let mut server = vec![
        format!("zmqlocker {}", facts.version),
        facts.endpoint.to_string(),
        format!("up {}", short(facts.uptime)),
        format!("security {}", facts.security),
    ];
    if facts.is_durable {
        server.push("durable".to_owned());
    }
    let grace = shown.sample.status.grace;
    if !grace.is_zero() {
        server.push(format!("no locks for {}", short(grace)));
    }
    let counted = vec![
        format!("allowed {}{}", brief(tally.allowed), rate(0)),
        format!("refused {}{}", brief(tally.refused), rate(1)),
        format!("waiting {}", tally.waiting),
        format!("keys {}", tally.keys),
        format!("leases {}", tally.leases),
        format!("clients {}", tally.sessions),
    ];
    let rest = vec![
        format!("problems {}, {} by a bound", tally.problems, tally.bounds_hit),
        format!("bad messages {}", facts.bad_messages),
        trips(&shown.trips),
    ];
    let mut lines: Vec<String> =
        [server, counted, rest].iter().flat_map(|facts| wrap(facts, width)).collect();
    lines.push(load(&shown.total, width));
    lines
}

/// The last minute as bars, and the most in a second of it.
fn load(total: &[Answers], width: usize) -> String {
    let sums: Vec<u64> =
        total.iter().map(|[one, other]| u64::from(*one) + u64::from(*other)).collect();
    let last = &sums[sums.len().saturating_sub(BARS_MAX)..];
    let most = last.iter().copied().max().unwrap_or(0);
    let (before, after) = ("load ", format!(" at most {}/s", brief(most)));
    let room = width.saturating_sub(columns(before) + columns(&after));
    shortened(&format!("{before}{}{after}", bars(last, room.min(BARS_MAX))), width)
}

/// How many were allowed and refused a second, as soon as that is known.
fn rates(total: &[Answers]) -> Option<[String; 2]> {
    // What was counted before the first look is of no second.
    let known = total.get(1..).filter(|known| !known.is_empty())?;
    let last = &known[known.len().saturating_sub(RATE_SECONDS)..];
    let seconds = u32::try_from(last.len()).ok().map(f64::from)?;
    let sum = |part: usize| last.iter().map(|answers| f64::from(answers[part])).sum::<f64>();
    Some([0, 1].map(|part| per_second(sum(part) / seconds)))
}

/// How long the last answer took, and the least, the mean and the most of those before.
fn trips(trips: &[Duration]) -> String {
    let (Some(newest), Some(least), Some(most)) =
        (trips.last(), trips.iter().min(), trips.iter().max())
    else {
        return String::new();
    };
    let count = u32::try_from(trips.len()).unwrap_or(u32::MAX);
    let mean = trips.iter().sum::<Duration>() / count;
    let number = |length: &Duration| format!("{:.2}", length.as_secs_f64() * 1e3);
    let three = [least, &mean, most].map(number).join("/");
    format!("round trip {} ({three})", millis(*newest))
}

/// Facts in as many lines as they need; one that is wider than a line is cut.
fn wrap(facts: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for fact in facts.iter().filter(|fact| !fact.is_empty()) {
        let fact = shortened(&harmless(fact), width);
        match lines.last_mut() {
            Some(line) if columns(line) + columns(BETWEEN) + columns(&fact) <= width => {
                line.push_str(BETWEEN);
                line.push_str(&fact);
            }
            _ => lines.push(fact),
        }
    }
    lines
}

/// What keys do, or what is typed.
pub(super) fn help(model: &Model, width: usize) -> String {
    if model.typing {
        let text = format!("filter: {}_  Enter keep  Esc drop", model.filter);
        return shortened(&harmless(&text), width);
    }
    let keys = [
        "q quit",
        "/ filter",
        "s sort",
        "r reverse",
        if model.paused { "space go on" } else { "space pause" },
        "Tab keys/locks/clients",
        "arrows select",
    ];
    wrap(&keys.map(str::to_owned), width).into_iter().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_fill_lines_and_none_is_wider() {
        let facts =
            ["allowed 1", "refused 2", "鍵鍵鍵鍵鍵鍵鍵鍵鍵鍵鍵鍵鍵鍵", ""].map(str::to_owned);
        assert_eq!(wrap(&facts, 24), ["allowed 1  refused 2", "鍵鍵鍵鍵鍵鍵鍵鍵鍵鍵鍵…"]);
        assert_eq!(wrap(&facts[..2], 12), ["allowed 1", "refused 2"]);
        assert_eq!(wrap(&facts[..1], 0), [""]);
    }

    #[test]
    fn a_rate_is_the_mean_of_the_last_seconds_and_of_no_other() {
        assert_eq!(rates(&[[0, 0]]), None);
        assert_eq!(rates(&[[0, 0], [7, 1]]), Some(["7.0", "1.0"].map(str::to_owned)));
        let total = [[0, 0], [999, 999], [1, 0], [2, 0], [3, 0], [4, 0], [5, 1]];
        assert_eq!(rates(&total), Some(["3.0", "0.2"].map(str::to_owned)));
    }

    #[test]
    fn round_trips_are_told_by_the_last_and_by_three_of_all() {
        let lengths = [100, 900, 200].map(Duration::from_micros);
        assert_eq!(trips(&lengths), "round trip 0.20 ms (0.10/0.40/0.90)");
        assert_eq!(trips(&[]), "");
    }

    #[test]
    fn the_load_fits_whatever_the_width() {
        let total = [[0, 0], [3, 1], [8, 0]];
        assert_eq!(
            load(&total, 26),
            "load           ▄█ at most 8/s"[..].replace("         ", "      ")
        );
        for width in 0..80 {
            assert!(columns(&load(&total, width)) <= width);
        }
    }
}

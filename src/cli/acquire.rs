//! `zmqlocker acquire` and `peek`: permits of keys, and what is left of them.

use clap::Args;

use crate::cli::client::{ClientOptions, Patience, Reach, ask, keys, print};
use crate::cli::json::{Object, document};
use crate::cli::table::{fitting, short};
use crate::cli::{Failure, Status, complain};
use crate::engine::{Cost, Decision, Demand, Hold, Key, Reply, Request};
use crate::error::Error;

/// Take permits of a key, or of several together, and wait for them if need be.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker acquire rpm tpm --cost 1 --cost 1200 --timeout 30

The permits are spent. `zmqlocker limit` holds those of a concurrency limit while a command runs.

Exit status: 0 allowed, 1 refused, 2 wrong usage, 3 no server or another failure.")]
pub(super) struct Acquire {
    /// The key. Of several, permits of all are taken together or of none.
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    /// How many permits to take; given once for all keys, or once for each in their order.
    #[arg(long = "cost", value_name = "COUNT", default_value = "1")]
    costs: Vec<u64>,
    #[command(flatten)]
    reach: Reach,
    /// How long to wait for the permits: 0 is not at all, "none" without an end.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "10",
        allow_negative_numbers = true,
        value_parser = Patience::parse
    )]
    timeout: Patience,
    /// One JSON object, with times in seconds.
    #[arg(long)]
    json: bool,
}

impl Acquire {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let demand = demand(&self.keys, &self.costs)?;
        let client = self.reach.client_of_any(None)?;
        let (wait, hold) = (self.timeout.wait(), Hold::Spend);
        let request = Request::Acquire { demand, wait, hold };
        match client.ask(&request, None, self.timeout.timeout(), &mut || true) {
            Ok(heard) => show(&self.keys, &heard.reply, self.json),
            Err(error @ Error::Late { .. }) => {
                complain(&error);
                let Error::Late { limit, .. } = &error else { return Ok(Status::Refused) };
                if self.json {
                    print(&(document(&late(&self.keys, limit)) + "\n"))?;
                }
                Ok(Status::Refused)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Show whether a request for permits would be allowed now, and what would be left. Takes none.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker peek openai --json | jq .remaining

Exit status: 0 it would be allowed, 1 refused, 2 wrong usage, 3 no server or another failure.")]
pub(super) struct Peek {
    /// The key.
    key: String,
    /// How many permits the request would take.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    cost: u64,
    #[command(flatten)]
    options: ClientOptions,
}

impl Peek {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let request =
            Request::Peek { key: Key::parse(&self.key)?, cost: Cost::new(self.cost.into())? };
        let client = self.options.client()?;
        let reply = ask(&client, &request)?;
        show(std::slice::from_ref(&self.key), &reply, self.options.json)
    }
}

/// What is wanted of keys that stand on the command line.
pub(super) fn demand<'a>(texts: &'a [String], costs: &[u64]) -> Result<Demand<'a>, Error> {
    if costs.len() > 1 && costs.len() != texts.len() {
        let problem = format!(
            "must be given once for all keys, or once for each: {} times for {} keys",
            costs.len(),
            texts.len()
        );
        return Err(Error::Config { argument: "--cost", problem });
    }
    let costs =
        costs.iter().map(|cost| Cost::new((*cost).into())).collect::<Result<Vec<_>, _>>()?;
    Demand::new(keys(texts)?.into_iter().zip(costs.into_iter().cycle()))
}

/// Prints a decision. What it says, for the shell.
fn show(keys: &[String], reply: &Reply, json: bool) -> Result<Status, Failure> {
    let Reply::Decision(decision) = reply else { return Err(Error::unexpected(reply).into()) };
    let key = keys.get(decision.key).map_or("", String::as_str);
    print(&if json { document(&object(key, decision)) + "\n" } else { line(key, decision) })?;
    Ok(if decision.allowed { Status::Done } else { Status::Refused })
}

/// A decision for people.
fn line(key: &str, decision: &Decision) -> String {
    let Decision { allowed, remaining, retry_after, reset_after, limit, .. } = decision;
    fitting(&if *allowed {
        format!("{key}: allowed, {remaining} left of {limit}, unused in {}", short(*reset_after))
    } else {
        let again = match retry_after {
            Some(length) => format!("again in {}", short(*length)),
            None => "never again".to_owned(),
        };
        format!("{key}: refused by {limit}, {again}")
    })
}

/// A decision for programs, with the names of the Python package.
fn object(key: &str, decision: &Decision) -> Object {
    Object::new()
        .with("key", key)
        .with("allowed", &decision.allowed)
        .with("remaining", &decision.remaining)
        .with("retry_after", &decision.retry_after)
        .with("reset_after", &decision.reset_after)
        .with("limit", &*decision.limit)
}

/// The same where a wait has ended in vain: what is not known is null.
fn late(keys: &[String], limit: &str) -> Object {
    let (nothing, only) = (None::<u64>, if let [key] = keys { Some(key) } else { None });
    Object::new()
        .with("key", &only)
        .with("allowed", &false)
        .with("remaining", &nothing)
        .with("retry_after", &nothing)
        .with("reset_after", &nothing)
        .with("limit", &Some(limit).filter(|limit| !limit.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_decision_reads_so() {
        let mut decision = Decision {
            allowed: true,
            remaining: 4,
            retry_after: Some(Duration::ZERO),
            reset_after: Duration::from_millis(800),
            limit: "5/0.8s".into(),
            key: 0,
            grant: None,
        };
        assert_eq!(line("a", &decision), "a: allowed, 4 left of 5/0.8s, unused in 0.8s\n");
        decision.allowed = false;
        decision.retry_after = Some(Duration::from_secs(90));
        assert_eq!(line("a", &decision), "a: refused by 5/0.8s, again in 1m30s\n");
        decision.retry_after = None;
        assert_eq!(line("a", &decision), "a: refused by 5/0.8s, never again\n");
        assert_eq!(
            document(&object("a \"b\"", &decision)),
            "{\"key\": \"a \\\"b\\\"\", \"allowed\": false, \"remaining\": 4, \
             \"retry_after\": null, \"reset_after\": 0.8, \"limit\": \"5/0.8s\"}"
        );
    }

    #[test]
    fn a_cost_is_for_all_keys_or_for_each() {
        let texts = ["a", "b"].map(str::to_owned);
        let costs = |costs: &[u64]| {
            let demand = demand(&texts, costs)?;
            Ok::<_, Error>(
                demand.parts().iter().map(|(_, cost)| cost.permits()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(costs(&[3]), Ok(vec![3, 3]));
        assert_eq!(costs(&[1, 1200]), Ok(vec![1, 1200]));
        assert!(costs(&[1, 2, 3]).is_err() && costs(&[0]).is_err());
    }
}

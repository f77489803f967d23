//! Which requests a client may make, by the keys that they are about.

use smallvec::SmallVec;

use crate::engine::{Code, Key, Pattern, Problem, Reply, Request};
use crate::error::Error;

/// What a client may do with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Ask for permits and locks, and freeze the key.
    Use,
    /// Reset the key, give it other limits, take locks from their holders.
    Administer,
    /// Look at the key: whoever has one of the others may.
    Look,
}

/// With which keys a client may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    used: Vec<Pattern>,
    administered: Vec<Pattern>,
}

impl Rights {
    /// The most patterns of each right.
    pub const PATTERNS_MAX: usize = 1_000;

    /// Rights to use the keys of some patterns and to administer those of others.
    #[must_use]
    pub const fn new(used: Vec<Pattern>, administered: Vec<Pattern>) -> Self {
        Self { used, administered }
    }

    /// Reads a pattern of keys.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] unless it is 1 to [`Key::BYTES_MAX`] bytes.
    pub fn pattern(argument: &'static str, text: &str) -> Result<Pattern, Error> {
        Key::parse(text).map_err(|error| error.about(argument))?;
        Ok(Pattern::new(text.to_owned()))
    }

    /// Whether a client with these rights has this one to a key.
    #[must_use]
    pub fn have(&self, right: Right, key: &str) -> bool {
        let fit = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.fits(key));
        match right {
            Right::Use => fit(&self.used),
            Right::Administer => fit(&self.administered),
            Right::Look => fit(&self.used) || fit(&self.administered),
        }
    }

    /// Whether a client with these rights may make this request.
    ///
    /// # Errors
    ///
    /// A [`Problem`] with [`Code::Auth`] that names the key and the right to it that is missing.
    pub fn judge(&self, request: &Request<'_>) -> Result<(), Problem> {
        if matches!(request, Request::Clients { .. }) && self.administered.is_empty() {
            let message = "this client has no right to see others: it may administer no key";
            return Err(Problem { code: Code::Auth, message: message.to_owned() });
        }
        let (right, keys) = needs(request);
        match keys.into_iter().find(|key| !self.have(right, key.as_str())) {
            Some(key) => Err(missing(right, key)),
            None => Ok(()),
        }
    }

    /// Leaves of an answer that lists keys those that a client with these rights may look at.
    pub fn show(&self, reply: &mut Reply) {
        match reply {
            Reply::Locks(page) => page.rows.retain(|row| self.have(Right::Look, &row.key)),
            Reply::Keys(page) => page.rows.retain(|row| self.have(Right::Look, &row.key)),
            _ => {}
        }
    }
}

/// Which right a request needs, and to which keys. It needs none for what was granted to the
/// session that makes it, nor for the server's counts. Who asks for locks or keys sees those that
/// it may look at; other clients are seen by those who may administer any key.
#[must_use]
pub fn needs<'a>(request: &Request<'a>) -> (Right, SmallVec<[Key<'a>; 1]>) {
    let right = match request {
        Request::Acquire { .. }
        | Request::Lock { .. }
        | Request::Reclaim { .. }
        | Request::Block { .. }
        | Request::Freeze { .. } => Right::Use,
        Request::Reset { .. } | Request::SetLimits { .. } | Request::Break { .. } => {
            Right::Administer
        }
        Request::Peek { .. }
        | Request::Commit { .. }
        | Request::Release { .. }
        | Request::ReleaseIn { .. }
        | Request::GiveBack { .. }
        | Request::Status
        | Request::Keys { .. }
        | Request::Clients { .. }
        | Request::Locks { .. } => Right::Look,
    };
    (right, request.keys())
}

fn missing(right: Right, key: Key<'_>) -> Problem {
    let verb = match right {
        Right::Use => "use",
        Right::Administer => "administer",
        Right::Look => "look at",
    };
    let key = key.as_str();
    let message = format!("this client has no right to {verb} the key {key:?}");
    Problem { code: Code::Auth, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{ClientInfo, Cost, Demand, GrantId, Hold, LockPage, LockRow, Mode, Wait};
    use std::time::Duration;

    fn rights() -> Rights {
        let pattern = |text| Rights::pattern("use", text).unwrap();
        Rights::new(vec![pattern("a:*"), pattern("b")], vec![pattern("c*")])
    }

    fn key(text: &str) -> Key<'_> {
        Key::parse(text).unwrap()
    }

    #[test]
    fn each_request_needs_its_right() {
        let acquire = |keys: &[&'static str]| Request::Acquire {
            demand: Demand::new(keys.iter().map(|text| (key(text), Cost::ONE))).unwrap(),
            wait: Wait::No,
            hold: Hold::Spend,
        };
        let peek = |text| Request::Peek { key: key(text), cost: Cost::ONE };
        let freeze = |text| Request::Freeze { key: key(text), length: Duration::from_secs(1) };
        let block = |text| Request::Block { key: key(text), wanted: Cost::ONE };
        let reset = |text| Request::Reset { key: key(text) };
        let set_limits = |text| Request::SetLimits { key: key(text), limits: vec!["1/s"] };
        let take = |text| Request::Break { key: key(text), grant: None };
        let cases = [
            (acquire(&["a:1"]), None),
            (acquire(&["a:1", "b"]), None),
            (acquire(&["a:1", "c", "b"]), Some("use the key \"c\"")),
            (acquire(&["b:1"]), Some("use the key \"b:1\"")),
            (freeze("b"), None),
            (freeze("c"), Some("use the key \"c\"")),
            (block("c"), Some("use the key \"c\"")),
            (peek("b"), None),
            (peek("c"), None),
            (peek("d"), Some("look at the key \"d\"")),
            (reset("b"), Some("administer the key \"b\"")),
            (reset("c"), None),
            (set_limits("a:1"), Some("administer the key \"a:1\"")),
            (set_limits("c7"), None),
            (take("b"), Some("administer the key \"b\"")),
            (take("c"), None),
            (Request::Release { grant: GrantId(1) }, None),
            (Request::Locks { from: 0 }, None),
            (Request::Keys { from: 0 }, None),
            (Request::Status, None),
            (Request::Clients { from: 0 }, None),
        ];
        for (request, missing) in cases {
            let problem = rights().judge(&request).err().map(|problem| problem.message);
            let expected = missing.map(|what| format!("this client has no right to {what}"));
            assert_eq!(problem, expected, "{request:?}");
        }
    }

    #[test]
    fn clients_are_seen_by_those_who_administer() {
        let user = Rights::new(vec![Rights::pattern("use", "*").unwrap()], Vec::new());
        let problem = user.judge(&Request::Clients { from: 0 }).unwrap_err();
        assert_eq!(problem.code, Code::Auth);
    }

    #[test]
    fn locks_are_shown_to_those_with_a_right_to_them() {
        let row = |key: &str| LockRow {
            key: key.into(),
            mode: Mode::Exclusive,
            grant: None,
            since: Duration::ZERO,
            left: Duration::ZERO,
            session: None,
            client: ClientInfo::default(),
        };
        let page = LockPage { rows: ["a", "a:1", "b", "c", "d"].map(row).into(), next: Some(7) };
        let mut reply = Reply::Locks(page);
        rights().show(&mut reply);
        let Reply::Locks(shown) = reply else { panic!("{reply:?}") };
        let keys: Vec<_> = shown.rows.iter().map(|row| &*row.key).collect();
        assert_eq!(keys, ["a:1", "b", "c"]);
        assert_eq!(shown.next, Some(7));
    }
}

//! The list of the clients that a server lets in: a file of TOML, each error with its place.

use std::collections::HashMap;
use std::sync::Arc;

use crate::access::key::PublicKey;
use crate::access::right::Rights;
use crate::config_file::{DeTable, DeValue, Errors, Spanned, string, type_name};
use crate::engine::Pattern;
use crate::error::Error;

/// The keys of a client's table.
const KEYS: [&str; 3] = [PUBLIC_KEY, USE, ADMINISTER];

const PUBLIC_KEY: &str = "public_key";
const USE: &str = "use";
const ADMINISTER: &str = "administer";

/// A client that a server lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The name that the list gives it.
    pub name: Box<str>,
    /// What it may do.
    pub rights: Rights,
}

/// The clients that a server lets in, by their public keys.
///
/// ```
/// use zmqlocker::access::{Clients, PublicKey, Right};
///
/// let text = r#"
///     [clients.worker]
///     public_key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
///     use = ["openai", "tenant:*"]
/// "#;
/// let clients = Clients::parse("clients.toml", text)?;
/// let key = PublicKey::parse("key", "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7")?;
/// let worker = clients.find(&key).unwrap();
/// assert!(worker.rights.have(Right::Use, "tenant:7"));
/// assert!(!worker.rights.have(Right::Administer, "tenant:7"));
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    by_key: HashMap<PublicKey, Arc<Client>>,
    /// Whoever has a key of any kind, where all are let in.
    anybody: Option<Arc<Client>>,
}

impl Clients {
    /// The most clients of a list.
    pub const CLIENTS_MAX: usize = 10_000;

    /// The longest text of a list, in bytes.
    pub const TEXT_BYTES_MAX: usize = 4 << 20;

    /// The longest name of a client, in bytes.
    pub const NAME_BYTES_MAX: usize = 256;

    /// Everybody who knows the server's public key may use all keys. Nobody may administer any.
    #[must_use]
    pub fn anybody() -> Self {
        let rights = Rights::new(vec![Pattern::new("*".to_owned())], Vec::new());
        let client = Client { name: "anybody".into(), rights };
        Self { by_key: HashMap::new(), anybody: Some(Arc::new(client)) }
    }

    /// Reads the text of the file that errors call `name`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for `clients`, whose problem has a line for each error, in the order of
    /// the file: its name, the line and the column, and what is wrong there.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        Errors::parse("clients", name, text, Self::TEXT_BYTES_MAX, Self::read)
    }

    /// The client with this key, if it is let in.
    #[must_use]
    pub fn find(&self, key: &PublicKey) -> Option<&Arc<Client>> {
        self.by_key.get(key).or(self.anybody.as_ref())
    }

    /// How many there are; `None` if all are let in.
    #[must_use]
    pub fn count(&self) -> Option<usize> {
        self.anybody.is_none().then_some(self.by_key.len())
    }

    fn read(errors: &mut Errors, table: &DeTable<'_>) -> Self {
        errors.refuse_unknown(table, &["clients"]);
        let mut all = Self::default();
        let Some(clients) = errors.table(table, "clients") else { return all };
        let mut clients: Vec<_> = clients.iter().collect();
        clients.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in clients {
            if all.by_key.len() == Self::CLIENTS_MAX {
                let problem = format!("there must be at most {} clients", Self::CLIENTS_MAX);
                errors.add(name, problem);
                break;
            }
            let Some((key, client)) = client(errors, name, value) else { continue };
            if let Some(other) = all.by_key.get(&key) {
                let problem = format!("{PUBLIC_KEY} is that of the client {:?}, too", other.name);
                errors.add(value, problem);
                continue;
            }
            all.by_key.insert(key, Arc::new(client));
        }
        all
    }
}

/// The client of one table.
fn client(
    errors: &mut Errors,
    name: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> Option<(PublicKey, Client)> {
    let text = name.get_ref();
    let DeValue::Table(table) = value.get_ref() else {
        let found = type_name(value.get_ref());
        errors.add(value, format!("client {text:?} must be a table, not {found}"));
        return None;
    };
    if !(1..=Clients::NAME_BYTES_MAX).contains(&text.len()) || text.chars().any(char::is_control) {
        let bound = Clients::NAME_BYTES_MAX;
        errors.add(name, format!("the name of a client must be 1 to {bound} bytes of text"));
    }
    errors.refuse_unknown(table, &KEYS);
    let key = errors.value(table, PUBLIC_KEY, |argument, value| {
        PublicKey::parse(argument, string(argument, value)?)
    });
    if !table.contains_key(PUBLIC_KEY) {
        errors.add(name, format!("client {text:?} needs its {PUBLIC_KEY}"));
    }
    let [used, administered] = [USE, ADMINISTER].map(|right| patterns(errors, table, right));
    if used.is_empty() && administered.is_empty() {
        let problem = format!("client {text:?} needs keys to {USE}, or to {ADMINISTER}");
        errors.add(name, problem);
    }
    Some((key?, Client { name: (**text).into(), rights: Rights::new(used, administered) }))
}

/// The patterns of one right: a text or a list of texts.
fn patterns(errors: &mut Errors, table: &DeTable<'_>, right: &'static str) -> Vec<Pattern> {
    let Some(value) = table.get(right) else { return Vec::new() };
    let texts = match value.get_ref() {
        DeValue::String(_) => std::slice::from_ref(value),
        DeValue::Array(texts) => &texts[..],
        other => {
            let found = type_name(other);
            errors
                .add(value, format!("{right} must be a string or a list of strings, not {found}"));
            return Vec::new();
        }
    };
    if texts.len() > Rights::PATTERNS_MAX {
        errors.add(value, format!("{right} must be at most {} patterns", Rights::PATTERNS_MAX));
        return Vec::new();
    }
    let read = |text: &Spanned<DeValue<'_>>| {
        let pattern = string(right, text.get_ref()).and_then(|text| Rights::pattern(right, text));
        errors.keep(text.span().start, pattern)
    };
    texts.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Right;

    const FIRST: &str = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
    const SECOND: &str = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";

    fn key(text: &str) -> PublicKey {
        PublicKey::parse("key", text).unwrap()
    }

    #[test]
    fn each_client_has_its_rights() {
        let text = format!(
            "[clients.worker]\npublic_key = \"{FIRST}\"\nuse = \"tenant:*\"\n\
             [clients.\"the operator\"]\npublic_key = \"{SECOND}\"\n\
             use = []\nadminister = [\"*\"]\n"
        );
        let clients = Clients::parse("a.toml", &text).unwrap();
        assert_eq!(clients.count(), Some(2));
        let worker = clients.find(&key(FIRST)).unwrap();
        assert_eq!(&*worker.name, "worker");
        assert!(worker.rights.have(Right::Use, "tenant:1"));
        assert!(!worker.rights.have(Right::Use, "tenant"));
        let operator = clients.find(&key(SECOND)).unwrap();
        assert_eq!(&*operator.name, "the operator");
        assert!(operator.rights.have(Right::Administer, "x"));
        assert!(!operator.rights.have(Right::Use, "x"));
        assert_eq!(clients.find(&PublicKey::new([0; 32])), None);
    }

    #[test]
    fn an_empty_list_lets_nobody_in() {
        let clients = Clients::parse("a.toml", "").unwrap();
        assert_eq!((clients.count(), clients.find(&key(FIRST))), (Some(0), None));
    }

    #[test]
    fn anybody_may_use_and_nobody_may_administer() {
        let clients = Clients::anybody();
        let rights = &clients.find(&key(FIRST)).unwrap().rights;
        assert!(rights.have(Right::Use, "x") && !rights.have(Right::Administer, "x"));
        assert_eq!(clients.count(), None);
    }

    #[test]
    fn every_error_has_its_place() {
        let text = format!(
            "client = 1\n\
             [clients.a]\npublic_key = \"{FIRST}\"\nuses = \"*\"\n\
             [clients.b]\npublic_key = \"x\"\nuse = [\"\", 7]\n\
             [clients.c]\nuse = 7\nadminister = \"*\"\n\
             [clients.d]\npublic_key = \"{FIRST}\"\nuse = \"*\"\n\
             [clients.e]\npublic_key = \"{SECOND}\"\nuse = \"*\"\n\
             [clients.f]\npublic_key = 1\nuse = \"*\"\n"
        );
        let expected = "clients a.toml:1:1: unknown key \"client\": did you mean \"clients\"?\n\
            a.toml:2:10: client \"a\" needs keys to use, or to administer\n\
            a.toml:4:1: unknown key \"uses\": did you mean \"use\"?\n\
            a.toml:5:10: client \"b\" needs keys to use, or to administer\n\
            a.toml:6:14: public_key must be a key of 40 letters of Z85\n\
            a.toml:7:8: use must be 1 to 256 bytes of UTF-8, not 0\n\
            a.toml:7:12: use must be a string, not a whole number\n\
            a.toml:8:10: client \"c\" needs its public_key\n\
            a.toml:9:7: use must be a string or a list of strings, not a whole number\n\
            a.toml:11:1: public_key is that of the client \"a\", too\n\
            a.toml:18:14: public_key must be a string, not a whole number";
        assert_eq!(Clients::parse("a.toml", &text).unwrap_err().to_string(), expected);
        assert_eq!(
            Clients::parse("a.toml", "clients = 7").unwrap_err().to_string(),
            "clients a.toml:1:11: clients must be a table, not a whole number"
        );
        assert_eq!(
            Clients::parse("a.toml", "clients.a = 7").unwrap_err().to_string(),
            "clients a.toml:1:13: client \"a\" must be a table, not a whole number"
        );
    }
}

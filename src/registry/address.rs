//! Where a registry is: the URLs that users write.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::registry::Registry;

/// The longest URL, in bytes.
const BYTES_MAX: usize = 4096;

/// How many servers of etcd may be named.
const ENDPOINTS_MAX: usize = 16;

const SPELLING: &str = "must read etcd://HOST:PORT,HOST:PORT/PREFIX, \
                        postgresql://USER:PASSWORD@HOST/DATABASE or file:///FOLDER";

/// Where a registry is. It shows itself without its password.
///
/// ```
/// use zmqlocker::registry::Address;
///
/// let (address, _) = Address::parse("etcd://me:secret@a:2379,b:2379/shop")?;
/// assert_eq!(address.to_string(), "etcd://me:***@a:2379,b:2379/shop");
/// assert!(Address::parse("redis://a:6379").is_err());
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// A folder of this host, for servers of this host.
    File(PathBuf),
    /// Servers of etcd.
    Etcd(EtcdAddress),
    /// A database of PostgreSQL.
    Postgres(PostgresAddress),
}

/// Servers of etcd, all of one cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdAddress {
    /// `HOST:PORT` each.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// The name and the password of a user, where etcd asks for them.
    pub user: Option<(String, String)>,
    /// How to speak TLS, if at all.
    pub tls: Option<TlsFiles>,
}

/// A database of PostgreSQL.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresAddress {
    /// The URL, with the options that the driver knows.
    pub url: String,
    /// The table.
    pub table: String,
    /// How to speak TLS, where the URL wants it.
    pub tls: TlsFiles,
}

/// Files in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who may have signed the server's certificate; none, and it is those whom browsers trust.
    pub authorities: Option<PathBuf>,
    /// Our certificate and its key, where the server asks for them.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// The options after the `?` that the registry itself does not take.
pub type Options = Vec<(String, String)>;

impl Address {
    /// An address, and the options that are not the registry's own.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that says how an address reads, and shows no password.
    pub fn parse(text: &str) -> Result<(Self, Options), Error> {
        if text.len() > BYTES_MAX {
            let length = text.len();
            return Err(wrong(format!("must be at most {BYTES_MAX} bytes, not {length}")));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong(format!("{SPELLING}; it has no `://`")));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if options.iter().any(|(other, _)| other == name) {
                return Err(wrong(format!("names the option {name:?} twice")));
            }
            options.push((name.to_owned(), decode(value)?));
        }
        let address = match scheme {
            "file" => parse_file(rest)?,
            "etcd" => parse_etcd(rest, &mut options)?,
            "postgresql" | "postgres" => parse_postgres(rest, &mut options)?,
            other => return Err(wrong(format!("{SPELLING}; not {other}://"))),
        };
        Ok((address, options))
    }

    /// The registry, which has answered once.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it cannot be reached within about that time, lets nobody in, or holds
    /// what is not ours.
    pub fn open(&self, within: Duration) -> Result<Box<dyn Registry>, Error> {
        match self {
            #[cfg(feature = "net")]
            Self::File(folder) => {
                super::FileRegistry::open(folder, within).map(|it| Box::new(it) as _)
            }
            #[cfg(feature = "etcd")]
            Self::Etcd(address) => super::Etcd::open(address, within).map(|it| Box::new(it) as _),
            #[cfg(feature = "postgres")]
            Self::Postgres(address) => {
                super::Postgres::open(address, within).map(|it| Box::new(it) as _)
            }
            #[cfg(not(all(feature = "net", feature = "etcd", feature = "postgres")))]
            other => {
                let _ = within;
                Err(wrong(format!("{other} is of a kind that this build leaves out")))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(folder) => write!(formatter, "file://{}", folder.display()),
            Self::Etcd(address) => {
                formatter.write_str("etcd://")?;
                if let Some((name, _)) = &address.user {
                    write!(formatter, "{name}:***@")?;
                }
                let prefix = address.prefix.trim_end_matches('/');
                write!(formatter, "{}/{prefix}", address.endpoints.join(","))
            }
            Self::Postgres(address) => formatter.write_str(&masked(&address.url)),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Address({self})")
    }
}

impl fmt::Debug for EtcdAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EtcdAddress({})", Address::Etcd(self.clone()))
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PostgresAddress({})", masked(&self.url))
    }
}

/// That the registry cannot be used, and why.
pub(super) fn wrong(problem: String) -> Error {
    Error::Config { argument: "registry", problem }
}

fn parse_file(rest: &str) -> Result<Address, Error> {
    let folder = decode(rest)?;
    if !folder.starts_with('/') || folder.contains('\0') {
        let problem = "must name a folder from the root on, as file:///var/lib/zmqlocker/registry";
        return Err(wrong(format!("{problem}, not file://{rest}")));
    }
    Ok(Address::File(PathBuf::from(folder)))
}

fn parse_etcd(rest: &str, options: &mut Options) -> Result<Address, Error> {
    let (user, rest) = match rest.rsplit_once('@') {
        None => (None, rest),
        Some((user, rest)) => {
            let Some((name, password)) = user.split_once(':') else {
                return Err(wrong("must have a password, as etcd://USER:PASSWORD@HOST".to_owned()));
            };
            (Some((decode(name)?, decode(password)?)), rest)
        }
    };
    let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let endpoints: Vec<_> = hosts.split(',').map(endpoint).collect::<Result<_, _>>()?;
    if endpoints.len() > ENDPOINTS_MAX {
        let count = endpoints.len();
        return Err(wrong(format!("must name at most {ENDPOINTS_MAX} servers, not {count}")));
    }
    let prefix = decode(prefix.trim_matches('/'))?;
    let prefix = if prefix.is_empty() { "zmqlocker/".to_owned() } else { format!("{prefix}/") };
    let wanted = take(options, "tls");
    if wanted.as_deref().is_some_and(|tls| !["on", "off"].contains(&tls)) {
        return Err(wrong("must have tls=on or tls=off".to_owned()));
    }
    let files = tls_files(options, ["ca", "cert", "key"])?;
    let is_named = files != TlsFiles::default();
    if is_named && wanted.as_deref() == Some("off") {
        return Err(wrong("names files of TLS, and turns it off by tls=off".to_owned()));
    }
    let tls = (is_named || wanted.as_deref() == Some("on")).then_some(files);
    Ok(Address::Etcd(EtcdAddress { endpoints, prefix, user, tls }))
}

/// `HOST:PORT`; the port of etcd if there is none.
fn endpoint(text: &str) -> Result<String, Error> {
    let bare = text.strip_suffix(']').is_some() || !text.contains(':');
    let whole = if bare { format!("{text}:2379") } else { text.to_owned() };
    let is_good = whole.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]%".contains(&byte);
        !host.is_empty() && host.bytes().all(is_host) && port.parse::<u16>().is_ok_and(|it| it > 0)
    });
    if is_good {
        return Ok(whole);
    }
    Err(wrong(format!("must name servers of etcd as HOST:PORT, separated by commas, not {text:?}")))
}

fn parse_postgres(rest: &str, options: &mut Options) -> Result<Address, Error> {
    let table = take(options, "table").unwrap_or_else(|| "zmqlocker".to_owned());
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if table.is_empty() || table.len() > 63 || !table.bytes().all(is_name) {
        let problem = "must have a table of 1 to 63 letters a-z, digits and underscores";
        return Err(wrong(format!("{problem}, not {table:?}")));
    }
    let tls = tls_files(options, ["sslrootcert", "sslcert", "sslkey"])?;
    let mut url = format!("postgresql://{rest}");
    // What the driver knows stays with it.
    for name in ["sslmode", "application_name", "options", "target_session_attrs", "host"] {
        if let Some(mut value) = take(options, name) {
            // All that is encrypted is checked here as well.
            if name == "sslmode" && value.starts_with("verify-") {
                "require".clone_into(&mut value);
            }
            let mark = if url.contains('?') { '&' } else { '?' };
            url = format!("{url}{mark}{name}={}", encode(&value));
        }
    }
    Ok(Address::Postgres(PostgresAddress { url, table, tls }))
}

fn take(options: &mut Options, name: &str) -> Option<String> {
    let place = options.iter().position(|(other, _)| other == name)?;
    Some(options.swap_remove(place).1)
}

fn tls_files(options: &mut Options, names: [&str; 3]) -> Result<TlsFiles, Error> {
    let [authorities, certificate, key] = names.map(|name| take(options, name).map(PathBuf::from));
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(wrong(format!("must have both {} and {}, or none", names[1], names[2]))),
    };
    Ok(TlsFiles { authorities, client })
}

/// The URL without its password.
fn masked(url: &str) -> String {
    let Some((before, rest)) = url.rsplit_once('@') else { return url.to_owned() };
    let user = before.trim_start_matches("postgresql://");
    let name = user.split_once(':').map_or(user, |(name, _)| name);
    format!("postgresql://{name}:***@{rest}")
}

/// Undoes `%41`.
fn decode(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            (b'%', None) => {
                return Err(wrong("has a % that two hexadecimal digits do not follow".to_owned()));
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong("must be UTF-8 when decoded".to_owned()))
}

fn encode(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => (byte as char).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Address::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn an_address_of_etcd_names_servers_a_prefix_a_user_and_files() {
        let text = "etcd://me:s%40cret@a,10.0.0.1:12,[::1]/shop/?ca=/ca.pem&cluster=x";
        let (Address::Etcd(address), options) = Address::parse(text).unwrap() else { panic!() };
        assert_eq!(address.endpoints, ["a:2379", "10.0.0.1:12", "[::1]:2379"]);
        assert_eq!(address.prefix, "shop/");
        assert_eq!(address.user, Some(("me".to_owned(), "s@cret".to_owned())));
        assert_eq!(address.tls.unwrap().authorities, Some(PathBuf::from("/ca.pem")));
        assert_eq!(options, [("cluster".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn an_address_of_postgresql_keeps_what_its_driver_knows() {
        let text = "postgres://me:pw@h:5433/db?sslmode=verify-full&sslrootcert=/ca.pem&above=7";
        let (Address::Postgres(address), options) = Address::parse(text).unwrap() else { panic!() };
        assert_eq!(address.url, "postgresql://me:pw@h:5433/db?sslmode=require");
        assert_eq!(address.table, "zmqlocker");
        assert_eq!(address.tls.authorities, Some(PathBuf::from("/ca.pem")));
        assert_eq!(options, [("above".to_owned(), "7".to_owned())]);
    }

    #[test]
    fn no_address_shows_its_password() {
        for text in ["etcd://me:secret@a/x", "postgresql://me:secret@a:5432/db"] {
            let address = Address::parse(text).unwrap().0;
            let shown = format!("{address} {address:?}");
            assert!(shown.contains("me:***@a") && !shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn a_wrong_address_is_told_how_it_reads() {
        for (text, part) in [
            ("etcd:/a", "must read etcd://HOST:PORT"),
            ("redis://a:6379", "not redis://"),
            ("file://relative", "from the root on"),
            ("etcd://", "as HOST:PORT"),
            ("etcd://a:0", "as HOST:PORT"),
            ("etcd://a:b:c!", "as HOST:PORT"),
            ("etcd://me@a", "must have a password"),
            ("etcd://a?cert=/c", "both cert and key"),
            ("etcd://a?tls=yes", "tls=on or tls=off"),
            ("etcd://a?tls=off&ca=/c", "turns it off"),
            ("etcd://a?ca=1&ca=2", "twice"),
            ("etcd://a/%zz", "hexadecimal"),
            ("postgresql://a/db?table=A-b", "a table of 1 to 63"),
        ] {
            assert!(problem(text).contains(part), "{text}: {}", problem(text));
        }
    }
}

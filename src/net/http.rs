//! As much of HTTP/1.1 (RFC 9112) as it takes to be scraped and looked at: one request without a
//! body a connection.

/// How many bytes a request may have.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How many headers.
const HEADERS_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Page,
    Status,
    Metrics,
    Health,
    Ready,
}

/// A request, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// There is more to come.
    NotYet,
    /// Something that there is; only how it looks, and not what it is, if it is `HEAD`.
    For { route: Route, is_head: bool },
    /// It cannot be answered.
    Refused(Refusal),
}

/// Why a request cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no request.
    Bad,
    /// There is no such thing.
    NotFound,
    /// Nothing can be changed here.
    Method,
    /// It is too long.
    TooLong,
    /// It is meant for another host: a page of somebody else's has a name that leads here.
    Misdirected,
}

impl Refusal {
    const fn status(self) -> &'static str {
        match self {
            Self::Bad => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::Method => "405 Method Not Allowed",
            Self::TooLong => "431 Request Header Fields Too Large",
            Self::Misdirected => "421 Misdirected Request",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Bad => "this is no request of HTTP/1.1\n",
            Self::NotFound => "there are /, /metrics, /healthz, /readyz and /api/status\n",
            Self::Method => "nothing can be changed here: use GET or HEAD\n",
            Self::TooLong => "a request has at most 16,384 bytes and 64 headers\n",
            Self::Misdirected => {
                "this port is for this host alone: ask for localhost, or serve `metrics` on \
                 another address\n"
            }
        }
    }
}

/// Reads what has come. With `is_local`, requests must be meant for this host by its local names.
pub(super) fn parse(bytes: &[u8], is_local: bool) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Asked::NotYet,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Asked::Refused(Refusal::TooLong);
        }
        Err(_) => return Asked::Refused(Refusal::Bad),
    }
    let host = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    let host = host.and_then(|header| str::from_utf8(header.value).ok());
    if is_local && host.is_some_and(|host| !is_local_name(host)) {
        return Asked::Refused(Refusal::Misdirected);
    }
    let is_head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Asked::Refused(Refusal::Method),
    };
    let path = request.path.unwrap_or_default();
    let route = match path.split('?').next().unwrap_or_default() {
        "/" => Route::Page,
        "/api/status" => Route::Status,
        "/metrics" => Route::Metrics,
        "/healthz" => Route::Health,
        "/readyz" => Route::Ready,
        _ => return Asked::Refused(Refusal::NotFound),
    };
    Asked::For { route, is_head }
}

/// Whether the value of a `Host` header means this very host, whatever the port.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_loopback = |ip: std::net::IpAddr| ip.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

/// An answer, for one who closes the connection behind it.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: &'static str,
    pub(super) content_type: &'static str,
    /// Headers beside those that all have, each with its line's end.
    pub(super) headers: &'a str,
    pub(super) body: &'a str,
}

impl<'a> Answer<'a> {
    /// An answer that is a text.
    pub(super) const fn text(status: &'static str, body: &'a str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", headers: "", body }
    }

    /// The answer to what cannot be answered.
    pub(super) const fn refusal(refusal: Refusal) -> Answer<'static> {
        let headers = match refusal {
            Refusal::Method => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        Answer { headers, ..Answer::text(refusal.status(), refusal.text()) }
    }

    /// The bytes; without what it is about, if it is for a `HEAD`.
    pub(super) fn bytes(&self, is_head: bool) -> Vec<u8> {
        let Self { status, content_type, headers, body } = self;
        let length = body.len();
        let mut text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
             Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n\
             {headers}\r\n"
        );
        if !is_head {
            text += body;
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Asked {
        parse(text.as_bytes(), false)
    }

    #[test]
    fn what_there_is_can_be_asked_for() {
        for (path, route) in [
            ("/", Route::Page),
            ("/?dark", Route::Page),
            ("/api/status", Route::Status),
            ("/metrics", Route::Metrics),
            ("/healthz", Route::Health),
            ("/readyz", Route::Ready),
        ] {
            for (method, is_head) in [("GET", false), ("HEAD", true)] {
                let text = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                assert_eq!(asked(&text), Asked::For { route, is_head }, "{text}");
                let part = &text[..text.len() - 1];
                assert_eq!(asked(part), Asked::NotYet, "{part}");
            }
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let refused = |text: &str| match asked(text) {
            Asked::Refused(refusal) => refusal,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(refused("GET /x HTTP/1.1\r\n\r\n"), Refusal::NotFound);
        assert_eq!(refused("GET /metrics/ HTTP/1.1\r\n\r\n"), Refusal::NotFound);
        assert_eq!(refused("POST /metrics HTTP/1.1\r\n\r\n"), Refusal::Method);
        assert_eq!(refused("\u{1}\u{2}\r\n\r\n"), Refusal::Bad);
        let many = "A: b\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{many}\r\n")), Refusal::TooLong);
        let long = "a".repeat(HEAD_BYTES_MAX);
        assert_eq!(refused(&format!("GET /{long}")), Refusal::TooLong);
    }

    #[test]
    fn a_port_of_this_host_is_not_to_be_reached_by_names_of_others() {
        for (host, is_local) in [
            ("localhost", true),
            ("LOCALHOST:9464", true),
            ("127.0.0.1:9464", true),
            ("[::1]:9464", true),
            ("evil.example", false),
            ("evil.example:9464", false),
            ("localhost.evil.example", false),
            ("10.0.0.7", false),
            ("", false),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let is_answered = matches!(parse(text.as_bytes(), true), Asked::For { .. });
            assert_eq!(is_answered, is_local, "{host}");
        }
        assert!(matches!(parse(b"GET / HTTP/1.0\r\n\r\n", true), Asked::For { .. }));
    }

    #[test]
    fn an_answer_has_its_length_and_a_head_has_no_body() {
        let answer = Answer::text("200 OK", "ok\n");
        let text = String::from_utf8(answer.bytes(false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain"));
        assert!(text.contains("Content-Length: 3\r\n") && text.ends_with("\r\n\r\nok\n"));
        assert!(String::from_utf8(answer.bytes(true)).unwrap().ends_with("\r\n\r\n"));
    }
}

//! The page for people: one file, and nothing from anywhere else.

use std::hash::{BuildHasher, RandomState};

use crate::net::clock::BootClock;
use crate::net::http::Answer;
use crate::time::Clock;

const PAGE: &str = include_str!("page.html");

/// What stands in the page for the word that marks its script and its styles as ours.
const NONCE: &str = "NONCE";

/// The page, whose script and styles a browser knows by a word that nobody can foretell.
pub(super) fn page(is_head: bool) -> Vec<u8> {
    let word = || format!("{:016x}", RandomState::new().hash_one(BootClock.now()));
    let nonce = word() + &word();
    let headers = format!(
        "Content-Security-Policy: default-src 'none'; script-src 'nonce-{nonce}'; style-src \
         'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'\r\nX-Frame-Options: DENY\r\n"
    );
    let body = &PAGE.replace(NONCE, &nonce);
    let content_type = "text/html; charset=utf-8";
    Answer { status: "200 OK", content_type, headers: &headers, body }.bytes(is_head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_a_word_of_its_own_and_says_it_wherever_it_has_to() {
        let [one, two] = [(); 2].map(|()| String::from_utf8(page(false)).unwrap());
        assert_ne!(one, two);
        assert!(!one.contains(NONCE) && PAGE.matches(NONCE).count() == 2);
        let nonce = one.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(one.matches(nonce).count(), 4);
    }

    #[test]
    fn the_page_is_self_contained() {
        for outside in ["http://", "https://", "//cdn", "@import", "src=\"/", "href=\"/", "url("] {
            let allowed = PAGE.matches("http://www.w3.org/2000/svg").count();
            let found = PAGE.matches(outside).count();
            let found = if outside == "http://" { found - allowed } else { found };
            assert_eq!(found, 0, "{outside}");
        }
        for dangerous in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!PAGE.contains(dangerous), "{dangerous}");
        }
    }
}

//! What Cache-Control says, of requests and answers. Pure. Source: RFC 9111 §5.2, RFC 5861.
//!
//! What can't be read counts as the stricter of what it could mean: a lifetime that is none is 0, `private="set-cookie"` is `private`.

use http::{HeaderMap, header};

/// "If a cache receives a delta-seconds value … greater than the greatest integer it can represent …, the cache MUST consider the value to be
/// 2147483648" (§1.2.2).
const SECONDS_MAX: u64 = 2_147_483_648;

/// Directives of a request or an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) private: bool,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    pub(crate) must_understand: bool,
    pub(crate) no_transform: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<u64>,
    pub(crate) s_maxage: Option<u64>,
    /// Without a value: however stale it is.
    pub(crate) max_stale: Option<u64>,
    pub(crate) min_fresh: Option<u64>,
    pub(crate) stale_while_revalidate: Option<u64>,
    pub(crate) stale_if_error: Option<u64>,
}

impl Control {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        let mut is_there = false;
        for written in headers.get_all(header::CACHE_CONTROL) {
            is_there = true;
            // What is no text may have said anything.
            match written.to_str() {
                Ok(text) => directives(text).for_each(|(name, value)| control.read(&name, value)),
                Err(_) => control.no_store = true,
            }
        }
        // "treat Pragma: no-cache as if Cache-Control: no-cache were there" where that is absent (RFC 7234 §5.4).
        if !is_there && headers.get(header::PRAGMA).is_some_and(|p| p.as_bytes().eq_ignore_ascii_case(b"no-cache")) {
            control.no_cache = true;
        }
        control
    }

    fn read(&mut self, name: &str, value: Option<&str>) {
        let seconds = || value.map_or(0, seconds);
        // "either the first occurrence should be used or the response should be considered stale" (§4.2.1): the shorter one.
        let shorter = |known: Option<u64>| Some(known.map_or_else(seconds, |known| known.min(seconds())));
        match name {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "no-transform" => self.no_transform = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => self.max_age = shorter(self.max_age),
            "s-maxage" => self.s_maxage = shorter(self.s_maxage),
            "max-stale" if value.is_none() => self.max_stale = Some(SECONDS_MAX),
            "max-stale" => self.max_stale = shorter(self.max_stale),
            "min-fresh" => self.min_fresh = Some(self.min_fresh.map_or_else(seconds, |known| known.max(seconds()))),
            "stale-while-revalidate" => self.stale_while_revalidate = shorter(self.stale_while_revalidate),
            "stale-if-error" => self.stale_if_error = shorter(self.stale_if_error),
            _ => {}
        }
    }
}

/// Seconds as a directive says them: "Although the quoted-string form … recipients ought to accept both" (§5.2).
fn seconds(written: &str) -> u64 {
    let digits = written.trim().trim_matches('"');
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return 0;
    }
    digits.parse().map_or(SECONDS_MAX, |seconds: u64| seconds.min(SECONDS_MAX))
}

/// Names in lower case and their values; a comma between quotes parts nothing.
fn directives(text: &str) -> impl Iterator<Item = (String, Option<&str>)> {
    let mut quoted = false;
    let mut escaped = false;
    let parts = text.split(move |c: char| {
        let was_escaped = std::mem::take(&mut escaped);
        match c {
            '\\' if quoted && !was_escaped => escaped = true,
            '"' if !was_escaped => quoted = !quoted,
            _ => {}
        }
        c == ',' && !quoted
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).map(|part| match part.split_once('=') {
        Some((name, value)) => (name.trim().to_ascii_lowercase(), Some(value)),
        None => (part.to_ascii_lowercase(), None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_and_doubt_is_strict() {
        let none = Control::default;
        for (name, written, expected) in [
            ("nothing", &[][..], none()),
            ("several lines", &["max-age=5", "no-cache"], Control { max_age: Some(5), no_cache: true, ..none() }),
            ("any case (§5.2)", &["Max-Age=5, S-MAXAGE=7"], Control { max_age: Some(5), s_maxage: Some(7), ..none() }),
            ("quoted (§5.2)", &["max-age=\"5\""], Control { max_age: Some(5), ..none() }),
            ("twice (§4.2.1)", &["max-age=9, max-age=5"], Control { max_age: Some(5), ..none() }),
            ("no number (§4.2.1)", &["max-age=5s"], Control { max_age: Some(0), ..none() }),
            ("below nothing", &["max-age=-1"], Control { max_age: Some(0), ..none() }),
            ("no value", &["max-age"], Control { max_age: Some(0), ..none() }),
            ("too large (§1.2.2)", &["max-age=99999999999999999999"], Control { max_age: Some(SECONDS_MAX), ..none() }),
            (
                "of single fields (§5.2.2.4, §5.2.2.7)",
                &["no-cache=\"a, no-store\", private=\"b\""],
                Control { no_cache: true, private: true, ..none() },
            ),
            ("however stale (§5.2.1.2)", &["max-stale"], Control { max_stale: Some(SECONDS_MAX), ..none() }),
            ("so stale", &["max-stale=3"], Control { max_stale: Some(3), ..none() }),
            ("unknown (§5.2.3)", &["immutable, x=\"a,b\", public"], Control { public: true, ..none() }),
            (
                "RFC 5861",
                &["stale-while-revalidate=30, stale-if-error=60"],
                Control { stale_while_revalidate: Some(30), stale_if_error: Some(60), ..none() },
            ),
        ] {
            let mut headers = HeaderMap::new();
            for value in written {
                headers.append("cache-control", value.parse().unwrap());
            }
            assert_eq!(Control::of(&headers), expected, "{name}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("pragma", "No-Cache".parse().unwrap());
        assert!(Control::of(&headers).no_cache);
        headers.insert("cache-control", "max-age=5".parse().unwrap());
        assert!(!Control::of(&headers).no_cache);
    }
}

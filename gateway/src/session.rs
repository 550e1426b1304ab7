//! Sessions: requests that show the same token go to the same endpoint while that is well.
//!
//! In: a rule's `sessionPersistence`, the head of a request, who answered it. Out: the endpoint's number, and the token for the client. A token is
//! `<endpoint>` or `<endpoint>.<begin>`, hexadecimal: the endpoint's number and, where sessions end, the second in which it began. It is
//! no secret and gives no right: a client that makes one up chooses among endpoints that it is balanced over anyway. Every replica
//! reads every other's. Pure. Source: Gateway API, GEP-1619.

use std::time::Duration;

use atoll_api::duration;
use atoll_api::kinds::gateway::SessionPersistence;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::balance::hash::hash;
use crate::http::cookie;
use crate::table::{Match, PathMatch};

/// Browsers keep a cookie no longer (RFC 6265bis §5.5).
const LIFE_MAX: Duration = Duration::from_secs(400 * 86_400);

/// How a rule keeps sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    carrier: Carrier,
    /// It ends so long after it began.
    life: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Carrier {
    Header(HeaderName),
    Cookie { name: String, path: String, permanent: bool },
}

/// What a request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The number of the endpoint.
    pub(crate) endpoint: u64,
}

impl Session {
    /// As a rule has it. `rule`: what no other rule is called.
    ///
    /// # Errors
    /// What can't be carried out, for the route's status.
    pub(crate) fn parse(
        written: &SessionPersistence,
        rule: &str,
        matches: &[impl AsRef<Match>],
    ) -> Result<Self, String> {
        let life = written.absolute_timeout.as_deref().map(duration::parse).transpose();
        let life = life.map_err(|bad| format!("sessionPersistence.absoluteTimeout: {bad}"))?.filter(|t| !t.is_zero());
        let own = || format!("atoll-{:016x}", hash(rule.as_bytes()));
        let name = written.session_name.clone().filter(|n| !n.is_empty()).unwrap_or_else(own);
        let bad =
            || format!("sessionPersistence.sessionName `{name}` holds more than letters, digits and !#$%&'*+-.^_`|~");
        let lifetime = written.cookie_config.as_ref().and_then(|c| c.lifetime_type.as_deref());
        // A cookie's name is a token (RFC 6265 §4.1.1), as a header's is.
        let token: HeaderName = name.parse().map_err(|_| bad())?;
        let carrier = match (written.persistence_type.as_deref().unwrap_or("Cookie"), lifetime) {
            ("Header", None) => Carrier::Header(token),
            ("Header", Some(_)) => return Err("sessionPersistence: cookieConfig is for cookies".to_owned()),
            ("Cookie", None | Some("Session")) => Carrier::Cookie { name, path: path(matches), permanent: false },
            ("Cookie", Some("Permanent")) if life.is_none() => {
                return Err("sessionPersistence: a permanent cookie needs absoluteTimeout".to_owned());
            }
            ("Cookie", Some("Permanent")) => Carrier::Cookie { name, path: path(matches), permanent: true },
            (other, _) if other != "Cookie" => {
                return Err(format!("sessionPersistence.type `{other}`: Cookie or Header"));
            }
            (_, other) => {
                return Err(format!(
                    "sessionPersistence lifetimeType `{}`: Session or Permanent",
                    other.unwrap_or_default()
                ));
            }
        };
        Ok(Self { carrier, life })
    }

    /// What a request shows; nothing where it shows none, none of ours, or one that ended. `now`: seconds since 1970.
    pub(crate) fn shown(&self, headers: &HeaderMap, now: u64) -> Option<Shown> {
        let token = match &self.carrier {
            Carrier::Header(name) => headers.get(name)?.to_str().ok()?,
            Carrier::Cookie { name, .. } => cookie::find(headers, name)?,
        };
        let (endpoint, begin) =
            token.split_once('.').map_or((token, None), |(endpoint, begin)| (endpoint, Some(begin)));
        let endpoint = u64::from_str_radix(endpoint, 16).ok()?;
        if let Some(life) = self.life {
            let begin = u64::from_str_radix(begin?, 16).ok()?;
            // One that began in the future is not ours, or a clock of ours jumped: it does not live for ever.
            let age = now.checked_sub(begin)?;
            (age < life.as_secs().max(1)).then_some(())?;
        }
        Some(Shown { endpoint })
    }

    /// Tells the client of the session that begins with this answer.
    pub(crate) fn begin(&self, headers: &mut HeaderMap, endpoint: u64, secure: bool, now: u64) {
        let begin = if self.life.is_some() { format!(".{now:x}") } else { String::new() };
        let token = format!("{endpoint:016x}{begin}");
        let (header, value) = match &self.carrier {
            Carrier::Header(name) => (name.clone(), token),
            Carrier::Cookie { name, path, permanent } => {
                let life = self.life.filter(|_| *permanent).map(|t| t.min(LIFE_MAX).as_secs());
                let life = life.map(|s| format!("; Max-Age={s}")).unwrap_or_default();
                let secure = if secure { "; Secure" } else { "" };
                (header::SET_COOKIE, format!("{name}={token}; Path={path}{life}; HttpOnly{secure}"))
            }
        };
        // Both consist of what a header may hold: `parse` saw to it.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.append(header, value);
        }
    }
}

/// The path of the rule's only match, where it is one that a cookie can have; else every path.
fn path(matches: &[impl AsRef<Match>]) -> String {
    let whole = || "/".to_owned();
    let [one] = matches else { return whole() };
    let path = match &one.as_ref().path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Begins(path) => path,
        PathMatch::Regex(_) | PathMatch::Method(_) | PathMatch::Outline { .. } => return whole(),
    };
    let fits = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    if fits { path.clone() } else { whole() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use atoll_api::kinds::gateway::{CookieConfig, HTTPPathMatch, HTTPRouteMatch};

    use super::*;

    fn matches(kind: &str, path: &str) -> Vec<Arc<Match>> {
        let path = HTTPPathMatch { match_type: Some(kind.to_owned()), value: Some(path.to_owned()) };
        vec![Arc::new(Match::compile(&HTTPRouteMatch { path: Some(path), ..HTTPRouteMatch::default() }).unwrap())]
    }

    fn written(kind: &str, name: Option<&str>, timeout: Option<&str>, lifetime: Option<&str>) -> SessionPersistence {
        SessionPersistence {
            session_name: name.map(str::to_owned),
            absolute_timeout: timeout.map(str::to_owned),
            persistence_type: Some(kind.to_owned()).filter(|k| !k.is_empty()),
            cookie_config: lifetime.map(|l| CookieConfig { lifetime_type: Some(l.to_owned()) }),
        }
    }

    #[test]
    fn what_a_client_is_told_is_what_it_shows() {
        let (now, id) = (1_000_000, 0xabc);
        let cases = [
            ("", Some("sid"), None, None, "set-cookie", "sid=0000000000000abc; Path=/cart; HttpOnly; Secure"),
            (
                "Cookie",
                Some("sid"),
                Some("1h"),
                None,
                "set-cookie",
                "sid=0000000000000abc.f4240; Path=/cart; HttpOnly; Secure",
            ),
            (
                "Cookie",
                Some("sid"),
                Some("1h"),
                Some("Permanent"),
                "set-cookie",
                "sid=0000000000000abc.f4240; Path=/cart; Max-Age=3600; HttpOnly; Secure",
            ),
            ("Header", Some("X-Session"), Some("1h"), None, "x-session", "0000000000000abc.f4240"),
        ];
        for (kind, name, timeout, lifetime, header, value) in cases {
            let session =
                Session::parse(&written(kind, name, timeout, lifetime), "r", &matches("PathPrefix", "/cart")).unwrap();
            let mut told = HeaderMap::new();
            session.begin(&mut told, id, true, now);
            assert_eq!(told[header], value);
            let mut shows = HeaderMap::new();
            match told.get(header::SET_COOKIE).and_then(|c| c.to_str().ok()?.split(';').next()) {
                Some(pair) => drop(shows.insert(header::COOKIE, format!("other=1; {pair}").parse().unwrap())),
                None => shows = told.clone(),
            }
            assert_eq!(session.shown(&shows, now + 3599), Some(Shown { endpoint: id }), "{value}");
            let later = session.shown(&shows, now + 3600);
            assert_eq!(later.is_none(), timeout.is_some(), "{value}: {later:?}");
        }
    }

    #[test]
    fn a_token_that_is_none_of_ours_counts_as_none() {
        let session =
            Session::parse(&written("Header", Some("s"), Some("1h"), None), "r", &matches("Exact", "/")).unwrap();
        for token in ["", ".", "zz.1", "abc", "abc.", "abc.ffffffffffffffffff", "11112222333344445.f4240", "abc.f4241"]
        {
            let shows =
                HeaderMap::from_iter([("s".parse::<HeaderName>().unwrap(), token.parse::<HeaderValue>().unwrap())]);
            assert_eq!(session.shown(&shows, 1_000_000), None, "`{token}`");
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_the_field() {
        let one = matches("RegularExpression", "/a+");
        for (written, says) in [
            (written("Header", None, None, Some("Session")), "cookieConfig"),
            (written("Cookie", None, None, Some("Permanent")), "absoluteTimeout"),
            (written("Cookie", None, Some("1 h"), None), "absoluteTimeout"),
            (written("Cookie", Some("a b"), None, None), "`a b`"),
            (written("Cookie", None, None, Some("Long")), "`Long`"),
            (written("Query", None, None, None), "`Query`"),
        ] {
            let why = Session::parse(&written, "r", &one).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        let of = |rule| Session::parse(&written("", None, None, None), rule, &one).unwrap();
        assert_ne!(of("HTTPRoute a/b 0"), of("HTTPRoute a/b 1"), "each rule has a name of its own");
        assert!(
            matches!(&of("r").carrier, Carrier::Cookie { path, .. } if path == "/"),
            "no cookie has an expression as its path"
        );
    }
}

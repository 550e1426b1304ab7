//! Where in a request a key or a token may stand: headers, parameters of the query, cookies. Pure.

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri, header};

use crate::filter::header_name;

/// The places, in the order in which they are looked at.
#[derive(Debug)]
pub(crate) struct Places {
    headers: Vec<HeaderName>,
    queries: Vec<String>,
    cookies: Vec<String>,
}

impl Places {
    /// `default`: the header, where nothing else is named.
    ///
    /// # Errors
    /// A name of a header is none.
    pub(crate) fn new(
        headers: &[String],
        queries: &[String],
        cookies: &[String],
        default: &str,
    ) -> Result<Self, String> {
        let name = |text: &str| header_name("fromHeaders", text);
        let mut headers = headers.iter().map(|h| name(h)).collect::<Result<Vec<_>, _>>()?;
        if headers.is_empty() && queries.is_empty() && cookies.is_empty() {
            headers.push(name(default)?);
        }
        Ok(Self { headers, queries: queries.to_vec(), cookies: cookies.to_vec() })
    }

    /// What stands at the first of them.
    pub(crate) fn find<'a>(&self, head: &'a Parts) -> Option<&'a str> {
        let in_headers = self.headers.iter().find_map(|name| head.headers.get(name)?.to_str().ok());
        let query = head.uri.query().unwrap_or_default();
        let in_query = || self.queries.iter().find_map(|name| crate::http::query::find(query, name));
        let in_cookies = || self.cookies.iter().find_map(|name| crate::http::cookie::find(&head.headers, name));
        in_headers.or_else(in_query).or_else(in_cookies)
    }

    /// Takes away what stands at any of them.
    pub(crate) fn clear(&self, head: &mut Parts) {
        self.headers.iter().for_each(|name| drop(head.headers.remove(name)));
        if let Some(query) = head.uri.query().filter(|_| !self.queries.is_empty()) {
            let is_one =
                |pair: &&str| !self.queries.iter().any(|n| pair.split_once('=').map_or(*pair, |(name, _)| name) == n);
            let left = query.split('&').filter(is_one).collect::<Vec<_>>().join("&");
            let mark = if left.is_empty() { "" } else { "?" };
            if let Ok(target) = format!("{}{mark}{left}", head.uri.path()).parse::<PathAndQuery>() {
                head.uri = Uri::from(target);
            }
        }
        for name in &self.cookies {
            drop_cookie(head, name);
        }
    }
}

/// Takes a cookie away; the others stay.
pub(crate) fn drop_cookie(head: &mut Parts, name: &str) {
    let left = head.headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
    let left = left.map(str::trim).filter(|pair| pair.split_once('=').is_none_or(|(n, _)| n != name));
    let left = left.collect::<Vec<_>>().join("; ");
    head.headers.remove(header::COOKIE);
    if let Some(left) = HeaderValue::from_str(&left).ok().filter(|left| !left.is_empty()) {
        head.headers.insert(header::COOKIE, left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_and_taken_away_where_it_may_stand() {
        let list = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let places =
            |h: &[&str], q: &[&str], c: &[&str]| Places::new(&list(h), &list(q), &list(c), "x-api-key").unwrap();
        for (name, places, found, uri, cookie) in [
            ("by default", places(&[], &[], &[]), Some("h"), "/p?k=q&l=1", "k=c; l=2"),
            ("a query", places(&[], &["k"], &[]), Some("q"), "/p?l=1", "k=c; l=2"),
            ("a cookie", places(&[], &[], &["k"]), Some("c"), "/p?k=q&l=1", "l=2"),
            ("the first that is there", places(&["x-none"], &["none"], &["k"]), Some("c"), "/p?k=q&l=1", "l=2"),
            ("nowhere", places(&["x-none"], &[], &[]), None, "/p?k=q&l=1", "k=c; l=2"),
        ] {
            let request =
                http::Request::builder().uri("/p?k=q&l=1").header("x-api-key", "h").header("cookie", "k=c; l=2");
            let mut head = request.body(()).unwrap().into_parts().0;
            assert_eq!(places.find(&head), found, "{name}");
            places.clear(&mut head);
            assert_eq!(
                (head.uri.to_string().as_str(), head.headers["cookie"].to_str().unwrap()),
                (uri, cookie),
                "{name}"
            );
        }
    }
}

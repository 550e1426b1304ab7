//! Where two sides answer the same requests otherwise. Pure.
//!
//! A request that was sent once, or answered alike each time, is compared as it is: status, Location, attributes of cookies, headers, body.
//! One that was sent often and answered in several ways is compared by what came of it: how often it was refused (limits, as counts), and
//! how the others were divided (weights, as distributions). Pages that a proxy writes itself are not bodies of anybody's.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::record::Record;

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Why there is none.
    pub failed: Option<String>,
    /// Its status.
    pub status: u16,
    /// Its headers; names in small letters.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Of which request.
    pub request: String,
    /// In what: status, location, cookie, header, body, limit, weight.
    pub what: String,
    /// What the old side said.
    pub old: String,
    /// What the new one says.
    pub new: String,
}

/// Headers that say something of the server or the connection, of the time, or of this one answer.
const OWN: &[&str] = &[
    "date",
    "server",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "via",
    "x-request-id",
    "alt-svc",
    "set-cookie",
    "location",
    "accept-ranges",
    "last-modified",
    "etag",
    "retry-after",
];
/// By which pages of nginx itself are known.
const PAGE: &str = "<hr><center>nginx";
/// So much of a body is shown where answers are told apart.
const EXCERPT_CHARS: usize = 60;
/// Of so many standard deviations two shares may be apart.
const APART: f64 = 4.0;

/// What is compared of an answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    /// There was no answer: the status says why.
    failed: bool,
    status: String,
    location: String,
    cookies: BTreeSet<String>,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Compares what both sides answered; `ports`: where they were asked, which Locations may name.
pub fn compare(pairs: &[(Record, Answer, Answer)], old_port: u16, new_port: u16) -> Vec<Difference> {
    let mut groups: BTreeMap<&Record, Vec<(Told, Told)>> = BTreeMap::new();
    for (record, old, new) in pairs {
        let page = is_page(old);
        groups.entry(record).or_default().push((told(old, old_port, page), told(new, new_port, page)));
    }
    groups.into_iter().flat_map(|(record, answers)| group(record, &answers)).collect()
}

fn group(record: &Record, answers: &[(Told, Told)]) -> Vec<Difference> {
    let named = format!("{} {}{}", record.method, record.host, record.target);
    let kinds = |side: fn(&(Told, Told)) -> &Told| answers.iter().map(side).collect::<BTreeSet<_>>();
    let (old, new) = (kinds(|pair| &pair.0), kinds(|pair| &pair.1));
    if old.len() == 1 && new.len() == 1 {
        return single(&named, &answers[0].0, &answers[0].1);
    }
    let mut found = Vec::new();
    let refused = |told: &Told| matches!(told.status.as_str(), "429" | "503");
    let count = |side: fn(&(Told, Told)) -> &Told| answers.iter().filter(|pair| refused(side(pair))).count();
    let (before, now) = (count(|pair| &pair.0), count(|pair| &pair.1));
    // A limit by time lets through what falls due while requests are sent: one more or less.
    if before.abs_diff(now) > 1 + answers.len() / 50 {
        found.push(difference(&named, "limit", format!("{before} refused"), format!("{now} refused")));
    }
    found.extend(weights(&named, answers, refused));
    found
}

/// Whether those that were served are divided alike.
fn weights(named: &str, answers: &[(Told, Told)], refused: impl Fn(&Told) -> bool) -> Vec<Difference> {
    let mut shares: BTreeMap<&Told, (usize, usize)> = BTreeMap::new();
    for (old, new) in answers {
        if !refused(old) {
            shares.entry(old).or_default().0 += 1;
        }
        if !refused(new) {
            shares.entry(new).or_default().1 += 1;
        }
    }
    let all = shares.values().fold((0, 0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
    let far = shares.iter().filter_map(|(told, (old, new))| {
        if all.0 == 0 || all.1 == 0 {
            return None;
        }
        let (a, b) = (*old as f64 / all.0 as f64, *new as f64 / all.1 as f64);
        let both = (*old + *new) as f64 / (all.0 + all.1) as f64;
        let deviation = (both * (1.0 - both) * (1.0 / all.0 as f64 + 1.0 / all.1 as f64)).sqrt();
        let apart = (a - b).abs() > APART * deviation + 1.0 / all.0.min(all.1) as f64;
        let of = |share: f64| format!("{share:.3} of {}", excerpt(told));
        apart.then(|| difference(named, "weight", of(a), of(b)))
    });
    far.collect()
}

/// By what people know an answer: its status, and how its body begins.
fn excerpt(told: &Told) -> String {
    let line = told.body.lines().next().unwrap_or_default();
    let begins: String = line.chars().take(EXCERPT_CHARS).collect();
    format!("{} {begins}", told.status).trim_end().to_owned()
}

fn single(named: &str, old: &Told, new: &Told) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut put = |what: &str, old: String, new: String| {
        if old != new {
            found.push(difference(named, what, old, new));
        }
    };
    put("status", old.status.clone(), new.status.clone());
    if old.failed || new.failed {
        // Of no answer there is nothing else to compare.
        return found;
    }
    put("location", old.location.clone(), new.location.clone());
    let list = |cookies: &BTreeSet<String>| cookies.iter().cloned().collect::<Vec<_>>().join(", ");
    put("cookie", list(&old.cookies), list(&new.cookies));
    for name in old.headers.keys().chain(new.headers.keys()).collect::<BTreeSet<_>>() {
        let of = |told: &Told| told.headers.get(name).cloned().unwrap_or_else(|| "absent".to_owned());
        put(&format!("header {name}"), of(old), of(new));
    }
    put("body", old.body.clone(), new.body.clone());
    found
}

fn difference(request: &str, what: &str, old: String, new: String) -> Difference {
    Difference { request: request.to_owned(), what: what.to_owned(), old, new }
}

/// Whether it is a page that nginx wrote itself.
fn is_page(answer: &Answer) -> bool {
    answer.status >= 300 && String::from_utf8_lossy(&answer.body).contains(PAGE)
}

/// `page`: what is in the body, and of what type, is the proxy's own affair.
fn told(answer: &Answer, port: u16, page: bool) -> Told {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in
        answer.headers.iter().filter(|(name, _)| !(OWN.contains(&name.as_str()) || page && name == "content-type"))
    {
        let all = headers.entry(name.clone()).or_default();
        if !all.is_empty() {
            all.push_str(", ");
        }
        all.push_str(value);
    }
    let first = |wanted: &str| answer.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let cookies = answer.headers.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| cookie(value));
    Told {
        failed: answer.failed.is_some(),
        status: answer.failed.clone().unwrap_or_else(|| answer.status.to_string()),
        // A side that is asked at a port of its own may name it.
        location: first("location").unwrap_or_default().replace(&format!(":{port}/"), "/"),
        cookies: cookies.collect(),
        headers,
        body: if page { String::new() } else { String::from_utf8_lossy(&answer.body).into_owned() },
    }
}

/// The name and attributes of a cookie, without its value and the moment it ends.
fn cookie(value: &str) -> String {
    let mut parts = value.split(';').map(str::trim);
    let name = parts.next().and_then(|pair| pair.split_once('=')).map_or("", |(name, _)| name);
    let mut attributes: Vec<String> =
        parts.map(str::to_ascii_lowercase).filter(|part| !part.starts_with("expires=")).collect();
    attributes.sort();
    format!("{name}; {}", attributes.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Answer { failed: None, status, headers, body: body.into() }
    }

    fn record() -> Record {
        Record { method: "GET".to_owned(), host: "a.test".to_owned(), target: "/".to_owned(), ..Record::default() }
    }

    #[test]
    fn one_answer_is_compared_as_it_is() {
        let page = "<html><hr><center>nginx</center></html>";
        for (old, new, expected) in [
            (answer(200, &[("x", "1"), ("date", "now")], "b"), answer(200, &[("x", "1")], "b"), &[][..]),
            (answer(200, &[], "b"), answer(404, &[], "b"), &["status"]),
            (answer(200, &[("x", "1")], "b"), answer(200, &[("y", "1")], "c"), &["header x", "header y", "body"]),
            (
                answer(302, &[("location", "http://a.test:80/x")], page),
                answer(302, &[("location", "http://a.test/x")], ""),
                &[],
            ),
            (answer(302, &[("location", "/x")], page), answer(302, &[("location", "/y")], ""), &["location"]),
            (
                answer(403, &[("content-type", "text/html")], page),
                answer(403, &[("content-type", "text/plain")], "no\n"),
                &[],
            ),
            (
                answer(200, &[("set-cookie", "s=1; Path=/; HttpOnly")], ""),
                answer(200, &[("set-cookie", "s=2; HttpOnly; path=/")], ""),
                &[],
            ),
            (
                answer(200, &[("set-cookie", "s=1; Path=/; Secure")], ""),
                answer(200, &[("set-cookie", "s=2; Path=/")], ""),
                &["cookie"],
            ),
        ] {
            let found = compare(&[(record(), old.clone(), new.clone())], 80, 81);
            assert_eq!(found.iter().map(|d| d.what.as_str()).collect::<Vec<_>>(), expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn weights_are_distributions_and_limits_counts() {
        let pairs = |old: &[(u16, &str, usize)], new: &[(u16, &str, usize)]| -> Vec<(Record, Answer, Answer)> {
            let all = |side: &[(u16, &str, usize)]| {
                side.iter().flat_map(|(status, body, n)| vec![answer(*status, &[], body); *n]).collect::<Vec<_>>()
            };
            all(old).into_iter().zip(all(new)).map(|(a, b)| (record(), a, b)).collect()
        };
        for (old, new, expected) in [
            (&[(200, "a", 160), (200, "b", 40)][..], &[(200, "a", 155), (200, "b", 45)][..], &[][..]),
            (&[(200, "a", 160), (200, "b", 40)], &[(200, "a", 100), (200, "b", 100)], &["weight", "weight"]),
            (&[(200, "a", 26), (503, "p", 14)], &[(200, "a", 27), (429, "q", 13)], &[]),
            (&[(200, "a", 26), (503, "p", 14)], &[(200, "a", 40)], &["limit"]),
        ] {
            let found = compare(&pairs(old, new), 80, 81);
            assert_eq!(found.iter().map(|d| d.what.as_str()).collect::<Vec<_>>(), expected, "{old:?} {new:?}");
            for far in found.iter().filter(|d| d.what == "weight") {
                let kind = |side: &str| side.split_once(" of ").map(|(_, kind)| kind.to_owned());
                assert!(kind(&far.old).is_some() && kind(&far.old) == kind(&far.new), "of the same: {far:?}");
            }
        }
    }

    #[test]
    fn of_a_side_that_is_gone_nothing_else_is_said() {
        let gone = Answer { failed: Some("connect: refused".to_owned()), ..Answer::default() };
        let found = compare(&[(record(), gone, answer(200, &[("x", "1")], "b"))], 80, 81);
        let told: Vec<_> = found.iter().map(|d| (d.what.as_str(), d.old.as_str(), d.new.as_str())).collect();
        assert_eq!(told, [("status", "connect: refused", "200")]);
    }
}

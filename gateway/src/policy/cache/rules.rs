//! What a shared cache may keep, how long it is fresh, and when it may be used. Pure: `now` is in seconds since 1970.
//!
//! Sources: RFC 9111, RFC 5861 (stale-while-revalidate, stale-if-error), RFC 9110 §13 (conditions). Stricter than they ask for: nothing is guessed fresh
//! (§4.2.2), an answer with Set-Cookie is never kept (§7.3), and what names single fields counts for all.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::control::Control;

/// Statuses whose answers are understood (§3): final ones that say all in themselves. 206 is not kept (§3.4), 304 is none to keep.
const UNDERSTOOD: &[u16] = &[200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 451, 501];
/// Statuses of errors that a stale answer may stand in for (RFC 5861 §4).
const ERRORS: &[u16] = &[500, 502, 503, 504];

/// Whether a shared cache may keep the answer to a GET. `authorized`: the request said who asks (§3.5).
///
/// # Errors
/// Why not.
pub(crate) fn may_store(
    asked: &Control,
    authorized: bool,
    status: StatusCode,
    headers: &HeaderMap,
    said: &Control,
) -> Result<(), &'static str> {
    let is_understood = UNDERSTOOD.contains(&status.as_u16());
    if !is_understood {
        return Err("status");
    }
    // "must-understand … the cache SHOULD ignore the no-store" where it understands the status (§5.2.2.3).
    if asked.no_store || said.no_store && !said.must_understand {
        return Err("no-store");
    }
    if said.private {
        return Err("private");
    }
    if authorized && !(said.public || said.s_maxage.is_some() || said.must_revalidate) {
        return Err("authorization");
    }
    if headers.contains_key(header::SET_COOKIE) {
        return Err("set-cookie");
    }
    // "A stored response with a Vary header field value containing a member "*" always fails to match" (§4.1).
    if listed(headers, &header::VARY).any(|name| name == "*") {
        return Err("vary");
    }
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err("part");
    }
    let is_dated = said.max_age.or(said.s_maxage).is_some() || headers.contains_key(header::EXPIRES);
    let is_checked = (said.no_cache || said.public) && validators(headers);
    if is_dated || is_checked { Ok(()) } else { Err("no-lifetime") }
}

/// For how many seconds an answer is fresh (§4.2.1), for a shared cache, `date` being when it was made.
pub(crate) fn lifetime(headers: &HeaderMap, said: &Control, date: i64) -> u64 {
    if let Some(seconds) = said.s_maxage.or(said.max_age) {
        return seconds;
    }
    // "MUST interpret invalid date formats, especially … "0", as representing a time in the past"; of two lines one is wrong (§5.3).
    let mut written = headers.get_all(header::EXPIRES).iter();
    match (written.next().and_then(time), written.next()) {
        (Some(expires), None) => u64::try_from(expires.saturating_sub(date)).unwrap_or(0),
        _ => 0,
    }
}

/// How old an answer was when it came (§4.2.3): asked for at `asked`, come at `came`.
pub(crate) fn initial_age(headers: &HeaderMap, date: i64, asked: i64, came: i64) -> u64 {
    let apparent = u64::try_from(came.saturating_sub(date)).unwrap_or(0);
    // "If the field contains multiple values, use the first one …; if it is not a non-negative integer, ignore it" (§5.1).
    let value = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.split(',').next()?.trim().parse().ok());
    let corrected: u64 = value.unwrap_or(0_u64).saturating_add(u64::try_from(came.saturating_sub(asked)).unwrap_or(0));
    apparent.max(corrected)
}

/// What may be done with an answer that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// It is given.
    Fresh,
    /// It is stale, and given all the same, since whoever asks takes that (§5.2.1.2).
    Stale,
    /// It is stale, given, and asked for anew meanwhile (RFC 5861 §3).
    Meanwhile,
    /// The backend is asked first. Whether because the request wants it, and whether the answer may stand in for an error of the backend.
    Ask { wanted: bool, if_error: bool },
}

/// What a request that says `asked` gets of an answer that said `said`, is fresh for `lifetime` and is `age` old.
pub(crate) fn judge(asked: &Control, said: &Control, lifetime: u64, age: u64) -> Use {
    // §4.2.4: "MUST NOT generate a stale response if it is prohibited by an explicit in-protocol directive (e.g., by a no-cache …, a
    // must-revalidate …, or an applicable s-maxage or proxy-revalidate …)".
    let never_stale = said.no_cache || said.must_revalidate || said.proxy_revalidate || said.s_maxage.is_some();
    let stale = age.saturating_sub(lifetime);
    let is_fresh = lifetime > age;
    let within = |bound: Option<u64>| bound.is_some_and(|bound| stale <= bound);
    let if_error = !never_stale && (within(said.stale_if_error) || within(asked.stale_if_error));
    if asked.no_cache {
        return Use::Ask { wanted: true, if_error: false };
    }
    if said.no_cache {
        return Use::Ask { wanted: false, if_error: false };
    }
    // §5.2.1.1 and §5.2.1.3: not older than that, and fresh for so long yet.
    if asked.max_age.is_some_and(|max| age > max.saturating_add(asked.max_stale.unwrap_or(0)))
        || asked.min_fresh.is_some_and(|min| lifetime.saturating_sub(age) < min)
    {
        return Use::Ask { wanted: true, if_error };
    }
    if is_fresh {
        Use::Fresh
    } else if !never_stale && within(asked.max_stale) {
        Use::Stale
    } else if !never_stale && within(said.stale_while_revalidate) {
        Use::Meanwhile
    } else {
        Use::Ask { wanted: false, if_error }
    }
}

/// Whether a stale answer may stand in for it.
pub(crate) fn is_error(status: StatusCode) -> bool {
    ERRORS.contains(&status.as_u16())
}

/// Whether the backend can be asked for what changed.
pub(crate) fn validators(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED)
}

/// Whether a 304 is about the answer that is kept (§4.3.4): its tag, where it has one, is the same but for its strength.
pub(crate) fn is_about(kept: &HeaderMap, news: &HeaderMap) -> bool {
    match (kept.get(header::ETAG), news.get(header::ETAG)) {
        (Some(kept), Some(new)) => opaque(kept.as_bytes()) == opaque(new.as_bytes()),
        (None, Some(_)) => false,
        _ => true,
    }
}

/// Puts what a 304 says into the headers that are kept (§3.2), but for what describes the body that is kept.
pub(crate) fn freshen(kept: &mut HeaderMap, news: &HeaderMap) {
    let stays = |name: &header::HeaderName| {
        [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_RANGE].contains(name)
    };
    for name in news.keys().filter(|name| !stays(name)) {
        kept.remove(name);
        for value in news.get_all(name) {
            kept.append(name, value.clone());
        }
    }
    if !news.contains_key(header::AGE) {
        kept.remove(header::AGE);
    }
}

/// Whether the client has that body already (RFC 9110 §13.1.2, §13.1.3; §4.3.2): it is answered 304.
pub(crate) fn is_known(asked: &HeaderMap, kept: &HeaderMap) -> bool {
    if asked.contains_key(header::IF_NONE_MATCH) {
        let tag = kept.get(header::ETAG).map(|tag| opaque(tag.as_bytes()));
        return listed(asked, &header::IF_NONE_MATCH)
            .any(|known| known == "*" || tag.is_some_and(|tag| tag == opaque(known.as_bytes())));
    }
    let since = asked.get(header::IF_MODIFIED_SINCE).and_then(time);
    let changed = kept.get(header::LAST_MODIFIED).and_then(time);
    matches!((since, changed), (Some(since), Some(changed)) if changed <= since)
}

/// Whether a range is meant of the body that is kept (RFC 9110 §13.1.5): the tag is strong and the same, or the date is.
pub(crate) fn range_holds(asked: &HeaderMap, kept: &HeaderMap) -> bool {
    let Some(condition) = asked.get(header::IF_RANGE) else { return true };
    if condition.as_bytes().starts_with(b"\"") {
        return kept.get(header::ETAG) == Some(condition);
    }
    kept.get(header::LAST_MODIFIED) == Some(condition)
}

/// What of a body of `length` is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// From, to and with.
    Of(usize, usize),
    /// All of it: several parts, or what is no range (RFC 9110 §14.2: "MAY ignore").
    All,
    /// Nothing that is there.
    None,
}

/// RFC 9110 §14.1.2.
pub(crate) fn part(written: &HeaderValue, length: usize) -> Part {
    let Some((first, last)) = written
        .to_str()
        .ok()
        .and_then(|text| text.trim().strip_prefix("bytes="))
        .filter(|set| !set.contains(','))
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Part::All;
    };
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<usize>().unwrap_or(usize::MAX));
    match (first.is_empty(), last.is_empty()) {
        (true, true) => Part::All,
        (true, false) => match number(last) {
            Some(0) => Part::None,
            Some(_) if length == 0 => Part::None,
            Some(n) => Part::Of(length - n.min(length), length - 1),
            None => Part::All,
        },
        (false, _) => match (number(first), if last.is_empty() { Some(usize::MAX) } else { number(last) }) {
            (Some(first), Some(last)) if first > last => Part::All,
            (Some(first), Some(_)) if first >= length => Part::None,
            (Some(first), Some(last)) => Part::Of(first, last.min(length - 1)),
            _ => Part::All,
        },
    }
}

/// A time as HTTP writes it, in any of its forms (RFC 9110 §5.6.7).
pub(crate) fn time(written: &HeaderValue) -> Option<i64> {
    let at = httpdate::parse_http_date(written.to_str().ok()?.trim()).ok()?;
    i64::try_from(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// The members of a list of headers of that name.
pub(crate) fn listed<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

/// A tag without its strength.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

//! The rules of RFC 9111 and 5861, each as a case that names its section.

use http::HeaderName;

use super::control::Control;
use super::rules::*;
use http::{HeaderMap, HeaderValue, StatusCode};

fn headers(all: &[(&str, &str)]) -> HeaderMap {
    all.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap())).collect()
}

fn control(written: &str) -> Control {
    Control::of(&headers(&[("cache-control", written)]))
}

#[test]
fn only_what_a_shared_cache_may_keep_is_kept() {
    let (yes, dated) = (Ok(()), "max-age=60");
    for (name, asked, authorized, status, said, more, expected) in [
        ("§3: a lifetime", "", false, 200, dated, &[][..], yes),
        ("§3: an s-maxage", "", false, 200, "s-maxage=60", &[], yes),
        ("§3: an Expires", "", false, 200, "", &[("expires", "Sun, 06 Nov 1994 08:49:37 GMT")], yes),
        (
            "§4.2.2: nothing is guessed",
            "",
            false,
            200,
            "",
            &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
            Err("no-lifetime"),
        ),
        ("§4.2.2: nor of what is public", "", false, 200, "public", &[], Err("no-lifetime")),
        ("§5.2.2.4: kept to be checked", "", false, 200, "no-cache", &[("etag", "\"1\"")], yes),
        ("§5.2.2.4: nothing to check by", "", false, 200, "no-cache", &[], Err("no-lifetime")),
        ("§5.2.2.5: no-store", "", false, 200, "no-store, max-age=60", &[], Err("no-store")),
        ("§5.2.1.5: no-store of a request", "no-store", false, 200, dated, &[], Err("no-store")),
        ("§5.2.2.3: understood", "", false, 200, "must-understand, no-store, max-age=60", &[], yes),
        ("§5.2.2.3: not understood", "", false, 299, "must-understand, no-store, max-age=60", &[], Err("status")),
        ("§5.2.2.7: private", "", false, 200, "private, max-age=60", &[], Err("private")),
        ("§5.2.2.7: private of a field", "", false, 200, "private=\"x-a\", max-age=60", &[], Err("private")),
        ("§3.5: who asks is known", "", true, 200, dated, &[], Err("authorization")),
        ("§3.5: public", "", true, 200, "public, max-age=60", &[], yes),
        ("§3.5: s-maxage", "", true, 200, "s-maxage=60", &[], yes),
        ("§3.5: must-revalidate", "", true, 200, "must-revalidate, max-age=60", &[], yes),
        ("§7.3: a cookie", "", false, 200, "public, max-age=60", &[("set-cookie", "a=b")], Err("set-cookie")),
        ("§4.1: Vary: *", "", false, 200, dated, &[("vary", "accept, *")], Err("vary")),
        ("§3.4: a part", "", false, 206, dated, &[], Err("status")),
        (
            "§3.4: a part that calls itself whole",
            "",
            false,
            200,
            dated,
            &[("content-range", "bytes 0-1/2")],
            Err("part"),
        ),
        ("§3: an error that is not understood", "", false, 500, dated, &[], Err("status")),
        ("§3: an error that says how long", "", false, 404, dated, &[], yes),
        ("§4.3.3: nothing new", "", false, 304, dated, &[], Err("status")),
    ] {
        let all = [more, &[("cache-control", said)][..]].concat();
        let found = may_store(
            &control(asked),
            authorized,
            StatusCode::from_u16(status).unwrap(),
            &headers(&all),
            &control(said),
        );
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_lifetime_is_what_was_said_for_shared_caches() {
    let at = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
    for (name, said, expires, expected) in [
        ("§4.2.1: s-maxage before max-age", "max-age=5, s-maxage=7", &[][..], 7),
        ("§5.3: max-age before Expires", "max-age=5", &["Sun, 06 Nov 1994 09:49:37 GMT"], 5),
        ("§4.2.1: Expires less Date", "", &["Sun, 06 Nov 1994 08:50:37 GMT"], 60),
        ("RFC 9110 §5.6.7: RFC 850's form", "", &["Sunday, 06-Nov-94 08:50:37 GMT"], 60),
        ("RFC 9110 §5.6.7: asctime's form", "", &["Sun Nov  6 08:50:37 1994"], 60),
        ("§5.3: over already", "", &["Sun, 06 Nov 1994 08:49:36 GMT"], 0),
        ("§5.3: 0 is in the past", "", &["0"], 0),
        ("§5.3: twice", "", &["Sun, 06 Nov 1994 08:50:37 GMT", "Sun, 06 Nov 1994 08:51:37 GMT"], 0),
        ("§4.2.2: nothing is guessed", "", &[], 0),
    ] {
        let all: Vec<(&str, &str)> = expires.iter().map(|e| ("expires", *e)).collect();
        assert_eq!(lifetime(&headers(&all), &control(said), at), expected, "{name}");
    }
}

#[test]
fn ages_add_up() {
    for (name, age, date, asked, came, expected) in [
        ("§4.2.3: from the backend at once", None, 100, 100, 100, 0),
        ("§4.2.3: it was under way", None, 100, 100, 103, 3),
        ("§4.2.3: from another cache", Some("30"), 100, 100, 103, 33),
        ("§4.2.3: made long ago", Some("30"), 40, 100, 103, 63),
        ("§4.2.3: a clock ahead of ours", None, 200, 100, 103, 3),
        ("§5.1: the first counts", Some("30, 99"), 100, 100, 100, 30),
        ("§5.1: no number", Some("old"), 100, 100, 100, 0),
        ("§5.1: below nothing", Some("-5"), 100, 100, 100, 0),
    ] {
        let all: Vec<(&str, &str)> = age.iter().map(|a| ("age", *a)).collect();
        assert_eq!(initial_age(&headers(&all), date, asked, came), expected, "{name}");
    }
}

#[test]
fn what_is_kept_is_given_only_where_both_sides_let_it() {
    let ask = |wanted, if_error| Use::Ask { wanted, if_error };
    for (name, asked, said, age, expected) in [
        ("§4.2: fresh", "", "max-age=60", 59, Use::Fresh),
        ("§4.2: \"freshness_lifetime > current_age\"", "", "max-age=60", 60, ask(false, false)),
        ("§5.2.2.4: no-cache", "", "no-cache, max-age=60", 1, ask(false, false)),
        ("§5.2.1.4: no-cache of a request", "no-cache", "max-age=60", 1, ask(true, false)),
        ("§5.2.1.1: max-age of a request", "max-age=5", "max-age=60", 6, ask(true, false)),
        ("§5.2.1.1: young enough", "max-age=5", "max-age=60", 5, Use::Fresh),
        ("§5.2.1.3: min-fresh", "min-fresh=10", "max-age=60", 51, ask(true, false)),
        ("§5.2.1.3: fresh for long enough", "min-fresh=10", "max-age=60", 50, Use::Fresh),
        ("§5.2.1.2: max-stale", "max-stale=10", "max-age=60", 70, Use::Stale),
        ("§5.2.1.2: too stale", "max-stale=10", "max-age=60", 71, ask(false, false)),
        ("§5.2.1.2: however stale", "max-stale", "max-age=60", 9999, Use::Stale),
        ("§5.2.2.2: must-revalidate", "max-stale", "max-age=60, must-revalidate", 61, ask(false, false)),
        ("§5.2.2.8: proxy-revalidate", "max-stale", "max-age=60, proxy-revalidate", 61, ask(false, false)),
        ("§5.2.2.10: s-maxage", "max-stale", "s-maxage=60", 61, ask(false, false)),
        ("RFC 5861 §3", "", "max-age=60, stale-while-revalidate=30", 90, Use::Meanwhile),
        ("RFC 5861 §3: over", "", "max-age=60, stale-while-revalidate=30", 91, ask(false, false)),
        ("RFC 5861 §3, §4.2.4", "", "max-age=60, must-revalidate, stale-while-revalidate=30", 61, ask(false, false)),
        ("RFC 5861 §4", "", "max-age=60, stale-if-error=30", 90, ask(false, true)),
        ("RFC 5861 §4: over", "", "max-age=60, stale-if-error=30", 91, ask(false, false)),
        ("RFC 5861 §4: of a request", "stale-if-error=30", "max-age=60", 90, ask(false, true)),
        ("RFC 5861 §4, §4.2.4", "", "max-age=60, must-revalidate, stale-if-error=30", 61, ask(false, false)),
    ] {
        let said = control(said);
        let lifetime = lifetime(&HeaderMap::new(), &said, 0);
        assert_eq!(judge(&control(asked), &said, lifetime, age), expected, "{name}");
    }
}

#[test]
fn clients_that_have_the_body_are_told_so() {
    let (old, new) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:38 GMT");
    for (name, asked, kept, expected) in [
        ("RFC 9110 §13.1.2", &[("if-none-match", "\"0\", \"1\"")][..], &[("etag", "\"1\"")][..], true),
        ("RFC 9110 §13.1.2: compared weakly", &[("if-none-match", "\"1\"")], &[("etag", "W/\"1\"")], true),
        ("RFC 9110 §13.1.2: another", &[("if-none-match", "\"2\"")], &[("etag", "\"1\"")], false),
        ("RFC 9110 §13.1.2: any", &[("if-none-match", "*")], &[], true),
        ("RFC 9110 §13.1.3", &[("if-modified-since", old)], &[("last-modified", old)], true),
        ("RFC 9110 §13.1.3: changed", &[("if-modified-since", old)], &[("last-modified", new)], false),
        ("RFC 9110 §13.1.3: no date", &[("if-modified-since", "yesterday")], &[("last-modified", old)], false),
        (
            "RFC 9110 §13.1.3: not beside If-None-Match",
            &[("if-none-match", "\"2\""), ("if-modified-since", new)],
            &[("etag", "\"1\""), ("last-modified", old)],
            false,
        ),
        ("nothing is asked", &[], &[("etag", "\"1\"")], false),
    ] {
        assert_eq!(is_known(&headers(asked), &headers(kept)), expected, "{name}");
    }
}

#[test]
fn a_304_freshens_what_it_is_about() {
    let mut kept =
        headers(&[("etag", "\"1\""), ("x-a", "old"), ("x-b", "stays"), ("age", "9"), ("content-length", "5")]);
    let news = headers(&[("etag", "\"1\""), ("x-a", "new"), ("content-length", "0"), ("cache-control", "max-age=9")]);
    assert!(is_about(&kept, &news), "§4.3.4");
    freshen(&mut kept, &news);
    let expected = headers(&[
        ("etag", "\"1\""),
        ("x-a", "new"),
        ("x-b", "stays"),
        ("content-length", "5"),
        ("cache-control", "max-age=9"),
    ]);
    assert_eq!(kept, expected, "§3.2");
    assert!(!is_about(&headers(&[("etag", "\"1\"")]), &headers(&[("etag", "\"2\"")])), "§4.3.4");
    assert!(is_about(&headers(&[("etag", "\"1\"")]), &headers(&[("etag", "W/\"1\"")])), "§4.3.4");
    assert!(is_about(&headers(&[("last-modified", "x")]), &HeaderMap::new()), "§4.3.4");
    assert!(!is_about(&HeaderMap::new(), &headers(&[("etag", "\"1\"")])), "§4.3.4");
}

#[test]
fn ranges_are_cut_of_what_is_kept() {
    for (name, written, length, expected) in [
        ("the first", "bytes=0-4", 10, Part::Of(0, 4)),
        ("from there", "bytes=5-", 10, Part::Of(5, 9)),
        ("the last", "bytes=-3", 10, Part::Of(7, 9)),
        ("more than there is", "bytes=5-99", 10, Part::Of(5, 9)),
        ("the last, more than there is", "bytes=-99", 10, Part::Of(0, 9)),
        ("beyond", "bytes=10-", 10, Part::None),
        ("of nothing", "bytes=-1", 0, Part::None),
        ("no last ones", "bytes=-0", 10, Part::None),
        ("several", "bytes=0-1,3-4", 10, Part::All),
        ("turned around", "bytes=5-4", 10, Part::All),
        ("other units", "lines=0-4", 10, Part::All),
        ("none", "bytes=-", 10, Part::All),
        ("no number", "bytes=a-b", 10, Part::All),
    ] {
        assert_eq!(part(&written.parse().unwrap(), length), expected, "RFC 9110 §14.1.2: {name}");
    }
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (asked, kept, holds) in [
        (&[][..], &[][..], true),
        (&[("if-range", "\"1\"")], &[("etag", "\"1\"")], true),
        (&[("if-range", "\"1\"")], &[("etag", "\"2\"")], false),
        (&[("if-range", "W/\"1\"")], &[("etag", "W/\"1\"")], false),
        (&[("if-range", date)], &[("last-modified", date)], true),
        (&[("if-range", date)], &[], false),
    ] {
        assert_eq!(range_holds(&headers(asked), &headers(kept)), holds, "RFC 9110 §13.1.5: {asked:?}");
    }
}

//! The filter `cache` on real requests: what is kept, given, checked, forgotten. Sections are of RFC 9111 where none other is named.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::client::Answer;
use crate::policy_auth::{Answered, plain, serve};
use crate::policy_bodies::world_to;
use crate::policy_filters::{ask, put};
use crate::world::World;

/// A backend that says how often it was asked for that path, and how long that holds.
#[derive(Clone, Default)]
struct Origin {
    asked: Arc<Mutex<HashMap<String, usize>>>,
    broken: Arc<AtomicBool>,
}

impl Origin {
    fn answer(&self, head: &http::request::Parts) -> Answered {
        let path = head.uri.path().to_owned();
        let count = {
            let mut all = self.asked.lock().unwrap();
            let count = all.entry(path.clone()).or_default();
            *count += 1;
            *count
        };
        let lasts = match path.as_str() {
            "/fresh" | "/slow" | "/who" => "max-age=60",
            "/private" | "/slow-private" => "private, max-age=60",
            "/public" => "public, max-age=60",
            "/meanwhile" => "max-age=0, stale-while-revalidate=60",
            "/error" => "max-age=0, stale-if-error=60",
            "/checked" | "/language" => "no-cache",
            _ => "no-store",
        };
        if self.broken.load(Ordering::Relaxed) {
            return plain(503, &[("cache-control", "no-store")], "broken");
        }
        if path == "/checked" && head.headers.contains_key("if-none-match") {
            return plain(304, &[("etag", "\"v\""), ("x-news", "yes")], "");
        }
        let mut said = vec![("cache-control", lasts), ("etag", "\"v\""), ("content-type", "text/plain")];
        if path == "/language" {
            said[0].1 = "max-age=60";
            said.push(("vary", "accept-language"));
        }
        plain(200, &said, &format!("{count} of {path}"))
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

async fn start(ip: &str) -> (World, Origin) {
    let origin = Origin::default();
    let answers = origin.clone();
    let world = world_to(serve(ip, move |head, _| answers.answer(head)).await).await;
    put(&world, json!([{"filter": "cache"}])).await;
    (world, origin)
}

fn said(answer: &Answer) -> (u16, &str, &str) {
    (answer.status, answer.body.as_str(), answer.header("cache-status"))
}

#[tokio::test]
async fn what_is_fresh_is_given_again_whole_in_part_and_as_its_head() {
    let (world, origin) = start("127.13.5.1").await;
    let first = ask(&world, "GET /fresh", &[], "").await;
    assert_eq!(said(&first), (200, "1 of /fresh", "Atoll; fwd=uri-miss; fwd-status=200; stored"), "RFC 9211 §2");
    let again = ask(&world, "GET /fresh", &[], "").await;
    assert_eq!((again.status, again.body.as_str()), (200, "1 of /fresh"), "§4");
    assert!(again.header("age").parse::<u64>().unwrap() < 30, "§5.1");
    assert!(again.header("cache-status").starts_with("Atoll; hit; ttl="), "RFC 9211 §2.1");
    assert_eq!(again.header("content-length"), "11");
    let head = ask(&world, "HEAD /fresh", &[], "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, "11", ""), "§4");
    let part = ask(&world, "GET /fresh", &[("range", "bytes=0-3")], "").await;
    assert_eq!(
        (part.status, part.body.as_str(), part.header("content-range")),
        (206, "1 of", "bytes 0-3/11"),
        "RFC 9110 §14"
    );
    let part = ask(&world, "GET /fresh", &[("range", "bytes=99-")], "").await;
    assert_eq!((part.status, part.header("content-range")), (416, "bytes */11"), "RFC 9110 §15.5.17");
    let known = ask(&world, "GET /fresh", &[("if-none-match", "\"v\"")], "").await;
    assert_eq!((known.status, known.body.as_str(), known.header("etag")), (304, "", "\"v\""), "§4.3.2");
    assert_eq!(origin.asked("/fresh"), 1, "nothing of that was asked for again");
    for (control, asked) in [("only-if-cached", 1), ("max-stale", 1), ("no-cache", 2), ("no-store, no-cache", 3)] {
        assert_eq!(ask(&world, "GET /fresh", &[("cache-control", control)], "").await.status, 200, "{control}");
        assert_eq!(origin.asked("/fresh"), asked, "§5.2.1: {control}");
    }
    let none = ask(&world, "GET /nowhere", &[("cache-control", "only-if-cached")], "").await;
    assert_eq!((none.status, origin.asked("/nowhere")), (504, 0), "§5.2.1.7");
    let passed = ask(&world, "GET /fresh", &[("if-match", "\"v\"")], "").await;
    assert_eq!(said(&passed).2, "Atoll; fwd=bypass", "§4.3.2");
}

#[tokio::test]
async fn what_is_somebodys_own_is_never_given_to_others() {
    let (world, origin) = start("127.13.5.2").await;
    for n in 1..=3 {
        let answer = ask(&world, "GET /private", &[], "").await;
        assert_eq!(said(&answer).2, "Atoll; fwd=uri-miss; fwd-status=200", "§5.2.2.7: {n}");
        ask(&world, "GET /who", &[("authorization", "Bearer x")], "").await;
    }
    assert_eq!((origin.asked("/private"), origin.asked("/who")), (3, 3), "§5.2.2.7, §3.5");
    for _ in 0..3 {
        ask(&world, "GET /public", &[("authorization", "Bearer x")], "").await;
    }
    assert_eq!(origin.asked("/public"), 1, "§3.5: public");
    for (language, body) in
        [("de", "1 of /language"), ("fr", "2 of /language"), ("de", "1 of /language"), ("fr", "2 of /language")]
    {
        let answer = ask(&world, "GET /language", &[("accept-language", language)], "").await;
        assert_eq!(answer.body, body, "§4.1: {language}");
    }
    // Whom a filter found is somebody, too, though the backend does not see it.
    world.apply(crate::world::secret("keys", &[("robot", "k-1")])).await;
    put(&world, json!([{"filter": "cache"}, {"filter": "apiKeys", "secretRef": {"name": "keys"}}])).await;
    let before = origin.asked("/who");
    for _ in 0..2 {
        assert_eq!(ask(&world, "GET /who", &[("x-api-key", "k-1")], "").await.status, 200);
    }
    assert_eq!(origin.asked("/who"), before + 2, "§3.5");
    assert_eq!(ask(&world, "GET /public", &[], "").await.status, 401, "nobody gets what is kept without a key");
}

#[tokio::test]
async fn what_is_old_is_checked_given_meanwhile_or_stands_in_for_an_error() {
    let (world, origin) = start("127.13.5.3").await;
    for (nth, expected) in [
        "Atoll; fwd=uri-miss; fwd-status=200; stored",
        "Atoll; fwd=stale; fwd-status=304; stored",
        "Atoll; fwd=stale; fwd-status=304; stored",
    ]
    .into_iter()
    .enumerate()
    {
        let answer = ask(&world, "GET /checked", &[], "").await;
        assert_eq!(said(&answer), (200, "1 of /checked", expected), "§4.3.3: {nth}");
        assert_eq!(answer.header("x-news"), if nth == 0 { "" } else { "yes" }, "§3.2: {nth}");
    }
    let known = ask(&world, "GET /checked", &[("if-none-match", "\"v\"")], "").await;
    assert_eq!((known.status, origin.asked("/checked")), (304, 4), "§4.3.2: both ways");
    let other = ask(&world, "GET /checked", &[("if-none-match", "\"old\"")], "").await;
    assert_eq!(said(&other).1, "1 of /checked", "§4.3.2: the client's own tag is not the backend's");

    assert_eq!(ask(&world, "GET /meanwhile", &[], "").await.body, "1 of /meanwhile");
    let stale = ask(&world, "GET /meanwhile", &[], "").await;
    assert_eq!(stale.body, "1 of /meanwhile", "RFC 5861 §3");
    assert!(
        stale.header("cache-status").starts_with("Atoll; hit; ttl="),
        "RFC 9211 §2.1: {}",
        stale.header("cache-status")
    );
    let began = Instant::now();
    while ask(&world, "GET /meanwhile", &[], "").await.body == "1 of /meanwhile" {
        assert!(began.elapsed() < Duration::from_secs(20), "it is asked for anew meanwhile");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    assert_eq!(ask(&world, "GET /error", &[], "").await.body, "1 of /error");
    origin.broken.store(true, Ordering::Relaxed);
    let answer = ask(&world, "GET /error", &[], "").await;
    assert_eq!(
        said(&answer),
        (200, "1 of /error", "Atoll; fwd=stale; fwd-status=503; detail=stale-if-error"),
        "RFC 5861 §4"
    );
    assert_eq!(ask(&world, "GET /checked", &[], "").await.status, 503, "§4.2.4: not without being let");
}

#[tokio::test]
async fn a_change_is_seen_at_once_and_many_ask_once() {
    let (world, origin) = start("127.13.5.4").await;
    assert_eq!(ask(&world, "GET /fresh", &[], "").await.body, "1 of /fresh");
    assert_eq!(said(&ask(&world, "POST /fresh", &[], "new").await).2, "Atoll; fwd=method");
    assert_eq!(ask(&world, "GET /fresh", &[], "").await.body, "3 of /fresh", "§4.4");
    origin.broken.store(true, Ordering::Relaxed);
    assert_eq!(ask(&world, "DELETE /fresh", &[], "").await.status, 503);
    origin.broken.store(false, Ordering::Relaxed);
    assert_eq!(ask(&world, "GET /fresh", &[], "").await.body, "3 of /fresh", "§4.4: an error changes nothing");

    let many = |line: &'static str| {
        let world = &world;
        futures::future::join_all((0..20).map(move |_| ask(world, line, &[], "")))
    };
    let answers = many("GET /slow?wait_ms=500").await;
    assert!(answers.iter().all(|a| a.body == "1 of /slow"), "one asks for all");
    let collapsed = answers.iter().filter(|a| a.header("cache-status").ends_with("; collapsed")).count();
    assert_eq!((origin.asked("/slow"), collapsed), (1, 19), "RFC 9211 §2.7");
    let began = Instant::now();
    many("GET /slow-private?wait_ms=500").await;
    assert_eq!(origin.asked("/slow-private"), 20);
    assert!(began.elapsed() < Duration::from_secs(4), "what is not kept is not asked for one after the other");
}

#[tokio::test]
async fn memory_is_bounded_by_what_the_policy_says() {
    let (world, origin) = start("127.13.5.5").await;
    put(&world, json!([{"filter": "cache", "bytesMax": 65536, "entryBytesMax": 5}])).await;
    for _ in 0..2 {
        assert_eq!(said(&ask(&world, "GET /fresh", &[], "").await).2, "Atoll; fwd=uri-miss; fwd-status=200");
    }
    assert_eq!(origin.asked("/fresh"), 2, "its body is longer than five octets");
    put(&world, json!([{"filter": "cache", "bytesMax": 65536, "entryBytesMax": 65537}])).await;
    assert_eq!(ask(&world, "GET /fresh", &[], "").await.status, 503, "entryBytesMax: at most bytesMax");
}

//! `extProc`: what a processor of Envoy's protocol sees of requests and answers, and makes of them.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{request, send, send_h2c};
use crate::policy_auth::{as_service, plain, serve};
use crate::policy_bodies::world_to;
use crate::policy_filters::{ask, put, world};
use crate::processor::said::{Code, Common, GrpcStatus, Immediate, Mode, NewBody};
use crate::processor::{Does, Processor, body, goes, instead, sets};
use crate::world::{World, route};

/// The filter with more settings.
fn filter(more: Value) -> Value {
    let mut filter = json!({"filter": "extProc", "backendRef": {"name": "processor", "port": 80}});
    filter.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!([filter])
}

#[tokio::test]
async fn a_processor_sees_and_changes_headers_both_ways() {
    let (world, _web) = world("127.13.6.1").await;
    let processor = Processor::start("127.13.6.2", |shown| match shown.what {
        "request headers" => {
            let of = |name: &str| shown.headers.get(name).map_or("", String::as_str);
            let line = format!("{} {} {} {}", of(":method"), of(":path"), of(":authority"), of(":scheme"));
            assert!(!shown.headers.contains_key("host"), "HTTP/2 writes :authority");
            sets(
                &[("x-line", &line), (":path", "/other?q=2"), ("host", "evil.test"), ("content-length", "9")],
                &["x-token"],
            )
        }
        _ => {
            let more = format!("{} {}", shown.headers[":status"], shown.headers["x-pod"]);
            sets(&[("x-more", &more), (":status", "202")], &["x-pod"])
        }
    })
    .await;
    as_service(&world, "processor", processor.at).await;
    put(&world, filter(json!({}))).await;
    let answer = ask(&world, "POST /a?q=1", &[("x-token", "t"), ("x-line", "mine")], "body").await;
    let said = answer.said();
    assert_eq!((answer.status, answer.header("x-more"), answer.header("x-pod")), (202, "200 web", ""));
    assert_eq!(said["headers"]["x-line"], "POST /a?q=1 shop.test http");
    assert_eq!((&said["headers"]["x-token"], &said["headers"]["host"]), (&Value::Null, &json!("shop.test")));
    assert_eq!((&said["uri"], &said["body"]), (&json!("/other?q=2"), &json!("body")), "framing is not its to change");
    assert_eq!(processor.seen(), ["request headers ", "response headers "], "bodies are not shown unless asked for");
    assert_eq!(ask(&world, "GET /", &[], "").await.status, 202);
    assert_eq!(processor.seen()[0], "request headers .", "there is no body to come");
    put(&world, filter(json!({"requestHeaderMode": "Skip"}))).await;
    assert_eq!(ask(&world, "GET /", &[], "").await.status, 202);
    assert_eq!(processor.seen(), ["response headers "]);
    put(&world, filter(json!({"requestHeaderMode": "Skip", "responseHeaderMode": "Skip"}))).await;
    assert_eq!(ask(&world, "GET /", &[], "").await.status, 503, "one that sees nothing is no processor");
}

#[tokio::test]
async fn bodies_are_shown_whole_or_piece_by_piece_and_replaced() {
    let at = serve("127.13.6.3", |head, body| {
        let length = head.headers.get("content-length").map_or("-", |l| l.to_str().unwrap());
        plain(200, &[("x-length", length)], &format!("got {}", String::from_utf8_lossy(&body)))
    })
    .await;
    let world = world_to(at).await;
    let processor = Processor::start("127.13.6.4", |shown| match shown.what {
        "request body" => body(shown.body.to_uppercase()),
        "response body" => body(shown.body.replace("got", "gave")),
        _ => goes(),
    })
    .await;
    as_service(&world, "processor", processor.at).await;
    let modes = |mode: &str| json!({"requestBodyMode": mode, "responseBodyMode": mode, "bufferBytesMax": 100});
    put(&world, filter(modes("Buffered"))).await;
    let answer = ask(&world, "POST /", &[], "hello").await;
    assert_eq!(
        (answer.body.as_str(), answer.header("x-length"), answer.header("content-length")),
        ("gave HELLO", "5", "10")
    );
    let all = ["request headers ", "request body hello.", "response headers ", "response body got HELLO."];
    assert_eq!(processor.seen(), all, "whole, and nothing of the answer before all of the request");
    assert_eq!(ask(&world, "POST /", &[], LONG).await.status, 413, "longer than what is kept");
    put(&world, filter(json!({"responseBodyMode": "Buffered", "bufferBytesMax": 100}))).await;
    assert_eq!(ask(&world, "POST /", &[], LONG).await.status, 502, "an answer that is too long");
    processor.seen();
    put(&world, filter(modes("Streamed"))).await;
    let answer = ask(&world, "POST /", &[], LONG).await;
    assert_eq!((answer.body.clone(), answer.header("x-length")), (format!("gave {}", LONG.to_uppercase()), "-"));
    let seen = processor.seen();
    let pieces = |way: &str| seen.iter().filter_map(|s| s.strip_prefix(&format!("{way} body "))).collect::<String>();
    assert_eq!(pieces("request"), format!("{LONG}."), "all of it, and where it ends");
    assert_eq!(pieces("response"), format!("got {}.", LONG.to_uppercase()));
    assert_eq!(ask(&world, "GET /", &[], "").await.body, "gave ");
    assert!(!processor.seen().iter().any(|s| s.starts_with("request body")), "there was none");
}

const LONG: &str =
    "a body that is longer than what may be kept of it, for it says the same again and again, and again, and again";

#[tokio::test]
async fn a_processor_replaces_a_body_that_it_was_not_shown() {
    let (world, _web) = world("127.13.6.5").await;
    let processor = Processor::start("127.13.6.6", |shown| {
        let new = format!("new for {}", shown.what);
        let body = Some(NewBody { body: Some(new.into_bytes()), clear: None });
        Does::Goes(Common { status: i32::from(shown.headers.contains_key("x-replace")), body, headers: None })
    })
    .await;
    as_service(&world, "processor", processor.at).await;
    put(&world, filter(json!({"requestBodyMode": "Buffered", "responseHeaderMode": "Skip"}))).await;
    let answer = ask(&world, "POST /", &[("x-replace", "1")], "old").await;
    assert_eq!(answer.said()["body"], "new for request headers");
    assert_eq!(processor.seen(), ["request headers "], "what was replaced is not shown");
    assert_eq!(ask(&world, "POST /", &[], "old").await.said()["body"], "new for request body");
}

#[tokio::test]
async fn a_processor_answers_itself_wherever_it_is() {
    let (world, web) = world("127.13.6.7").await;
    let processor = Processor::start("127.13.6.8", |shown| {
        static AT: Mutex<String> = Mutex::new(String::new());
        let mut at = AT.lock().unwrap();
        if let Some(named) = shown.headers.get("x-at") {
            at.clone_from(named);
        }
        if *at == "grpc" {
            let (status, grpc) = (Some(Code { code: 403 }), Some(GrpcStatus { status: 7 }));
            return Does::Instead(Immediate { status, headers: None, body: b"not you".into(), grpc });
        }
        if shown.what == *at { instead(418, "tea") } else { goes() }
    })
    .await;
    as_service(&world, "processor", processor.at).await;
    for (mode, at, reaches) in [
        ("Buffered", "request headers", false),
        ("Buffered", "request body", false),
        ("Buffered", "response headers", true),
        ("Buffered", "response body", true),
        ("Streamed", "request headers", false),
        ("Streamed", "request body", false),
        ("Streamed", "response headers", true),
    ] {
        put(&world, filter(json!({"requestBodyMode": mode, "responseBodyMode": mode}))).await;
        let before = web.busy.posts.lock().unwrap().len();
        let answer = ask(&world, "POST /", &[("x-at", at)], "body").await;
        let case = format!("{mode}, {at}");
        assert_eq!((answer.status, answer.body.as_str(), answer.header("x-why")), (418, "tea", "because"), "{case}");
        let whole = web.busy.posts.lock().unwrap()[before..].iter().any(|post| post == "body");
        assert_eq!(whole, reaches, "{case}");
    }
    let call = [("x-at", "grpc"), ("content-type", "application/grpc")];
    let answer = ask(&world, "POST /", &call, "").await;
    let said = (answer.status, answer.header("grpc-status"), answer.header("grpc-message"), answer.body.as_str());
    assert_eq!(said, (200, "7", "not you", ""), "a gRPC client hears statuses of gRPC");
    assert_eq!(ask(&world, "POST /", &[("x-at", "grpc")], "").await.status, 403);
}

#[tokio::test]
async fn a_processor_that_fails_lets_nobody_pass_unless_failing_is_open() {
    let (world, web) = world("127.13.6.9").await;
    let processor = Processor::start("127.13.6.10", |shown| match shown.headers.get("x-do").map(String::as_str) {
        Some("sleep") => Does::Sleeps,
        Some("break") => Does::Ends("13"),
        Some("end") => Does::Ends("0"),
        Some("confuse") => Does::Confuses,
        _ => goes(),
    })
    .await;
    as_service(&world, "processor", processor.at).await;
    for (open, status) in [(false, 503), (true, 200)] {
        put(&world, filter(json!({"timeout": "300ms", "failOpen": open}))).await;
        for (what, expected) in
            [("sleep", status), ("break", status), ("confuse", status), ("end", 200), ("nothing", 200)]
        {
            let (began, hits) = (Instant::now(), web.hits());
            let answer = ask(&world, "GET /", &[("x-do", what)], "").await;
            assert_eq!(answer.status, expected, "{what}, open: {open}");
            assert_eq!(web.hits() > hits, expected == 200, "{what}, open: {open}");
            let (took, least) = (began.elapsed(), if what == "sleep" { 300 } else { 0 });
            assert!((least..3000).contains(&took.as_millis()), "{what}, open: {open}: {took:?}");
            if what == "end" {
                assert_eq!(processor.seen().last().unwrap(), "request headers .", "it wants to see no more");
            }
        }
    }
    for (open, status) in [(false, 503), (true, 200)] {
        let mut gone = filter(json!({"failOpen": open, "timeout": "1s"}));
        as_service(&world, "dead", "127.13.6.11:1".parse().unwrap()).await;
        gone[0]["backendRef"]["name"] = json!("dead");
        put(&world, gone).await;
        assert_eq!(ask(&world, "GET /", &[], "").await.status, status, "nobody is there, open: {open}");
    }
    put(&world, json!([{"filter": "extProc", "backendRef": {"name": "nowhere", "port": 80}, "failOpen": true}])).await;
    assert_eq!(
        ask(&world, "GET /", &[], "").await.status,
        503,
        "one that is not known at all is a mistake, not a failure"
    );
}

#[tokio::test]
async fn a_processor_chooses_what_it_sees_where_it_may() {
    let (world, _web) = world("127.13.6.12").await;
    let processor = Processor::start("127.13.6.13", |shown| match shown.what {
        // 2: Buffered.
        "request headers" => Does::Wants(Mode { request_body: 2, response_body: 2, response_trailers: 0 }),
        _ => goes(),
    })
    .await;
    as_service(&world, "processor", processor.at).await;
    for (may, expected) in [(false, 2), (true, 4)] {
        put(&world, filter(json!({"allowModeOverride": may}))).await;
        let answer = ask(&world, "POST /", &[], "body").await;
        assert_eq!((answer.status, &answer.said()["body"]), (200, &json!("body")), "{may}");
        assert_eq!(processor.seen().len(), expected, "it may choose: {may}");
    }
}

#[tokio::test]
async fn trailers_are_shown_and_changed() {
    let (world, web) = world("127.13.6.14").await;
    let processor = Processor::start("127.13.6.15", |shown| match shown.what {
        "response trailers" => sets(&[("x-was", &shown.headers["grpc-status"]), ("grpc-status", "5")], &[]),
        _ => goes(),
    })
    .await;
    as_service(&world, "processor", processor.at).await;
    let [mut service, slice] = crate::world::service("calls", &web);
    service["spec"]["ports"][0]["appProtocol"] = json!("kubernetes.io/h2c");
    for object in [service, slice] {
        world.apply(object).await;
    }
    let calls = json!([{"backendRefs": [{"name": "calls", "port": 80}]}]);
    world.apply(route("web", &["shop.test"], calls)).await;
    for body in ["None", "Streamed", "Buffered"] {
        put(&world, filter(json!({"responseTrailerMode": "Send", "responseBodyMode": body}))).await;
        let uri = "http://shop.test/";
        let answer = until_h2(&world, uri).await;
        let of = |name: &str| answer.trailers.get(name).map_or("-", |v| v.to_str().unwrap());
        assert_eq!((of("x-was"), of("grpc-status")), ("0", "5"), "body {body}");
        assert_eq!(answer.said()["pod"], "web", "body {body}");
    }
}

/// Asks by HTTP/2 until the backend is the one that speaks it.
async fn until_h2(world: &World, uri: &str) -> crate::client::Answer {
    let began = Instant::now();
    loop {
        let answer = send_h2c(world.http, uri).await;
        if answer.said()["version"] == "HTTP/2.0" {
            return answer;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_connection_carries_many_exchanges_at_once() {
    let (world, _web) = world("127.13.6.16").await;
    let processor = Processor::start("127.13.6.17", |_| goes()).await;
    as_service(&world, "processor", processor.at).await;
    put(&world, filter(json!({"requestBodyMode": "Streamed"}))).await;
    let many = (0..50).map(|_| send(world.http, request("shop.test", "POST /", &[], "body")));
    let answers = futures::future::join_all(many).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.said()["body"] == "body"));
    assert_eq!(processor.seen().iter().filter(|s| *s == "request headers ").count(), 50);
}

//! Requests that two readers may read as two: each is one request for the endpoint behind the gateway, too, or it is refused.
//!
//! In: the cases of `tests/smuggling/`, through one gateway to one endpoint that keeps every octet. After each of them another client asks:
//! what it hears is its own answer, so nothing is left behind on a connection that is used again.

#[path = "../smuggling/cases.rs"]
mod cases;
#[path = "../smuggling/frames.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
pub(crate) mod frames;
#[path = "../smuggling/origin.rs"]
pub(crate) mod origin;
#[path = "../smuggling/reading.rs"]
pub(crate) mod reading;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::cases::{Case, Outcome, all, octets};
use self::origin::{Got, Origin};
use crate::backend::Pod;
use crate::client::get;
use crate::world::{World, import, route, topology};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Says that, and nothing more; what comes until the connection ends.
async fn say(at: SocketAddr, octets: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    // Who refuses may close before everything is written.
    let _ = stream.write_all(octets).await;
    let _ = stream.shutdown().await;
    let mut got = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut got)).await;
    got
}

/// Answers by status and body. `heads`: which of them are to HEAD.
fn answers(got: &[u8], heads: &[bool]) -> Vec<(u16, String)> {
    let (mut rest, mut found) = (got, Vec::new());
    while let Some(end) = rest.windows(4).position(|w| w == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
        let status: u16 = head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
        rest = &rest[end + 4..];
        if status < 200 {
            continue;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let is_head = heads.get(found.len()).copied().unwrap_or(false);
        let body = if is_head { 0 } else { rest.len().min(length) };
        found.push((status, String::from_utf8_lossy(&rest[..body]).into_owned()));
        rest = &rest[body..];
    }
    if !rest.is_empty() {
        found.push((0, String::from_utf8_lossy(rest).into_owned()));
    }
    found
}

/// Fields, data and trailers of a case of HTTP/2.
fn parts(written: &str) -> (Fields, Option<Vec<u8>>, Option<Fields>) {
    let (written, trailers) = written.split_once('⇥').map_or((written, None), |(w, t)| (w, Some(t)));
    let (fields, data) = written.split_once("⏎⏎").map_or((written, None), |(f, d)| (f, Some(d)));
    let list = |lines: &str| {
        let fields = lines.split('⏎').filter(|line| !line.is_empty()).map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            (octets(name), octets(value))
        });
        fields.collect::<Fields>()
    };
    (list(fields), data.map(octets), trailers.map(list))
}

/// What an endpoint got, against what it should have.
fn compare(case: &Case, got: &Got) -> Result<(), String> {
    if let Some((why, octets)) = got.bad.first() {
        return Err(format!("the endpoint got what nobody should write ({why}): {}", octets.escape_ascii()));
    }
    let begun = matches!(case.outcomes.last(), Some(Outcome::Refused { begun: true, .. } | Outcome::Reset));
    if let Some(octets) = got.begun.first().filter(|_| !begun) {
        return Err(format!("an endpoint got the beginning: {}", octets.escape_ascii()));
    }
    let mut expected = Vec::new();
    for outcome in &case.outcomes {
        if let Outcome::Passes { method, target, host, body } = outcome {
            expected.push((method.clone(), target.clone(), host.clone(), body.clone()));
        }
    }
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    let found: Vec<_> = got
        .requests
        .iter()
        .map(|(request, _)| {
            (request.method.clone(), request.target.clone(), text(request.values("host").next()), request.body.clone())
        })
        .collect();
    if found != expected {
        return Err(format!("the endpoint got {found:?}"));
    }
    let unlike = got.requests.iter().find_map(|(request, octets)| Some((reading::unlike_ours(request)?, octets)));
    unlike.map_or(Ok(()), |(why, octets)| Err(format!("{why}: {}", octets.escape_ascii())))
}

/// What the client hears, against what it should.
fn heard(case: &Case, got: &[u8]) -> Result<(), String> {
    let heads: Vec<bool> =
        case.outcomes.iter().map(|o| matches!(o, Outcome::Passes { method, .. } if method == "HEAD")).collect();
    let found = answers(got, &heads);
    let expected: Vec<(u16, Option<String>)> = case
        .outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Passes { method, .. } if method == "HEAD" => Some((200, Some(String::new()))),
            Outcome::Passes { method, target, .. } => Some((200, Some(format!("{method} {target}")))),
            Outcome::Refused { status, .. } => Some((*status, None)),
            Outcome::Closed | Outcome::Reset => None,
        })
        .collect();
    let alike = |((status, body), (wanted, said)): (&(u16, String), &(u16, Option<String>))| {
        status == wanted && said.as_ref().is_none_or(|said| said == body)
    };
    let all = found.len() == expected.len() && found.iter().zip(&expected).all(alike);
    if all { Ok(()) } else { Err(format!("the client heard {found:?}")) }
}

async fn play(world: &World, origin: &Origin, case: &Case) -> Result<(), String> {
    let said = if case.h2 {
        let (fields, data, trailers) = parts(&case.written);
        let status = frames::ask(world.http, &fields, data.as_deref(), trailers.as_deref()).await;
        match (&case.outcomes[0], status) {
            (Outcome::Passes { .. }, Some(200)) | (Outcome::Reset, None) => Ok(()),
            (Outcome::Refused { status: wanted, .. }, Some(status)) if *wanted == status => Ok(()),
            (_, status) => Err(format!("the client heard {status:?}")),
        }
    } else {
        heard(case, &say(world.http, &octets(&case.written)).await)
    };
    let mark = format!("/{}", case.at);
    let marked = get(world.http, "a", &mark).await;
    let mut got = origin.got().await;
    got.requests.retain(|(request, _)| request.target != mark);
    compare(case, &got)?;
    said?;
    if marked.body == format!("GET {mark}") { Ok(()) } else { Err(format!("the next client heard {:?}", marked.body)) }
}

#[tokio::test]
async fn every_case_is_the_same_requests_for_everybody_or_refused() {
    let cases = all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smuggling"));
    assert!(cases.len() >= 500, "{} cases", cases.len());
    let world = World::start().await;
    let origin = Origin::start("127.33.0.1:0").await;
    world.publish(topology(&[("eu", &[&Pod::named(origin.address)])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("a", "/", |a| a.status == 200).await;
    origin.got().await;
    let mut failed = Vec::new();
    for case in &cases {
        if let Err(why) = play(&world, &origin, case).await {
            failed.push(format!("{}: {}: {:?} expected, {why}", case.at, case.name, case.outcomes));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

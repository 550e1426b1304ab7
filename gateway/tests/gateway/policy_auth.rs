//! Filters that ask somebody else: forwardAuth, extAuthz, jwt with published keys, ExternalAuth of routes. The servers are stand-ins of ours.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::backend::Pod;
use crate::policy_filters::{ask, put, world};
use crate::world::{World, import, route, service};

pub(crate) type Answered = Response<BoxBody<Bytes, Infallible>>;

/// A server of HTTP/1.1 and HTTP/2 without TLS; `answer` gets the head and the whole body.
pub(crate) async fn serve(
    ip: &str,
    answer: impl Fn(&http::request::Parts, Bytes) -> Answered + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let (at, answer) = (listener.local_addr().unwrap(), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = Arc::clone(&answer);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let wait = head.uri.query().and_then(|q| q.strip_prefix("wait_ms=")?.parse().ok());
                    tokio::time::sleep(Duration::from_millis(wait.unwrap_or(0))).await;
                    Ok::<_, Infallible>(answer(&head, body))
                }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { drop(builder.serve_connection(TokioIo::new(stream), service).await) });
        }
    });
    at
}

pub(crate) fn plain(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answered {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_owned())).boxed());
    *answer.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        answer.headers_mut().insert(*name, value.parse().unwrap());
    }
    answer
}

pub(crate) async fn as_service(world: &World, name: &str, at: SocketAddr) {
    for object in service(name, &Pod::named(at)) {
        world.apply(object).await;
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |v| v.to_str().unwrap())
}

/// Lets whoever has `x-token: good` pass, and says who it is.
fn judge(head: &http::request::Parts) -> Answered {
    let asked = format!("{} {} {}", head.method, head.uri, header(&head.headers, "x-forwarded-uri"));
    match header(&head.headers, "x-token") {
        "good" => plain(200, &[("x-user", "anna"), ("x-asked", &asked)], ""),
        _ => plain(401, &[("www-authenticate", "Custom"), ("x-asked", &asked)], "who are you"),
    }
}

#[tokio::test]
async fn a_server_that_is_asked_lets_pass_or_answers_itself() {
    let (world, _web) = world("127.13.3.1").await;
    let at = serve("127.13.3.2", |head, _| judge(head)).await;
    as_service(&world, "judge", at).await;
    let forward = |more: Value| {
        let mut filter = json!({"filter": "forwardAuth", "backendRef": {"name": "judge", "port": 80}, "authPath": "/check",
            "allowedResponseHeaders": ["x-user", "x-asked"]});
        filter.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([filter])
    };
    put(&world, forward(json!({}))).await;
    let answer = ask(&world, "POST /a?b=c", &[("x-token", "good"), ("x-user", "root")], "body").await;
    let said = answer.said();
    assert_eq!((answer.status, &said["headers"]["x-user"], &said["body"]), (200, &json!("anna"), &json!("body")));
    assert_eq!(said["headers"]["x-asked"], "GET /check /a?b=c");
    let answer = ask(&world, "GET /", &[("x-user", "root")], "").await;
    assert_eq!(
        (answer.status, answer.body.as_str(), answer.header("www-authenticate")),
        (401, "who are you", "Custom")
    );
    put(&world, forward(json!({"signinUrl": "https://sso.test/start"}))).await;
    let answer = ask(&world, "GET /a?b=c", &[], "").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, "https://sso.test/start?rd=http%3A%2F%2Fshop.test%2Fa%3Fb%3Dc")
    );
    put(&world, json!([{"filter": "forwardAuth", "url": format!("http://{at}/check")}])).await;
    assert_eq!(ask(&world, "GET /", &[("x-token", "good")], "").await.status, 200);
    put(&world, json!([{"filter": "forwardAuth", "url": "http://127.13.3.2:1/check", "timeout": "1s"}])).await;
    assert_eq!(ask(&world, "GET /", &[("x-token", "good")], "").await.status, 503, "without an answer nobody passes");
    put(&world, json!([{"filter": "forwardAuth", "backendRef": {"name": "gone", "port": 80}}])).await;
    assert_eq!(ask(&world, "GET /", &[("x-token", "good")], "").await.status, 503);
}

#[tokio::test]
async fn routes_ask_their_own_server_by_http() {
    let (world, _web) = world("127.13.3.3").await;
    let at = serve("127.13.3.4", |head, body| {
        let known = header(&head.headers, "authorization") == "good" && head.uri.path() == "/auth/a" && body == "body";
        let hidden = head.headers.contains_key("x-secret");
        plain(if known && !hidden { 200 } else { 403 }, &[("x-user", "anna"), ("x-other", "1")], "no")
    })
    .await;
    as_service(&world, "judge", at).await;
    let filter = json!({"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": {"name": "judge", "port": 80},
        "http": {"path": "auth", "allowedResponseHeaders": ["x-user"]}, "forwardBody": {"maxSize": 10}}});
    world.apply(route("web", &["shop.test"], json!([{"filters": [filter], "backendRefs": [import("web")]}]))).await;
    world.until("shop.test", "/", |a| a.status == 403).await;
    let secret = [("authorization", "good"), ("x-secret", "1")];
    let answer = ask(&world, "POST /a", &secret, "body").await;
    let said = answer.said();
    assert_eq!(
        (answer.status, &said["headers"]["x-user"], &said["headers"]["x-other"]),
        (200, &json!("anna"), &Value::Null)
    );
    assert_eq!(said["body"], "body", "what was sent along is still there for the backend");
    assert_eq!(ask(&world, "POST /b", &secret, "body").await.status, 403);
    assert_eq!(
        ask(&world, "POST /a", &secret, "much too long").await.status,
        413,
        "what can't be judged does not pass"
    );
}

/// What of Envoy's messages the stand-in needs.
mod envoy {
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(message, optional, tag = "1")]
        pub(super) attributes: Option<Attributes>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Attributes {
        #[prost(message, optional, tag = "4")]
        pub(super) request: Option<Inner>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Inner {
        #[prost(message, optional, tag = "2")]
        pub(super) http: Option<Http>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Http {
        #[prost(string, tag = "2")]
        pub(super) method: String,
        #[prost(map = "string, string", tag = "3")]
        pub(super) headers: HashMap<String, String>,
        #[prost(string, tag = "4")]
        pub(super) path: String,
        #[prost(string, tag = "11")]
        pub(super) body: String,
    }
}

/// A field of protocol buffers that has a length.
fn field(number: u8, octets: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(octets.len()).unwrap()][..], octets].concat()
}

fn option(name: &str, value: &str) -> Vec<u8> {
    field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
}

fn grpc(message: &[u8]) -> Answered {
    let framed = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()][..], message].concat();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(framed)).with_trailers(async move { Some(Ok(trailers)) });
    let mut answer = Response::new(body.boxed());
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    answer
}

#[tokio::test]
async fn a_server_of_envoys_protocol_says_who_passes() {
    let (world, _web) = world("127.13.3.5").await;
    let seen = Arc::new(Mutex::new(HashMap::new()));
    let kept = Arc::clone(&seen);
    let at = serve("127.13.3.6", move |head, body| {
        assert_eq!(head.uri.path(), "/envoy.service.auth.v3.Authorization/Check");
        let request = envoy::Request::decode(&body[5..]).unwrap();
        let http = request.attributes.unwrap().request.unwrap().http.unwrap();
        let good = http.headers.get("x-token").is_some_and(|t| t == "good");
        kept.lock()
            .unwrap()
            .clone_from(&HashMap::from([("line", format!("{} {} {}", http.method, http.path, http.body))]));
        if good {
            // ok_response: sets x-user, removes x-token, adds x-more to the answer.
            let ok =
                [field(2, &option("x-user", "anna")), field(5, b"x-token"), field(6, &option("x-more", "1"))].concat();
            return grpc(&[field(1, &[]), field(3, &ok)].concat());
        }
        // status 7, denied_response: 418 and a body.
        let denied = [field(1, &[8, 0xa2, 3]), field(2, &option("x-why", "tea")), field(3, b"no coffee")].concat();
        grpc(&[field(1, &[8, 7]), field(2, &denied)].concat())
    })
    .await;
    as_service(&world, "judge", at).await;
    let filter = json!({"filter": "extAuthz", "backendRef": {"name": "judge", "port": 80}, "bodyBytesMax": 100});
    put(&world, json!([filter])).await;
    let answer = ask(&world, "POST /a?b=c", &[("x-token", "good"), ("x-user", "root")], "body").await;
    let said = answer.said();
    assert_eq!((answer.status, answer.header("x-more")), (200, "1"));
    assert_eq!((&said["headers"]["x-user"], &said["headers"]["x-token"]), (&json!("anna"), &Value::Null));
    assert_eq!(seen.lock().unwrap()["line"], "POST /a?b=c body");
    let answer = ask(&world, "GET /", &[], "").await;
    assert_eq!((answer.status, answer.body.as_str(), answer.header("x-why")), (418, "no coffee", "tea"));

    let mut external = json!({"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC", "grpc": {"allowedHeaders": ["x-token"]},
        "backendRef": {"name": "judge", "port": 80}}});
    put(&world, json!([{"filter": "hsts", "maxAgeSeconds": 1}])).await;
    world.apply(route("web", &["shop.test"], json!([{"filters": [external], "backendRefs": [import("web")]}]))).await;
    world.until("shop.test", "/", |a| a.status == 418).await;
    assert_eq!(ask(&world, "GET /", &[("x-token", "good")], "").await.status, 200);
    external["externalAuth"]["backendRef"]["name"] = json!("gone");
    world.apply(route("web", &["shop.test"], json!([{"filters": [external], "backendRefs": [import("web")]}]))).await;
    world.until("shop.test", "/", |a| a.status == 500).await;
}

#[tokio::test]
async fn tokens_count_by_published_keys_that_may_change() {
    let (world, _web) = world("127.13.3.7").await;
    let pair = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (first, second) = (pair(), pair());
    let key = |pair: &EcdsaKeyPair, id: &str| {
        let point = pair.public_key().as_ref();
        let code = |octets: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(octets);
        json!({"kty": "EC", "crv": "P-256", "kid": id, "x": code(&point[1..33]), "y": code(&point[33..])})
    };
    let token = |pair: &EcdsaKeyPair, id: &str, claims: Value| {
        let code = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", code(&json!({"alg": "ES256", "kid": id})), code(&claims));
        let mark = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("Bearer {signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mark.as_ref()))
    };
    let set = Arc::new(Mutex::new(json!({"keys": [key(&first, "k1"), key(&second, "k2")]}).to_string()));
    let published = Arc::clone(&set);
    let at = serve("127.13.3.8", move |_, _| plain(200, &[], &published.lock().unwrap())).await;
    put(&world, json!([{"filter": "jwt", "issuer": "https://me.test", "audiences": ["shop"], "jwksUri": format!("http://{at}/keys"),
        "claimHeaders": [{"claim": "sub", "header": "x-user"}]}])).await;
    let claims = |aud: &str, exp: i64| json!({"iss": "https://me.test", "aud": aud, "exp": exp, "sub": "anna"});
    let now = jiff::Timestamp::now().as_second();
    for (name, said, status) in [
        ("good", token(&first, "k1", claims("shop", now + 60)), 200),
        ("of the second key", token(&second, "k2", claims("shop", now + 60)), 200),
        ("over", token(&first, "k1", claims("shop", now - 120)), 401),
        ("for others", token(&first, "k1", claims("bar", now + 60)), 401),
        ("of another's key", token(&second, "k1", claims("shop", now + 60)), 401),
        ("of no key", token(&first, "k9", claims("shop", now + 60)), 401),
        ("none", "Bearer x".to_owned(), 401),
    ] {
        let answer = ask(&world, "GET /", &[("authorization", &said), ("x-user", "root")], "").await;
        assert_eq!(answer.status, status, "{name}");
        if status == 200 {
            let headers = &answer.said()["headers"];
            assert_eq!((&headers["x-user"], &headers["authorization"]), (&json!("anna"), &Value::Null), "{name}");
        }
    }
    assert_eq!(ask(&world, "GET /", &[], "").await.header("www-authenticate"), "Bearer");
    put(&world, json!([{"filter": "jwt", "issuer": "x", "jwksUri": "http://127.13.3.8:1/keys"}])).await;
    let good = token(&first, "k1", claims("shop", now + 60));
    assert_eq!(ask(&world, "GET /", &[("authorization", &good)], "").await.status, 503, "keys that nobody has");
}

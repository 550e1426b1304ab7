//! The filter `oidc` with a provider of ours: sent to log in, come back, known to the backend, refreshed, logged out; and what does not count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::request::Parts;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::policy_auth::{Answered, plain, serve};
use crate::policy_filters::{ask, put, world};
use crate::world::secret;

fn code(octets: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(octets)
}

/// A provider. People log in as whoever `login` says; codes work once.
struct Provider {
    pair: EcdsaKeyPair,
    issuer: Mutex<String>,
    /// What was asked for, by code.
    codes: Mutex<HashMap<String, HashMap<String, String>>>,
    /// What is said instead of the truth in ID tokens.
    lies: Mutex<Value>,
    refreshes: Mutex<Vec<String>>,
    expires_in: Mutex<i64>,
}

fn pairs(query: &str) -> HashMap<String, String> {
    let plain = |text: &str| {
        let mut out = Vec::new();
        let mut octets = text.bytes();
        while let Some(octet) = octets.next() {
            if octet == b'%' {
                let digits = [octets.next().unwrap(), octets.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            } else {
                out.push(octet);
            }
        }
        String::from_utf8(out).unwrap()
    };
    query.split('&').filter_map(|p| p.split_once('=')).map(|(n, v)| (n.to_owned(), plain(v))).collect()
}

impl Provider {
    fn answer(&self, head: &Parts, body: &str) -> Answered {
        let issuer = self.issuer.lock().unwrap().clone();
        match head.uri.path() {
            "/.well-known/openid-configuration" => {
                let document = json!({"issuer": issuer, "authorization_endpoint": format!("{issuer}/auth"),
                    "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/keys"),
                    "end_session_endpoint": format!("{issuer}/end")});
                plain(200, &[], &document.to_string())
            }
            "/keys" => {
                let point = self.pair.public_key().as_ref();
                let key =
                    json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": code(&point[1..33]), "y": code(&point[33..])});
                plain(200, &[], &json!({"keys": [key]}).to_string())
            }
            "/token" => self.token(head, &pairs(body)),
            _ => plain(404, &[], ""),
        }
    }

    fn token(&self, head: &Parts, form: &HashMap<String, String>) -> Answered {
        let secret = format!("Basic {}", BASE64_STANDARD.encode("shop:s3cret"));
        let no = |why: &str| plain(400, &[], &json!({"error": why}).to_string());
        if head.headers.get("authorization").is_none_or(|a| a != &secret) {
            return no("invalid_client");
        }
        let mut nonce = None;
        if form["grant_type"] == "refresh_token" {
            self.refreshes.lock().unwrap().push(form["refresh_token"].clone());
        } else {
            let Some(asked) = self.codes.lock().unwrap().remove(&form["code"]) else { return no("invalid_grant") };
            let challenge = code(digest(&SHA256, form["code_verifier"].as_bytes()).as_ref());
            if asked["code_challenge"] != challenge || asked["redirect_uri"] != form["redirect_uri"] {
                return no("invalid_grant");
            }
            nonce = Some(asked["nonce"].clone());
        }
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({"iss": *self.issuer.lock().unwrap(), "aud": "shop", "sub": "anna", "exp": now + 600,
            "nonce": nonce, "groups": ["a", "b"], "long": "x".repeat(6000)});
        claims.as_object_mut().unwrap().extend(self.lies.lock().unwrap().as_object().cloned().unwrap_or_default());
        let part = |value: &Value| code(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": "k"})), part(&claims));
        let mark = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", code(mark.as_ref()));
        let answer = json!({"access_token": "a", "token_type": "Bearer", "expires_in": *self.expires_in.lock().unwrap(),
            "id_token": token, "refresh_token": format!("r{}", self.refreshes.lock().unwrap().len())});
        plain(200, &[], &answer.to_string())
    }

    /// Logs in: what a browser brings back.
    fn login(&self, location: &str, id: &str) -> String {
        let (_, query) = location.split_once('?').unwrap();
        let asked = pairs(query);
        assert_eq!((asked["response_type"].as_str(), asked["code_challenge_method"].as_str()), ("code", "S256"));
        assert_eq!((asked["scope"].as_str(), asked["client_id"].as_str()), ("openid groups", "shop"));
        assert_eq!(asked["redirect_uri"], "http://shop.test/oauth2/callback");
        let back = format!("GET /oauth2/callback?code={id}&state={}", asked["state"]);
        self.codes.lock().unwrap().insert(id.to_owned(), asked);
        back
    }
}

/// A browser's cookies.
#[derive(Default, Clone)]
struct Jar(HashMap<String, String>);

impl Jar {
    fn take(&mut self, answer: &Answer) {
        for line in answer.headers.get_all("set-cookie") {
            let line = line.to_str().unwrap();
            assert!(line.contains("; HttpOnly") && line.contains("; SameSite=Lax") && line.len() < 4096, "{line}");
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            if line.contains("Max-Age=0;") {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    fn line(&self) -> String {
        self.0.iter().map(|(n, v)| format!("{n}={v}")).chain(["own=1".to_owned()]).collect::<Vec<_>>().join("; ")
    }
}

const HTML: (&str, &str) = ("accept", "text/html");

#[tokio::test]
async fn people_log_in_once_and_the_backend_is_told_who_they_are() {
    let (world, _web) = world("127.13.6.1").await;
    let provider = Arc::new(Provider {
        pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        issuer: Mutex::default(),
        codes: Mutex::default(),
        lies: Mutex::default(),
        refreshes: Mutex::default(),
        expires_in: Mutex::new(600),
    });
    let answers = Arc::clone(&provider);
    let at = serve("127.13.6.2", move |head, body| answers.answer(head, std::str::from_utf8(&body).unwrap())).await;
    *provider.issuer.lock().unwrap() = format!("http://{at}");
    world.apply(secret("login", &[("client-secret", "s3cret"), ("cookie-key", &"k".repeat(32))])).await;
    let filter = |issuer: &str| {
        json!([{"filter": "oidc", "issuer": issuer, "clientId": "shop", "secretRef": {"name": "login"}, "scopes": ["groups"],
        "claimHeaders": [{"claim": "sub", "header": "x-user"}, {"claim": "groups", "header": "x-groups"}, {"claim": "long", "header": "x-long"}]}])
    };
    put(&world, filter(&format!("http://{at}"))).await;

    assert_eq!(ask(&world, "GET /", &[("x-user", "root")], "").await.status, 401, "an API client is not sent anywhere");
    assert_eq!(ask(&world, "POST /", &[HTML], "").await.status, 401);
    let mut jar = Jar::default();
    let sent = ask(&world, "GET /a?b=c", &[HTML], "").await;
    assert_eq!((sent.status, sent.header("cache-control")), (302, "no-store"));
    assert!(sent.header("location").starts_with(&format!("http://{at}/auth?")), "{}", sent.header("location"));
    jar.take(&sent);
    let back = provider.login(sent.header("location"), "c1");
    let stranger = ask(&world, &back, &[HTML], "").await;
    assert_eq!(stranger.status, 400, "somebody else's login is nobody's: state stands in a cookie");
    let forged = ask(&world, &back.replace("state=", "state=x"), &[HTML, ("cookie", &jar.line())], "").await;
    assert_eq!(forged.status, 400);
    let home = ask(&world, &back, &[HTML, ("cookie", &jar.line())], "").await;
    assert_eq!((home.status, home.header("location")), (302, "/a?b=c"), "{}", home.body);
    jar.take(&home);
    assert!(jar.0.len() >= 2 && jar.0.keys().all(|n| n.starts_with("atoll-session")), "{:?}", jar.0.keys());
    let again = ask(&world, &back, &[HTML, ("cookie", &jar.line())], "").await;
    assert_eq!(again.status, 400, "a login is over once it was used");

    let page = ask(&world, "GET /a", &[("cookie", &jar.line()), ("x-user", "root")], "").await;
    let headers = page.said()["headers"].clone();
    assert_eq!((page.status, &headers["x-user"], &headers["x-groups"]), (200, &json!("anna"), &json!("a,b")));
    assert_eq!(headers["x-long"].as_str().unwrap().len(), 6000, "a session longer than a cookie");
    assert_eq!(headers["cookie"], "own=1", "the backend sees none of ours");
    let mut torn = jar.clone();
    torn.0.values_mut().for_each(|v| v.truncate(v.len() - 1));
    assert_eq!(ask(&world, "GET /a", &[("cookie", &torn.line())], "").await.status, 401, "what was changed is none");

    // Tokens that end are refreshed, once for all requests that bring the old session.
    *provider.expires_in.lock().unwrap() = 0;
    let mut jar = Jar::default();
    let sent = ask(&world, "GET //evil.test/", &[HTML], "").await;
    jar.take(&sent);
    let home = ask(&world, &provider.login(sent.header("location"), "c2"), &[("cookie", &jar.line())], "").await;
    assert!(home.header("location").starts_with('/') && !home.header("location").starts_with("//"), "no other host");
    jar.take(&home);
    *provider.expires_in.lock().unwrap() = 600;
    let line = jar.line();
    let old = [("cookie", line.as_str())];
    let (one, two) = tokio::join!(ask(&world, "GET /", &old, ""), ask(&world, "GET /", &old, ""));
    assert_eq!((one.status, two.status, provider.refreshes.lock().unwrap().len()), (200, 200, 1));
    jar.take(&one);
    assert_eq!(ask(&world, "GET /", &[("cookie", &jar.line())], "").await.status, 200);
    assert_eq!(provider.refreshes.lock().unwrap().len(), 1, "the new session holds");

    let out = ask(&world, "GET /oauth2/logout", &[("cookie", &jar.line())], "").await;
    assert!(out.header("location").starts_with(&format!("http://{at}/end?client_id=shop")), "{out:?}");
    jar.take(&out);
    assert!(jar.0.is_empty(), "{:?}", jar.0.keys());

    for (name, lie) in [
        ("another login's", json!({"nonce": "x"})),
        ("for somebody else", json!({"aud": "bar"})),
        ("issued to somebody else", json!({"azp": "bar"})),
        ("another issuer's", json!({"iss": "http://evil.test"})),
        ("over", json!({"exp": 5})),
    ] {
        *provider.lies.lock().unwrap() = lie;
        let mut jar = Jar::default();
        let sent = ask(&world, "GET /", &[HTML], "").await;
        jar.take(&sent);
        let back = provider.login(sent.header("location"), "c3");
        assert_eq!(ask(&world, &back, &[("cookie", &jar.line())], "").await.status, 403, "an ID token {name}");
    }
    put(&world, filter("http://127.13.6.2:1")).await;
    assert_eq!(ask(&world, "GET /", &[HTML], "").await.status, 503, "without a provider nobody logs in");
    world.apply(secret("login", &[("client-secret", "s3cret"), ("cookie-key", "short")])).await;
    world.until("shop.test", "/", |a| a.status == 503).await;
}

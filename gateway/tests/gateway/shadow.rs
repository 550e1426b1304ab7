//! The same requests at real nginx, configured as ingress-nginx's documentation says of each annotation, and at Atoll, which is given the
//! annotation itself: no differences.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use atoll_gateway::shadow::{Record, Report, shadow};
use atoll_reach::{Connect, System};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::backend::Pod;
use crate::ingress::ingress;
use crate::world::{World, secret, service, topology};

/// ann:pw
const USERS: &str = "ann:{SHA}GpHWL3ymc5liWkNopqtdSjuqYHM=\n";

/// A backend whose answers hold nothing that a proxy in between decides without being told to.
struct Plain {
    address: SocketAddr,
    end: CancellationToken,
}

impl Plain {
    async fn start(name: &'static str, ip: &str) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let (address, end) = (listener.local_addr().unwrap(), CancellationToken::new());
        let stop = end.clone();
        tokio::spawn(async move {
            while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                let talk = service_fn(move |request: Request<hyper::body::Incoming>| async move {
                    Ok::<_, Infallible>(said(name, request).await)
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), talk);
                tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
            }
        });
        Self { address, end }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

async fn said(name: &str, request: Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    let header = |name: &str| request.headers().get(name).map_or("-", |v| v.to_str().unwrap()).to_owned();
    let (host, prefix, user) = (header("host"), header("x-forwarded-prefix"), header("x-user"));
    let code = header("x-code");
    let (path, method, key) = (request.uri().to_string(), request.method().clone(), header("x-key"));
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::from(format!("{name} {method} {host} {path} {prefix} {user} {code}\n")));
    // Whoever is asked whether somebody may pass.
    if path == "/check" && key != "open" {
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    }
    if path == "/missing" {
        *response.status_mut() = http::StatusCode::NOT_FOUND;
    }
    let headers = response.headers_mut();
    headers.insert("x-backend", http::HeaderValue::from_static("yes"));
    headers.insert("content-type", http::HeaderValue::from_static("text/plain"));
    response
}

/// One annotation: as nginx has it, as Atoll has it, and what is asked.
struct Case {
    name: &'static str,
    annotations: &'static [(&'static str, &'static str)],
    paths: &'static [(&'static str, &'static str)],
    /// What stands in nginx's server, `OLD` and `NEW` for the backends.
    server: &'static str,
    /// Method and target, headers.
    asked: &'static [(&'static str, &'static [(&'static str, &'static str)])],
    times: usize,
}

const ROOT: &[(&str, &str)] = &[("/", "Prefix")];
const ALL: &str = "location / { proxy_pass http://OLD; }";

const CASES: &[Case] = &[
    Case {
        name: "plain",
        annotations: &[],
        paths: ROOT,
        server: ALL,
        asked: &[("GET /a/b?c=d", &[]), ("HEAD /", &[])],
        times: 1,
    },
    Case {
        name: "types",
        annotations: &[],
        paths: &[("/a", "Prefix"), ("/e", "Exact"), ("/i", "ImplementationSpecific")],
        server: "location /a/ { proxy_pass http://OLD; } location = /a { proxy_pass http://OLD; } location = /e { proxy_pass http://OLD; } \
            location /i { proxy_pass http://OLD; } location / { return 404; }",
        asked: &[
            ("GET /a", &[]),
            ("GET /a/", &[]),
            ("GET /a/b", &[]),
            ("GET /ab", &[]),
            ("GET /e", &[]),
            ("GET /e/", &[]),
            ("GET /i", &[]),
            ("GET /ij", &[]),
            ("GET /", &[]),
        ],
        times: 1,
    },
    Case {
        name: "rewrite",
        annotations: &[("rewrite-target", "/$2")],
        paths: &[("/api(/|$)(.*)", "ImplementationSpecific")],
        server: "location ~* \"^/api(/|$)(.*)\" { rewrite \"(?i)/api(/|$)(.*)\" /$2 break; proxy_pass http://OLD; } location / { return 404; }",
        asked: &[
            ("GET /api", &[]),
            ("GET /api/x/y?q=1", &[]),
            ("GET /API/x", &[]),
            ("GET /apix", &[]),
            ("GET /x", &[]),
        ],
        times: 1,
    },
    Case {
        name: "regex",
        annotations: &[("use-regex", "true")],
        paths: &[("/v[0-9]+", "ImplementationSpecific"), ("/v1/long", "Prefix")],
        server: "location ~* \"^/v[0-9]+\" { proxy_pass http://OLD; } location / { return 404; }",
        asked: &[("GET /v12/x", &[]), ("GET /V1", &[]), ("GET /v", &[]), ("GET /v1/longer", &[])],
        times: 1,
    },
    Case {
        name: "app-root",
        annotations: &[("app-root", "/app")],
        paths: ROOT,
        server: "location / { if ($uri = /) { return 302 $scheme://$http_host/app; } proxy_pass http://OLD; }",
        asked: &[("GET /", &[]), ("GET /?a=b", &[]), ("GET /x", &[])],
        times: 1,
    },
    Case {
        name: "permanent",
        annotations: &[("permanent-redirect", "https://b.test/x")],
        paths: ROOT,
        server: "location / { return 301 https://b.test/x; }",
        asked: &[("GET /", &[]), ("GET /y?z=1", &[])],
        times: 1,
    },
    Case {
        name: "temporal",
        annotations: &[("temporal-redirect", "https://b.test$request_uri")],
        paths: ROOT,
        server: "location / { return 302 https://b.test$request_uri; }",
        asked: &[("GET /y?z=1", &[])],
        times: 1,
    },
    Case {
        name: "force-ssl",
        annotations: &[("force-ssl-redirect", "true")],
        paths: ROOT,
        server: "location / { return 308 https://$host$request_uri; }",
        asked: &[("GET /y?z=1", &[])],
        times: 1,
    },
    Case {
        name: "allowed",
        annotations: &[("whitelist-source-range", "127.0.0.1/32")],
        paths: ROOT,
        server: "location / { allow 127.0.0.1/32; deny all; proxy_pass http://OLD; }",
        asked: &[("GET /", &[])],
        times: 1,
    },
    Case {
        name: "not-allowed",
        annotations: &[("whitelist-source-range", "10.0.0.0/8")],
        paths: ROOT,
        server: "location / { allow 10.0.0.0/8; deny all; proxy_pass http://OLD; }",
        asked: &[("GET /", &[])],
        times: 1,
    },
    Case {
        name: "denied",
        annotations: &[("denylist-source-range", "127.0.0.0/8")],
        paths: ROOT,
        server: "location / { deny 127.0.0.0/8; proxy_pass http://OLD; }",
        asked: &[("GET /", &[])],
        times: 1,
    },
    Case {
        name: "basic",
        annotations: &[("auth-type", "basic"), ("auth-secret", "users")],
        paths: ROOT,
        server: "location / { auth_basic atoll; auth_basic_user_file users; proxy_pass http://OLD; }",
        asked: &[("GET /", &[("authorization", "Basic YW5uOnB3")])],
        times: 1,
    },
    Case {
        name: "external",
        annotations: &[("auth-url", "http://AUTH/check")],
        paths: ROOT,
        server: "location / { auth_request /check; proxy_pass http://OLD; } location = /check { internal; proxy_pass http://OLD/check; \
            proxy_pass_request_body off; proxy_set_header Content-Length \"\"; }",
        asked: &[("GET /x", &[("x-key", "open")])],
        times: 1,
    },
    Case {
        name: "limit",
        annotations: &[("limit-rps", "2")],
        paths: ROOT,
        server: "location / { limit_req zone=two burst=10 nodelay; proxy_pass http://OLD; }",
        asked: &[("GET /", &[])],
        times: 30,
    },
    Case {
        name: "size",
        annotations: &[("proxy-body-size", "4")],
        paths: ROOT,
        server: "location / { client_max_body_size 4; proxy_pass http://OLD; }",
        asked: &[("POST /", &[])],
        times: 1,
    },
    Case {
        name: "vhost",
        annotations: &[("upstream-vhost", "inner.test"), ("x-forwarded-prefix", "/p")],
        paths: ROOT,
        server: "location / { proxy_set_header Host inner.test; proxy_set_header X-Forwarded-Prefix /p; proxy_pass http://OLD; }",
        asked: &[("GET /", &[])],
        times: 1,
    },
    Case {
        name: "affinity",
        annotations: &[("affinity", "cookie")],
        paths: ROOT,
        server: "location / { add_header Set-Cookie \"INGRESSCOOKIE=1; Path=/; HttpOnly\"; proxy_pass http://OLD; }",
        asked: &[("GET /", &[])],
        times: 1,
    },
    Case {
        name: "affinity-life",
        annotations: &[("affinity", "cookie"), ("session-cookie-name", "sid"), ("session-cookie-max-age", "3600")],
        paths: ROOT,
        server: "location / { add_header Set-Cookie \"sid=1; Max-Age=3600; Path=/; HttpOnly\"; proxy_pass http://OLD; }",
        asked: &[("GET /", &[])],
        times: 1,
    },
    Case {
        name: "alias",
        annotations: &[("server-alias", "also.shadow.test")],
        paths: ROOT,
        server: "server_name also.shadow.test; location / { proxy_pass http://OLD; }",
        asked: &[("GET /", &[])],
        times: 1,
    },
    Case {
        name: "errors",
        annotations: &[("custom-http-errors", "404"), ("default-backend", "new")],
        paths: ROOT,
        server: "location / { proxy_intercept_errors on; error_page 404 = @told; proxy_pass http://OLD; } location @told { internal; \
            proxy_intercept_errors off; proxy_set_header Host $host; proxy_set_header X-Code 404; rewrite (.*) / break; proxy_pass http://NEW; }",
        asked: &[("GET /", &[]), ("GET /missing", &[]), ("HEAD /missing", &[])],
        times: 1,
    },
    Case {
        name: "stand-in",
        annotations: &[("default-backend", "new")],
        paths: ROOT,
        server: "location / { proxy_pass http://NEW; }",
        asked: &[("GET /x?y=z", &[])],
        times: 1,
    },
    Case {
        name: "weight",
        annotations: &[],
        paths: ROOT,
        server: "location / { proxy_pass http://$weighed; }",
        asked: &[("GET /", &[])],
        times: 300,
    },
    Case {
        name: "header",
        annotations: &[],
        paths: ROOT,
        server: "location / { proxy_pass http://$by_header; }",
        asked: &[("GET /", &[("x-canary", "always")]), ("GET /", &[("x-canary", "never")]), ("GET /", &[])],
        times: 1,
    },
    Case {
        name: "cookie",
        annotations: &[],
        paths: ROOT,
        server: "location / { proxy_pass http://$by_cookie; }",
        asked: &[("GET /", &[("cookie", "a=b; c=always")]), ("GET /", &[("cookie", "c=never")]), ("GET /", &[])],
        times: 1,
    },
];

/// What the canaries of cases have.
const CANARIES: &[(&str, &[(&str, &str)])] = &[
    ("weight", &[("canary", "true"), ("canary-weight", "20")]),
    ("header", &[("canary", "true"), ("canary-by-header", "x-canary")]),
    ("cookie", &[("canary", "true"), ("canary-by-cookie", "c")]),
];

fn configuration(port: u16, old: SocketAddr, new: SocketAddr) -> String {
    let mut text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr crit; user root; events {{ worker_connections 256; }}\n\
        http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
        server_tokens off; proxy_set_header Host $host; proxy_http_version 1.1; server_names_hash_bucket_size 128;\n\
        limit_req_zone $binary_remote_addr zone=two:1m rate=2r/s;\n\
        split_clients $request_id $weighed {{ 20% {new}; * {old}; }}\n\
        map $http_x_canary $by_header {{ always {new}; default {old}; }}\n\
        map $cookie_c $by_cookie {{ always {new}; default {old}; }}\n"
    );
    for case in CASES {
        let server = case.server.replace("OLD", &old.to_string()).replace("NEW", &new.to_string());
        let _ = writeln!(text, "server {{ listen 127.0.0.1:{port}; server_name {}.shadow.test; {server} }}", case.name);
    }
    text + "}\n"
}

fn records() -> Vec<Record> {
    let of = |case: &Case, (asked, headers): &(&str, &[(&str, &str)])| {
        let (method, target) = asked.split_once(' ').unwrap();
        Record {
            method: method.to_owned(),
            host: format!("{}.shadow.test", if case.name == "alias" { "also" } else { case.name }),
            target: target.to_owned(),
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            body: if method == "POST" { "12345".to_owned() } else { String::new() },
        }
    };
    CASES
        .iter()
        .flat_map(|case| case.asked.iter().flat_map(move |asked| std::iter::repeat_n(of(case, asked), case.times)))
        .collect()
}

#[tokio::test]
async fn real_nginx_and_atoll_answer_the_same() {
    let (old, new) = (Plain::start("old", "127.42.0.1").await, Plain::start("new", "127.42.0.2").await);
    let world = World::start().await;
    world.publish(topology(&[]), true);
    for object in service("old", &Pod::named(old.address)).into_iter().chain(service("new", &Pod::named(new.address))) {
        world.apply(object).await;
    }
    let [mut none, _] = service("none", &Pod::named(old.address));
    none["metadata"]["name"] = json!("none");
    world.apply(none).await;
    world.apply(secret("users", &[("auth", USERS)])).await;
    let auth = old.address.to_string();
    for case in CASES {
        let annotations: Vec<(&str, String)> =
            case.annotations.iter().map(|(n, v)| (*n, v.replace("AUTH", &auth))).collect();
        let annotations: Vec<(&str, &str)> = annotations.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let service = if case.name == "stand-in" { "none" } else { "old" };
        world.apply(ingress(case.name, &format!("{}.shadow.test", case.name), service, &annotations, case.paths)).await;
    }
    for (name, annotations) in CANARIES {
        let at = format!("{name}.shadow.test");
        world.apply(ingress(&format!("{name}-canary"), &at, "new", annotations, ROOT)).await;
    }
    // The last of all is there.
    let last = || crate::client::request("cookie.shadow.test", "GET /", &[("cookie", "c=always")], "");
    let mut tries = 0;
    while !crate::client::send(world.http, last()).await.body.starts_with("new") {
        tries += 1;
        assert!(tries < 500, "the canary is not served");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let place = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    std::fs::write(place.path().join("nginx.conf"), configuration(port, old.address, new.address)).unwrap();
    std::fs::write(place.path().join("users"), USERS).unwrap();
    let mut nginx = tokio::process::Command::new("nginx")
        .args(["-p", &place.path().display().to_string(), "-c", "nginx.conf", "-e", "stderr"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nginx is installed");
    let mut tries = 0;
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tries += 1;
        assert!(tries < 500 && nginx.try_wait().unwrap().is_none(), "nginx does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let connect: Arc<dyn Connect> = Arc::new(System::new(Duration::from_secs(5)));
    let sides = (("127.0.0.1".to_owned(), port), ("127.0.0.1".to_owned(), world.http.port()));
    let all = records();
    let safe: Report = shadow(&connect, all.clone(), &sides.0, &sides.1, false).await;
    assert_eq!((safe.left_out, safe.replayed + 1), (1, all.len()), "a POST is sent only when asked for");
    assert!(safe.differences.is_empty(), "{}", serde_json::to_string_pretty(&json!(safe.differences)).unwrap());
    let posts: Vec<Record> = all.into_iter().filter(|record| record.method == "POST").collect();
    let posted = shadow(&connect, posts, &sides.0, &sides.1, true).await;
    assert!(posted.differences.is_empty() && posted.replayed == 1, "{:?}", posted.differences);
    nginx.start_kill().unwrap();
    nginx.wait().await.unwrap();
}

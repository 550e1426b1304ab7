//! HTTP in, HTTP out. One straight line: read → who → where → may they → do → answer.
//! In: a request and the user behind it; out: a response, always, also for what makes no sense.

pub(crate) mod accept;
mod body;
mod options;
mod target;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

pub(crate) use self::{
    accept::View,
    body::{Body, full, read_body},
    options::{Options, Validation, decode, yaml},
    target::Target,
};
use crate::{
    config::User,
    discovery, openapi,
    rbac::{self, Ask},
    refusal::Refusal,
    server::Inner,
    verbs::{self, Call},
};

/// What a verb answers with.
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) content: &'static str,
    pub(crate) body: Body,
    pub(crate) warnings: Vec<String>,
    pub(crate) etag: Option<String>,
}

impl Reply {
    pub(crate) fn json(code: u16, value: &Value) -> Self {
        Self::bytes(code, Bytes::from(value.to_string()))
    }

    pub(crate) fn bytes(code: u16, bytes: Bytes) -> Self {
        Self { code, content: "application/json", body: full(bytes), warnings: Vec::new(), etag: None }
    }

    pub(crate) fn text(text: &'static str) -> Self {
        Self { content: "text/plain; charset=utf-8", ..Self::bytes(200, Bytes::from_static(text.as_bytes())) }
    }
}

/// Serves one request for a user who is known.
pub(crate) async fn handle<B>(server: &Arc<Inner>, user: User, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: std::fmt::Display,
{
    let reply =
        serve(server, user, request).await.unwrap_or_else(|refusal| Reply::json(refusal.code, &refusal.to_value()));
    let mut response = Response::builder()
        .status(StatusCode::from_u16(reply.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        .header(header::CONTENT_TYPE, reply.content)
        .header(header::CACHE_CONTROL, "no-cache, private");
    if let Some(etag) = &reply.etag {
        response = response.header(header::ETAG, etag).header(header::VARY, "Accept");
    }
    for warning in &reply.warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        response = response.header(header::WARNING, format!("299 - \"{quoted}\""));
    }
    response.body(reply.body).unwrap_or_else(|_| Response::new(full(Bytes::new())))
}

async fn serve<B>(server: &Arc<Inner>, user: User, request: Request<B>) -> Result<Reply, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: std::fmt::Display,
{
    let (head, body) = request.into_parts();
    let user = impersonated(server, user, &head.headers)?;
    let query = head.uri.query().unwrap_or_default();
    let options = Options::parse(query)?;
    let path = head.uri.path();
    let Some(target) = Target::parse(&server.kinds(), path) else {
        rbac::allow(server, &user, &ask_unstored(&head.method, path))?;
        return unstored(server, &user, &head.method, path, &head.headers, body).await;
    };
    let verb = target.verb(&head.method, &options)?;
    rbac::allow(server, &user, &target.ask(verb))?;
    let media = content_type(&head.headers);
    let bytes = match head.method {
        Method::GET | Method::HEAD => Bytes::new(),
        _ => read_body(body, server.config.body_bytes_max).await?,
    };
    let agent = head.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("unknown");
    let view = View::of(&head.headers);
    let call = Call { server, user: &user, target: &target, options: &options, view, agent };
    match verb {
        "get" => verbs::get(&call),
        "list" => verbs::list(&call),
        "watch" => verbs::watch(&call),
        "create" => verbs::create(&call, decode(&media, &bytes)?).await,
        "update" => verbs::update(&call, decode(&media, &bytes)?).await,
        "patch" => verbs::patch(&call, &media, &bytes).await,
        "delete" => verbs::delete(&call, &media, &bytes).await,
        "deletecollection" => verbs::delete_collection(&call, &media, &bytes).await,
        _ => Err(Refusal::method_not_allowed(path)),
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Who the request is to be carried out as.
fn impersonated(server: &Arc<Inner>, user: User, headers: &HeaderMap) -> Result<User, Refusal> {
    let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
    let Some(name) = headers.get("impersonate-user").map(text) else { return Ok(user) };
    let groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect();
    let ask = |resource: &'static str, name: &str| Ask {
        verb: "impersonate".into(),
        resource: resource.into(),
        name: name.into(),
        ..Ask::default()
    };
    rbac::allow(server, &user, &ask("users", &name))?;
    for group in &groups {
        rbac::allow(server, &user, &ask("groups", group))?;
    }
    Ok(User { name, groups })
}

/// What RBAC is asked for a path that is no stored object: reviews are resources all the same.
fn ask_unstored(method: &Method, path: &str) -> Ask {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["apis", group, "v1", scope @ .., review] if method == Method::POST && review.ends_with("reviews") => {
            let namespace = if let ["namespaces", namespace] = scope { *namespace } else { "" };
            Ask {
                verb: "create".into(),
                group: (*group).into(),
                resource: (*review).into(),
                namespace: namespace.into(),
                ..Ask::default()
            }
        }
        _ => Ask::path(&method.as_str().to_lowercase(), path),
    }
}

/// Paths that aren't stored objects: discovery, schemas, health, reviews.
async fn unstored<B>(
    server: &Arc<Inner>,
    user: &User,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: B,
) -> Result<Reply, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: std::fmt::Display,
{
    if method == Method::POST {
        let bytes = read_body(body, server.config.body_bytes_max).await?;
        return rbac::review(server, user, path, &decode(&content_type(headers), &bytes)?);
    }
    if method != Method::GET && method != Method::HEAD {
        return Err(Refusal::method_not_allowed(path));
    }
    match path {
        "/healthz" | "/livez" | "/readyz" => Ok(Reply::text("ok")),
        "/version" | "/version/" => Ok(Reply::json(200, &version(&server.config.version_git))),
        "/snapshot" => snapshot(server).await,
        _ => match openapi::serve(server, path, headers) {
            Some(reply) => reply,
            None => discovery::serve(&server.kinds(), path, headers),
        },
    }
}

/// Everything, as a data file. It holds every Secret: RBAC gives this path to administrators alone.
async fn snapshot(server: &Arc<Inner>) -> Result<Reply, Refusal> {
    let server = server.clone();
    let made = tokio::task::spawn_blocking(move || server.store.snapshot_bytes().map_err(|why| why.to_string()));
    let made = made.await.map_err(|why| why.to_string()).flatten();
    let bytes = made.map_err(|why| Refusal::internal(format!("the snapshot can't be made: {why}")))?;
    Ok(Reply { content: "application/octet-stream", ..Reply::bytes(200, bytes.into()) })
}

fn version(git: &str) -> Value {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut parts = git.trim_start_matches('v').split(['.', '+', '-']);
    let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("34"));
    json!({
        "major": major, "minor": minor, "gitVersion": git, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2025-08-27T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{arch}", std::env::consts::OS),
    })
}

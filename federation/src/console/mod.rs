//! The console: one page that shows how everything does now, and the same as JSON. It reads, and never changes anything.
//!
//! ```text
//!   objects, sessions, topology, view ─► state (pure but for reading memory) ─► page (HTML) | /api/v1/state (JSON)
//! ```
//! Plain HTTP for loopback, or behind something that authenticates. On loopback a request must also name a loopback host, so that
//! a page of somebody else's can't read it by DNS rebinding. Nothing is loaded from elsewhere, and the page may run only our script.

mod page;
mod state;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::{Accept, serve_http};
use axum::extract::{Request, State as Shared};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::membership::Membership;
use crate::resources::{DataPlaneView, Hub};
use state::State;

/// DNS and gateway are not waited for longer than this.
const ANSWERS_MAX: Duration = Duration::from_secs(2);
const CONNECTIONS_MAX: usize = 256;
/// Browsers load these by name, so that the page needs no inline script or style.
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What the console reads.
pub(crate) struct Console {
    pub(crate) membership: Arc<Membership>,
    pub(crate) view: Arc<dyn DataPlaneView>,
    pub(crate) hub: Hub,
    pub(crate) config: Arc<Config>,
}

impl Console {
    /// Serves `listener` until `shutdown`.
    pub(crate) async fn run(self, mut listener: Box<dyn Accept>, shutdown: CancellationToken) {
        let at = listener.local_addr();
        let routes = routes(Arc::new(self), at);
        serve_http(&mut *listener, None, routes, CONNECTIONS_MAX, shutdown).await;
    }

    async fn look(&self) -> State {
        let answers = tokio::time::timeout(ANSWERS_MAX, self.view.answers()).await.ok();
        State::gather(self, answers, Timestamp::now())
    }
}

fn routes(console: Arc<Console>, at: SocketAddr) -> Router {
    Router::new()
        .route("/", get(async |Shared(c): Shared<Arc<Console>>| Html(page::whole(&c.look().await))))
        .route("/fragment", get(async |Shared(c): Shared<Arc<Console>>| Html(page::fragment(&c.look().await))))
        .route("/api/v1/state", get(async |Shared(c): Shared<Arc<Console>>| Json(c.look().await)))
        .route("/page.css", get(|| async { ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE) }))
        .route("/page.js", get(|| async { ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT) }))
        .with_state(console)
        .layer(from_fn_with_state(at, guard))
}

/// Whom the request names, and what browsers may do with the answer.
async fn guard(Shared(at): Shared<SocketAddr>, request: Request, next: Next) -> Response {
    let named = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
    let named = named.or_else(|| request.uri().authority().map(|a| a.to_string())).unwrap_or_default();
    if at.ip().is_loopback() && !is_loopback(&named) {
        let why = format!(
            "the console listens on {at} and answers only to a loopback address or `localhost`, not to `{named}`\n"
        );
        return (StatusCode::MISDIRECTED_REQUEST, why).into_response();
    }
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// `localhost`, `*.localhost` or a loopback address, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_a_loopback_name_is_answered_on_loopback() {
        for (host, fits) in [
            ("localhost:8090", true),
            ("127.0.0.1:8090", true),
            ("127.8.0.1", true),
            ("[::1]:8090", true),
            ("atoll.localhost:8090", true),
            ("evil.example", false),
            ("evil.example:8090", false),
            ("localhost.evil.example", false),
            ("10.0.0.1:8090", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(host), fits, "{host}");
        }
    }
}

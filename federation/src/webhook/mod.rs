//! Who asked and who voted, on a real API server: its mutating webhook, as which the hub stamps the authenticated user.
//!
//! ```text
//!   API server ══ TLS by the hub's CA ══► review (pure) ─► patch | refusal
//!   hub ─► register: MutatingWebhookConfiguration (failurePolicy Fail), ValidatingAdmissionPolicy and its binding
//! ```
//! The policy is the guard: the API server itself refuses what is not stamped as the webhook would stamp it, so that neither another
//! webhook nor one taken away lets anybody speak for others. The embedded API server does the same without any of this.

mod register;
mod review;

use std::time::Duration;

use atoll_reach::{Accept, ClientAuth, TlsIdentity, serve_http};
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{StatusCode, header};
use kube::Client;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::config::WebhookTarget;

/// The path that reviews are posted to.
const PATH: &str = "/stamp";
/// A review holds two objects of at most 1.5 MiB each (etcd's limit).
const REVIEW_BYTES_MAX: usize = 4 << 20;
const CONNECTIONS_MAX: usize = 1024;
/// What we registered is looked at so often, and written again where somebody changed it.
const KEPT_EVERY: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_secs(2);

/// The webhook of one hub.
pub(crate) struct Webhook {
    pub(crate) client: Client,
    pub(crate) target: WebhookTarget,
    pub(crate) ca_pem: String,
    pub(crate) tls: TlsIdentity,
}

impl Webhook {
    /// Serves reviews on `listener` and keeps the registration right until `shutdown`. `registered` hears when it first is.
    pub(crate) async fn run(
        self,
        mut listener: Box<dyn Accept>,
        registered: oneshot::Sender<()>,
        shutdown: CancellationToken,
    ) {
        let tls = self.tls.server(ClientAuth::None, &[b"h2", b"http/1.1"]);
        tokio::join!(
            serve_http(&mut *listener, Some(tls), routes(), CONNECTIONS_MAX, shutdown.clone()),
            shutdown.run_until_cancelled(self.keep(registered)),
        );
    }

    async fn keep(&self, registered: oneshot::Sender<()>) {
        let mut registered = Some(registered);
        loop {
            match register::apply(&self.client, &self.target, &self.ca_pem).await {
                Ok(()) => {
                    if let Some(registered) = registered.take() {
                        let _ = registered.send(());
                    }
                    tokio::time::sleep(KEPT_EVERY).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "webhook not registered, requests and votes are refused until it is");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Names under which the API server calls `target`, for the certificate.
pub(crate) fn names(target: &WebhookTarget) -> Vec<String> {
    match target {
        WebhookTarget::Url(url) => {
            let uri = url.parse::<http::Uri>().ok();
            uri.and_then(|u| u.host().map(|h| h.trim_matches(['[', ']']).to_owned())).into_iter().collect()
        }
        WebhookTarget::Service(namespace, name, _) => {
            vec![format!("{name}.{namespace}.svc"), format!("{name}.{namespace}.svc.cluster.local")]
        }
    }
}

fn routes() -> Router {
    Router::new()
        .route(PATH, post(answer))
        .route("/healthz", get(async || "ok\n"))
        .layer(DefaultBodyLimit::max(REVIEW_BYTES_MAX))
}

async fn answer(body: Bytes) -> Response {
    match review::answer(&body) {
        Ok(review) => ([(header::CONTENT_TYPE, "application/json")], review.to_string()).into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, format!("admission review: {why}\n")).into_response(),
    }
}

/// Whether a webhook that is configured can be served.
///
/// # Errors
/// When only one of what it needs is there.
pub(crate) fn check(target: Option<&WebhookTarget>, has_port: bool) -> Result<(), crate::Error> {
    match (target.is_some(), has_port) {
        (true, false) => Err(crate::Error::Webhook("it is to be registered, but has no port to listen on")),
        (false, true) => Err(crate::Error::Webhook("it has a port, but nobody says where the API server finds it")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_for_the_name_that_the_api_server_calls() {
        for (target, name) in [
            (WebhookTarget::Url("https://10.203.0.1:9443".into()), "10.203.0.1"),
            (WebhookTarget::Url("https://[fd00::1]:9443".into()), "fd00::1"),
            (WebhookTarget::Url("https://hub.example".into()), "hub.example"),
            (WebhookTarget::Service("atoll-system".into(), "atoll-hub".into(), 9443), "atoll-hub.atoll-system.svc"),
        ] {
            assert_eq!(names(&target)[0], name);
        }
    }
}

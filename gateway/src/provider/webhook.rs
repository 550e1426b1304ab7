//! A balancer behind a webhook: the desired state is posted whole as JSON over HTTPS, the answer says by field what of it is not done.
//!
//! In: the desired state, a Secret with whom to trust and who we are. Out: the answer. Anything but 200 (and 409: it has a newer generation) is a
//! failure, told with the first octets of what was said. Never: sends a key without TLS. The schema: `atoll_api::provider`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::provider::{Answer, Push};
use atoll_reach::Connect;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Drive, Links, Settings};

pub(super) const DRIVER: &str = "webhook";

/// Connect, handshake, question and answer.
const ASKED_MAX: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Of an answer that is none so much is shown.
const SHOWN_MAX: usize = 200;

/// What the configuration says of one.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Told {
    /// https://…
    url: String,
    /// `namespace/name` of a Secret: `token` (sent as bearer), `ca.crt` (whom to trust; absent: whom the machine does), `tls.crt` and `tls.key`
    /// (who we are).
    #[serde(default)]
    secret: Option<String>,
}

struct Webhook {
    uri: Uri,
    secret: Option<(String, String)>,
    connect: Arc<dyn Connect>,
    client: Client,
    roots: Arc<RootCertStore>,
}

/// # Errors
/// What of the configuration makes no sense.
pub(super) fn check(settings: &Value) -> Result<(), String> {
    told(settings).map(drop)
}

fn told(settings: &Value) -> Result<(Uri, Option<(String, String)>), String> {
    let told: Told = serde_json::from_value(settings.clone()).map_err(|error| error.to_string())?;
    let uri: Uri = told.url.parse().map_err(|_| format!("url: `{}` is no URL", told.url))?;
    if uri.scheme_str() != Some("https") || uri.host().is_none() {
        return Err(format!("url: `{}`: keys of certificates are sent there, so it is https://", told.url));
    }
    let named = |said: String| {
        let (namespace, name) =
            said.split_once('/').ok_or_else(|| format!("secret: `{said}` is not namespace/name"))?;
        Ok::<_, String>((namespace.to_owned(), name.to_owned()))
    };
    Ok((uri, told.secret.map(named).transpose()?))
}

/// # Errors
/// As [`check`].
pub(super) fn make(settings: &Settings, links: &Links) -> Result<Box<dyn Drive>, String> {
    let (uri, secret) = told(&settings.settings)?;
    let Links { connect, client, roots } = links.clone();
    Ok(Box::new(Webhook { uri, secret, connect, client, roots }))
}

#[async_trait]
impl Drive for Webhook {
    async fn push(&mut self, push: &Push) -> Result<Answer, String> {
        let asked = timeout(ASKED_MAX, self.ask(push)).await;
        asked.unwrap_or_else(|_| Err("no answer in time".to_owned())).map_err(|why| format!("{}: {why}", self.uri))
    }
}

/// Who we are, and whom we trust.
struct Keys {
    token: Option<String>,
    tls: ClientConfig,
}

impl Webhook {
    async fn ask(&self, push: &Push) -> Result<Answer, String> {
        let Keys { token, tls } = self.keys().await?;
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let stream = self.connect.connect(&host, self.uri.port_u16().unwrap_or(443)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let stream =
            TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let body = serde_json::to_vec(push).map_err(|error| error.to_string())?;
        let target = self.uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::post(target)
            .header(header::HOST, self.uri.authority().map_or("", |a| a.as_str()))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| whole(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok::<_, String>((status, body.map_err(|error| whole(&*error))?.to_bytes()))
        };
        // The connection lives as long as the exchange, and no longer.
        let driven = async {
            let _ = connection.await;
            std::future::pending::<std::convert::Infallible>().await
        };
        let (status, said) = tokio::select! {
            exchanged = exchange => exchanged?,
            never = driven => match never {},
        };
        read(status, &said)
    }

    /// Read each time: they are renewed.
    async fn keys(&self) -> Result<Keys, String> {
        let mut data = BTreeMap::new();
        if let Some((namespace, name)) = &self.secret {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            let secret = api.get(name).await.map_err(|error| format!("Secret `{namespace}/{name}`: {error}"))?;
            data = secret.data.unwrap_or_default();
        }
        let bad = |key: &str, error: &dyn std::fmt::Display| format!("{key} of the Secret: {error}");
        let roots = match data.get("ca.crt") {
            None => Arc::clone(&self.roots),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for one in CertificateDer::pem_slice_iter(&pem.0) {
                    let one = one.map_err(|error| bad("ca.crt", &error))?;
                    roots.add(one).map_err(|error| bad("ca.crt", &error))?;
                }
                Arc::new(roots)
            }
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?.with_root_certificates(roots);
        let tls = match (data.get("tls.crt"), data.get("tls.key")) {
            (Some(chain), Some(key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain.0).collect();
                let chain = chain.map_err(|error| bad("tls.crt", &error))?;
                let key = PrivateKeyDer::from_pem_slice(&key.0).map_err(|error| bad("tls.key", &error))?;
                config.with_client_auth_cert(chain, key).map_err(|error| bad("tls.crt", &error))?
            }
            _ => config.with_no_client_auth(),
        };
        let token = data.get("token").and_then(|token| String::from_utf8(token.0.clone()).ok());
        Ok(Keys { token: token.map(|token| token.trim().to_owned()), tls })
    }
}

/// An error with its causes: that a certificate is asked for stands in the last of them.
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What an answer means.
fn read(status: StatusCode, said: &[u8]) -> Result<Answer, String> {
    let shown = || String::from_utf8_lossy(said).chars().take(SHOWN_MAX).collect::<String>();
    match status {
        StatusCode::OK => {
            serde_json::from_slice(said).map_err(|error| format!("answers what is none: {error}: {}", shown()))
        }
        StatusCode::CONFLICT => Err(format!("it has a newer generation: {}", shown())),
        other => Err(format!("answers {other}: {}", shown())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_go_by_https_alone_and_answers_are_read_strictly() {
        for (settings, why) in [
            (json!({"url": "https://lb.test/v1", "secret": "infra/lb"}), ""),
            (json!({"url": "http://lb.test/v1"}), "so it is https://"),
            (json!({"url": "https://lb.test", "secret": "lb"}), "is not namespace/name"),
            (json!({"url": "https://lb.test", "colour": 1}), "colour"),
        ] {
            let said = check(&settings).err().unwrap_or_default();
            assert!(if why.is_empty() { said.is_empty() } else { said.contains(why) }, "{settings}: {said}");
        }
        for (status, said, fine) in [
            (200, r#"{"generation": 3}"#, true),
            (200, "ok", false),
            (409, r#"{"generation": 9}"#, false),
            (500, "", false),
        ] {
            let read = read(StatusCode::from_u16(status).unwrap(), said.as_bytes());
            assert_eq!(read.is_ok(), fine, "{status} {said}: {read:?}");
        }
    }
}

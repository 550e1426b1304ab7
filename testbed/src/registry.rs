//! A member's registry: its configuration and the push of our images. Pulling is containerd's and the agents' affair.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::image::{Blob, Image};

/// The user of every guarded registry.
pub const USER: &str = "atoll";
/// That user's password.
pub const PASSWORD: &str = "testbed";
/// The line for it in the registries' htpasswd file (bcrypt, the only kind they take).
pub(crate) const HTPASSWD: &str = "atoll:$2y$05$D7YOF.JB2Dxz9SNe8N3pvODM2.eMU/EtXyywKiMt76XeRsBIGeT/a\n";

/// Where a registry is and how to get in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// Host and port; plain HTTP.
    pub address: String,
    /// User and password, where it asks for them.
    pub credentials: Option<(String, String)>,
}

/// The program's configuration; both programs read the same.
pub(crate) fn config(storage: &str, listen: &str, htpasswd: Option<&str>) -> String {
    let mut config = json!({
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": storage}, "delete": {"enabled": true}},
        "http": {"addr": listen, "secret": "testbed"},
    });
    if let Some(path) = htpasswd {
        config["auth"] = json!({"htpasswd": {"realm": "testbed", "path": path}});
    }
    config.to_string()
}

impl Registry {
    /// Whether it answers; `Err` says what it did instead.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        let answer = self.call(Method::GET, "/v2/", &[], Vec::new()).await.map_err(|error| error.to_string())?;
        if answer.0 == StatusCode::OK { Ok(()) } else { Err(format!("{}: {}", self.address, answer.0)) }
    }

    /// Puts an image there under a repository and a tag.
    ///
    /// # Errors
    /// The registry can't be reached or refuses.
    pub async fn push(&self, image: &Image, repository: &str, tag: &str) -> Result<()> {
        for blob in [&image.layer, &image.config] {
            self.push_blob(repository, blob).await?;
        }
        let path = format!("/v2/{repository}/manifests/{tag}");
        let kind = [(header::CONTENT_TYPE, Image::media_type())];
        let (status, _) = self.call(Method::PUT, &path, &kind, image.manifest.bytes.clone()).await?;
        self.expect(status, StatusCode::CREATED, &path)
    }

    /// The digest that a tag stands for there, if it is there.
    ///
    /// # Errors
    /// The registry can't be reached or refuses.
    pub async fn digest(&self, repository: &str, tag: &str) -> Result<Option<String>> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let accept = [(
            header::ACCEPT,
            "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json",
        )];
        let (status, headers) = self.call(Method::HEAD, &path, &accept, Vec::new()).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.expect(status, StatusCode::OK, &path)?;
        Ok(headers.get("docker-content-digest").and_then(|digest| digest.to_str().ok()).map(str::to_owned))
    }

    async fn push_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let (status, _) =
            self.call(Method::HEAD, &format!("/v2/{repository}/blobs/{}", blob.digest), &[], Vec::new()).await?;
        if status == StatusCode::OK {
            return Ok(());
        }
        let start = format!("/v2/{repository}/blobs/uploads/");
        let (status, headers) = self.call(Method::POST, &start, &[], Vec::new()).await?;
        self.expect(status, StatusCode::ACCEPTED, &start)?;
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let path = location.strip_prefix(&format!("http://{}", self.address)).unwrap_or(location);
        let path = format!("{path}{}digest={}", if path.contains('?') { '&' } else { '?' }, blob.digest);
        let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
        let (status, _) = self.call(Method::PUT, &path, &kind, blob.bytes.clone()).await?;
        self.expect(status, StatusCode::CREATED, &path)
    }

    fn expect(&self, found: StatusCode, wanted: StatusCode, path: &str) -> Result<()> {
        if found == wanted {
            return Ok(());
        }
        Err(Error::Registry(format!("registry {}: {path} answered {found}, not {wanted}", self.address)))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Vec<u8>,
    ) -> Result<(StatusCode, header::HeaderMap)> {
        let failed = |error: String| Error::Registry(format!("registry {}: {path}: {error}", self.address));
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        if let Some((user, password)) = &self.credentials {
            let pair = STANDARD.encode(format!("{user}:{password}"));
            request = request.header(header::AUTHORIZATION, format!("Basic {pair}"));
        }
        let request = request.body(Full::from(body)).map_err(|error| failed(error.to_string()))?;
        let answer = client.request(request).await.map_err(|error| failed(error.to_string()))?;
        let (head, body) = answer.into_parts();
        body.collect().await.map_err(|error| failed(error.to_string()))?;
        Ok((head.status, head.headers))
    }
}

//! The hub's own API server, where no other is named: opened over its file, served, closed and opened again.
//!
//! In: a file and a listener. Out: a client that needs no socket, a kubeconfig for people, HTTPS for kubectl. The client outlives a stop:
//! while the server is stopped, calls fail as they do when an API server is down.

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwapOption;
use atoll_api::kinds::{GROUP, REQUESTER, SYSTEM_NAMESPACE, VOTER};
use atoll_apiserver::{ApiServer, Authority, Config, Context, Stamp, Storage, kubeconfig_of};
use http::Request;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::client::Body;
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The Secret with the authority that its listener and its users are certified by.
const AUTHORITY: &str = "atoll-api-ca";

/// Who gets a context in the kubeconfig: context, user, groups.
const PEOPLE: [(&str, &str, &[&str]); 3] = [
    ("atoll", "admin", &["system:masters"]),
    ("atoll-dev", "dev", &["developers"]),
    ("atoll-approver", "approver", &["approvers"]),
];

/// The server, while it runs.
struct Live {
    server: ApiServer,
    admin: Client,
}

/// An embedded API server that may be stopped and started.
pub(crate) struct Embedded {
    file: PathBuf,
    live: Arc<ArcSwapOption<Live>>,
}

impl Embedded {
    /// One over this file; not opened yet.
    pub(crate) fn over(file: PathBuf) -> Self {
        Self { file, live: Arc::default() }
    }

    /// Opens it, with every kind that a hub needs.
    ///
    /// # Errors
    /// The file is in use, foreign, corrupt, emptied or can't be written; the disk is full.
    pub(crate) async fn open(&self) -> anyhow::Result<()> {
        let stamp = |resource: &str, annotation: &str| Stamp {
            group: GROUP.to_owned(),
            resource: resource.to_owned(),
            annotation: annotation.to_owned(),
        };
        let stamps = vec![stamp("replicationrequests", REQUESTER), stamp("replicationapprovals", VOTER)];
        let config = Config { stamps, ..Config::default() };
        self.not_emptied()?;
        make_private(&self.file).with_context(|| format!("open {}", self.file.display()))?;
        let server = ApiServer::open(config, Storage::File(self.file.clone())).await.context("open the hub's store")?;
        tracing::debug!("store open");
        let admin = server.client();
        crate::crds::apply(&admin).await?;
        tracing::debug!("kinds served");
        self.live.store(Some(Arc::new(Live { server, admin })));
        Ok(())
    }

    /// An empty file is one to be made; but where people were given a kubeconfig for what it held, it has been cut off.
    fn not_emptied(&self) -> anyhow::Result<()> {
        let empty = std::fs::metadata(&self.file).is_ok_and(|file| file.is_file() && file.len() == 0);
        if empty && self.file.with_file_name("kubeconfig").exists() {
            let why = "is empty, although a hub has run on it; restore a snapshot (`atoll hub restore`), \
                or remove the file to begin anew without what it held";
            anyhow::bail!("data file `{}`: {why}", self.file.display());
        }
        Ok(())
    }

    /// Serves HTTPS under these names until `shutdown`, then closes the server.
    ///
    /// # Errors
    /// The listener fails for good, or the authority in the store is damaged.
    pub(crate) async fn serve(
        &self,
        listener: TcpListener,
        names: &[String],
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let live = self.live.load_full().ok_or_else(|| anyhow!("the API server is not open"))?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let tls = self.authority().await?.tls(&names).context("certificate of the API server")?;
        let served = live.server.serve(listener, tls, shutdown).await;
        self.close().await;
        Ok(served?)
    }

    /// Stops it: everything written is on disk then.
    pub(crate) async fn close(&self) {
        if let Some(live) = self.live.swap(None) {
            live.server.clone().close().await;
        }
    }

    /// Puts a snapshot in its place, with an epoch beyond all that were obeyed since the snapshot. The old file stays beside it.
    ///
    /// # Errors
    /// The snapshot is foreign or corrupt (nothing is changed then), or the store is in use.
    pub(crate) async fn restore(&self, snapshot: &Path) -> anyhow::Result<()> {
        ApiServer::restore(snapshot, &self.file).await?;
        make_private(&self.file).with_context(|| format!("make {} private", self.file.display()))?;
        self.open().await?;
        let moved = atoll_federation::pass_epochs(&self.client(), jiff::Timestamp::now()).await;
        self.close().await;
        Ok(moved?)
    }

    /// A client of the administrator's, for the hub and what runs beside it.
    pub(crate) fn client(&self) -> Client {
        let live = Arc::clone(&self.live);
        let service = tower::service_fn(move |request: Request<Body>| {
            let live = live.load_full();
            async move {
                let live = live.ok_or_else(|| std::io::Error::other("the hub's API server is stopped"))?;
                live.admin.send(request).await.map_err(std::io::Error::other)
            }
        });
        Client::new(service, "default")
    }

    /// A client as somebody else, of the server as it runs now.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn client_as(&self, user: &str, groups: &[&str]) -> anyhow::Result<Client> {
        let live = self.live.load_full().ok_or_else(|| anyhow!("the API server is not open"))?;
        Ok(live.server.client_as(user, groups))
    }

    /// A kubeconfig with a context for each of the administrator, a developer and an approver.
    ///
    /// # Errors
    /// When the authority in the store is damaged.
    pub(crate) async fn kubeconfig(&self, url: &str) -> anyhow::Result<String> {
        let authority = self.authority().await?;
        let users =
            PEOPLE.iter().map(|(_, user, groups)| authority.user(user, groups)).collect::<Result<Vec<_>, _>>()?;
        let contexts: Vec<Context<'_>> =
            PEOPLE.iter().zip(&users).map(|((name, user, _), identity)| Context { name, user, identity }).collect();
        Ok(kubeconfig_of(url, authority.ca_pem(), &contexts))
    }

    /// The authority that the store holds, made at the first call.
    async fn authority(&self) -> anyhow::Result<Authority> {
        let secrets: Api<Secret> = Api::namespaced(self.client(), SYSTEM_NAMESPACE);
        if let Some(secret) = secrets.get_opt(AUTHORITY).await.context("read the API server's authority")? {
            return stored(secret).with_context(|| format!("secret {SYSTEM_NAMESPACE}/{AUTHORITY}"));
        }
        let authority = Authority::new("atoll")?;
        let held = authority.identity();
        let data = [("tls.crt", &held.cert_pem), ("tls.key", &held.key_pem)];
        let data = data.map(|(key, pem)| (key.to_owned(), ByteString(pem.clone().into_bytes()))).into();
        let mut secret = Secret { data: Some(data), type_: Some("kubernetes.io/tls".into()), ..Secret::default() };
        secret.metadata.name = Some(AUTHORITY.into());
        match secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(authority),
            Err(kube::Error::Api(status)) if status.code == 409 => stored(secrets.get(AUTHORITY).await?),
            Err(error) => Err(error).context("keep the API server's authority"),
        }
    }
}

/// The store holds keys: nobody else may read it. An empty file is one that is not made yet.
fn make_private(file: &Path) -> std::io::Result<()> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    opened.set_permissions(std::fs::Permissions::from_mode(0o600))
}

fn stored(secret: Secret) -> anyhow::Result<Authority> {
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| -> anyhow::Result<String> {
        let bytes = data.get(key).ok_or_else(|| anyhow!("`{key}` is missing"))?;
        Ok(String::from_utf8(bytes.0.clone())?)
    };
    Ok(Authority::from_pem(&text("tls.crt")?, &text("tls.key")?)?)
}

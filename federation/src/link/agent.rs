//! What agents call: Enrol and Renew (a certificate), Open (the link).

use std::pin::Pin;
use std::sync::Arc;

use atoll_api::kinds::{Cluster, ClusterSpec};
use atoll_api::names::ClusterName;
use atoll_api::token::JoinToken;
use atoll_reach::{Role, Serial};
use atoll_wire::v1::{self, enrolment_server::Enrolment, link_server::Link};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client};
use serde_json::json;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::session::Session;
use crate::authority::{Authority, BadRequest, Issued};
use crate::error::is_conflict;
use crate::sessions::Sessions;
use crate::tokens::{TokenError, redeem};

/// Turns tokens into certificates, and certificates into newer ones.
pub(crate) struct EnrolmentService {
    pub(crate) authority: Arc<Authority>,
    pub(crate) client: Client,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) clusters: Store<Cluster>,
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let asked = request.into_inner();
        let now = Timestamp::now();
        let token: JoinToken = asked.token.parse().map_err(|e| refuse(&TokenError::Malformed(e)))?;
        let role = Role::Cluster(token.cluster.to_string());
        // The request is tried before the token is spent on it.
        let issued = self.authority.sign(&asked.csr_pem, &role, now).map_err(bad_request)?;
        let spec = redeem(&self.client, &token, now).await.map_err(|e| refuse(&e))?;
        self.make_cluster(&token.cluster, spec).await?;
        self.note(&token.cluster, issued.serial.clone(), issued.not_after).await;
        tracing::info!(cluster = %token.cluster, serial = %issued.serial, agent = asked.agent_version, "member enrolled");
        Ok(Response::new(self.answer(&token.cluster, issued)))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let (name, peer) = super::member(&request)?;
        if self.clusters.get(&ObjectRef::new(name.as_str())).is_none() {
            return Err(Status::permission_denied(format!("cluster `{name}` is no member any more")));
        }
        let asked = request.into_inner();
        let role = if asked.names { Role::Names(name.to_string()) } else { peer.role };
        let issued = self.authority.sign(&asked.csr_pem, &role, Timestamp::now()).map_err(bad_request)?;
        tracing::info!(%role, serial = %issued.serial, "certificate renewed");
        if let Some(member) = self.sessions.lock().get_mut(&name) {
            let now = Timestamp::now();
            member.issued.retain(|(_, until)| *until > now);
            member.issued.push((issued.serial.clone(), issued.not_after));
        }
        Ok(Response::new(self.answer(&name, issued)))
    }
}

impl EnrolmentService {
    async fn make_cluster(&self, name: &ClusterName, spec: ClusterSpec) -> Result<(), Status> {
        let clusters: Api<Cluster> = Api::all(self.client.clone());
        match clusters.create(&PostParams::default(), &Cluster::new(name.as_str(), spec)).await {
            Ok(_) => Ok(()),
            // The operator has written it before; that counts.
            Err(e) if is_conflict(&e) => Ok(()),
            Err(e) => Err(Status::unavailable(format!("cluster `{name}`: {e}; the token is spent, make another"))),
        }
    }

    /// Writes down the certificate, so that it is revoked with its member although no agent ever showed it.
    async fn note(&self, name: &ClusterName, serial: Serial, not_after: Timestamp) {
        let clusters: Api<Cluster> = Api::all(self.client.clone());
        let certificate = json!({"serial": serial.to_string(), "notAfter": not_after.to_string()});
        let patch = Patch::Merge(json!({"status": {"certificate": certificate}}));
        if let Err(error) = clusters.patch_status(name.as_str(), &PatchParams::default(), &patch).await {
            tracing::warn!(cluster = %name, %error, "certificate not written to the status");
        }
        // Only a member that our watch has seen can be seen to go.
        if appears(&self.clusters, name).await {
            self.sessions.lock().entry(name.clone()).or_default().issued.push((serial, not_after));
        }
    }

    fn answer(&self, name: &ClusterName, issued: Issued) -> v1::EnrolResponse {
        v1::EnrolResponse {
            name: name.to_string(),
            hub_id: self.authority.hub_id().to_owned(),
            certificate_pem: issued.chain_pem,
            ca_pem: self.authority.ca_pem().to_owned(),
        }
    }
}

fn refuse(error: &TokenError) -> Status {
    tracing::warn!(%error, "join refused");
    match error {
        TokenError::Malformed(_) | TokenError::Ttl(_) => Status::invalid_argument(error.to_string()),
        TokenError::Api(..) | TokenError::NoHub(_) => Status::unavailable(error.to_string()),
        TokenError::Used(..) | TokenError::Unknown(_) | TokenError::Expired(..) | TokenError::OtherName { .. } => {
            Status::permission_denied(error.to_string())
        }
    }
}

fn bad_request(error: BadRequest) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Opens links.
pub(crate) struct LinkService {
    pub(crate) hub_id: String,
    pub(crate) epoch: u64,
    pub(crate) heartbeat_ms: u32,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) clusters: Store<Cluster>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

#[tonic::async_trait]
impl Link for LinkService {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<v1::ToAgent, Status>> + Send>>;

    async fn open(&self, request: Request<Streaming<v1::FromAgent>>) -> Result<Response<Self::OpenStream>, Status> {
        let (name, peer) = super::member(&request)?;
        if !appears(&self.clusters, &name).await {
            return Err(Status::permission_denied(format!(
                "cluster `{name}` is no member: its Cluster object was deleted"
            )));
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let session = Session {
            name,
            peer,
            hub_id: self.hub_id.clone(),
            epoch: self.epoch,
            heartbeat_ms: self.heartbeat_ms,
            sessions: Arc::clone(&self.sessions),
            end: self.shutdown.child_token(),
        };
        self.tasks.spawn(session.run(request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Waits a little for our watch: an agent may be faster, whose Cluster was made a moment ago.
async fn appears(clusters: &Store<Cluster>, name: &ClusterName) -> bool {
    let mut left = 40;
    while left > 0 && clusters.get(&ObjectRef::new(name.as_str())).is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        left -= 1;
    }
    left > 0
}

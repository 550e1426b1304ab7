//! Enrolment: a token becomes a certificate.
//!
//! In: a join token, the hub's address. Out: credentials, stored in the member. The key is made here and never leaves;
//! the hub is known by the pin in the token before anything is sent to it. A member that is joined already keeps its name.

use std::io;

use atoll_api::token::JoinToken;
use atoll_reach::{ca_pin, pinned};
use atoll_wire::v1::enrolment_client::EnrolmentClient;
use atoll_wire::v1::{EnrolRequest, EnrolResponse};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::TlsConnector;

use crate::config::{Config, Resources};
use crate::credentials::Credentials;
use crate::error::AgentError;
use crate::hub;

/// Finds the member's credentials, or trades the token for them and stores them there.
///
/// # Errors
/// Without credentials and token; when the token is malformed, used, expired, or for another name than this member has;
/// when hub or member can't be reached (a retry helps: [`AgentError::is_transient`]).
pub async fn enrol(config: &Config, resources: &Resources) -> Result<Credentials, AgentError> {
    let token: Option<JoinToken> = config.token.as_deref().map(str::parse).transpose()?;
    if let Some(mut stored) = Credentials::load(&resources.client).await? {
        let usable = is_usable(&stored);
        match &token {
            Some(token) if token.cluster != stored.cluster => {
                return Err(AgentError::OtherName {
                    joined: stored.cluster.to_string(),
                    token: token.cluster.to_string(),
                });
            }
            // A token of another hub is a wish to move there; without one, what is stored counts.
            Some(token) if !usable || !is_of(&stored, token) => {}
            _ => {
                if !config.hub.is_empty() && config.hub != stored.hub {
                    stored.hub.clone_from(&config.hub);
                    stored.save(&resources.client).await?;
                }
                return Ok(stored);
            }
        }
    }
    let token = token.ok_or(AgentError::NoToken)?;
    let credentials = redeem(&token, config, resources).await?;
    credentials.save(&resources.client).await?;
    tracing::info!(cluster = %credentials.cluster, hub = credentials.hub, "joined");
    Ok(credentials)
}

/// Whether the certificate parses and has not run out.
fn is_usable(stored: &Credentials) -> bool {
    let now = std::time::SystemTime::from(jiff::Timestamp::now());
    stored.identity().is_ok_and(|identity| identity.bearer().not_after > now)
}

/// Whether the token is of the hub that the credentials are for.
fn is_of(stored: &Credentials, token: &JoinToken) -> bool {
    ca_of(&stored.ca_pem).is_some_and(|ca| ca_pin(&ca) == token.ca_pin)
}

async fn redeem(token: &JoinToken, config: &Config, resources: &Resources) -> Result<Credentials, AgentError> {
    let hub = config.hub.as_str();
    let (host, port) = hub::address(hub)?;
    let unreachable = |e: io::Error| AgentError::Unreachable { hub: hub.to_owned(), cause: e.to_string() };
    let tcp = resources.connect.connect(host, port).await.map_err(unreachable)?;
    let tls = TlsConnector::from(pinned(token.ca_pin, &[hub::GRPC_ALPN]));
    let name = rustls::pki_types::ServerName::try_from(host.to_owned())
        .map_err(|_| AgentError::Unreachable { hub: hub.to_owned(), cause: "not a host name".to_owned() })?;
    let stream = tokio::time::timeout(std::time::Duration::from_secs(10), tls.connect(name, tcp))
        .await
        .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
        .map_err(|e| if is_stranger(&e) { stranger(hub, token, &e) } else { unreachable(e) })?;
    let mut enrolment = EnrolmentClient::new(hub::over(Box::new(stream), hub).await?);
    let key = KeyPair::generate()?;
    let request = EnrolRequest {
        token: token.to_string(),
        csr_pem: csr(&key)?,
        agent_version: config.version.clone(),
        cluster_uid: cluster_uid(&resources.client).await,
    };
    let answer = hub::answer(hub, enrolment.enrol(request)).await?;
    accept(answer, token, &key, hub)
}

/// Whether TLS failed because of whose certificate it is.
fn is_stranger(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

fn stranger(hub: &str, token: &JoinToken, error: &io::Error) -> AgentError {
    AgentError::Stranger { hub: hub.to_owned(), cluster: token.cluster.to_string(), cause: error.to_string() }
}

/// A request for a certificate of this key. Its subject is ignored: the name comes from the token, or the old certificate.
pub(crate) fn csr(key: &KeyPair) -> Result<String, AgentError> {
    Ok(CertificateParams::default().serialize_request(key)?.pem()?)
}

/// Takes the hub's answer only if it is for the token's member and under the pinned CA.
fn accept(answer: EnrolResponse, token: &JoinToken, key: &KeyPair, hub: &str) -> Result<Credentials, AgentError> {
    let nonsense = |what: &str| AgentError::Nonsense { hub: hub.to_owned(), what: what.to_owned() };
    if answer.name != token.cluster.as_str() {
        return Err(nonsense("a certificate for another member"));
    }
    if ca_of(&answer.ca_pem).is_none_or(|ca| ca_pin(&ca) != token.ca_pin) {
        return Err(nonsense("a CA other than the token's"));
    }
    let credentials = Credentials {
        cluster: token.cluster.clone(),
        hub: hub.to_owned(),
        hub_id: answer.hub_id,
        chain_pem: answer.certificate_pem,
        key_pem: key.serialize_pem(),
        ca_pem: answer.ca_pem,
        epoch: 0,
        sites: Vec::new(),
    };
    credentials.parse().map_err(|why| nonsense(&why))?;
    Ok(credentials)
}

/// The first certificate of a PEM text, DER.
fn ca_of(pem: &str) -> Option<Vec<u8>> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| der.to_vec())
}

/// The uid of kube-system, by which the hub sees that one cluster joins under two names, and an agent that the hub's own does. Not important
/// enough to fail: empty.
pub(crate) async fn cluster_uid(client: &kube::Client) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = namespaces.get_metadata_opt("kube-system").await.ok().flatten();
    found.and_then(|namespace| namespace.metadata.uid).unwrap_or_default()
}

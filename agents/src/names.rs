//! The certificate of the member's node-local DNS servers: it may follow the topology and nothing else, so that nodes need not hold the
//! agent's.
//!
//! In: the agent's own credentials. Out: the Secret `atoll-system/atoll-names`, filled, and renewed at half of the certificate's life.
//! Never gives the agent's key to anybody.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use atoll_api::kinds::{FIELD_MANAGER, SYSTEM_NAMESPACE};
use atoll_reach::{Connect, Identity, Role, TlsIdentity};
use atoll_wire::v1::RenewRequest;
use atoll_wire::v1::enrolment_client::EnrolmentClient;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use kube::core::ObjectMeta;
use rcgen::KeyPair;
use tokio_util::sync::CancellationToken;

use crate::credentials::{Credentials, Shared};
use crate::enrol::csr;
use crate::error::AgentError;
use crate::hub;

/// The Secret's name.
pub const SECRET: &str = "atoll-names";
/// Between two looks; the wall clock may jump.
const EVERY: Duration = Duration::from_secs(60);
/// While there is none yet.
const SOON: Duration = Duration::from_secs(2);

/// Keeps the Secret until `shutdown`.
pub(crate) async fn run(
    shared: Shared,
    tls: TlsIdentity,
    connect: Arc<dyn Connect>,
    client: kube::Client,
    shutdown: CancellationToken,
) {
    let work = async {
        loop {
            let pause = match keep(&shared.get(), &tls, &connect, &client).await {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::warn!(%error, "the certificate of node-local DNS is not renewed yet");
                    SOON
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
}

async fn keep(
    own: &Credentials,
    tls: &TlsIdentity,
    connect: &Arc<dyn Connect>,
    client: &kube::Client,
) -> Result<(), AgentError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let held = secrets.get_opt(SECRET).await.map_err(AgentError::member(format!("reading Secret {SECRET}")))?;
    if held.is_some_and(|secret| serves(&secret, own)) {
        return Ok(());
    }
    let mut enrolment = EnrolmentClient::new(hub::channel(connect, tls, &own.hub).await?);
    let key = KeyPair::generate()?;
    let request = RenewRequest { csr_pem: csr(&key)?, names: true };
    let answer = hub::answer(&own.hub, enrolment.renew(request)).await?;
    let identity = Identity::from_pem(&answer.certificate_pem, &key.serialize_pem(), &answer.ca_pem)?;
    if *identity.role() != Role::Names(own.cluster.to_string()) {
        let what =
            format!("a certificate for {} instead of node-local DNS: it is of an earlier version", identity.role());
        return Err(AgentError::Nonsense { hub: own.hub.clone(), what });
    }
    let fields = [
        ("cluster", own.cluster.to_string()),
        ("hub", own.hub.clone()),
        ("tls.crt", answer.certificate_pem),
        ("tls.key", key.serialize_pem()),
        ("ca.crt", answer.ca_pem),
    ];
    let data = fields.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect();
    let metadata = ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() };
    let secret = Secret { metadata, data: Some(data), ..Secret::default() };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = secrets.patch(SECRET, &params, &Patch::Apply(&secret)).await;
    written.map_err(AgentError::member(format!("writing Secret {SECRET}")))?;
    tracing::info!(serial = %identity.bearer().serial, "certificate of node-local DNS stored");
    Ok(())
}

/// Whether what the Secret holds is of our hub, under its address of today, and in the first half of its life.
fn serves(secret: &Secret, own: &Credentials) -> bool {
    let text = |key: &str| {
        let data = secret.data.as_ref()?.get(key)?;
        String::from_utf8(data.0.clone()).ok()
    };
    let (Some(chain), Some(key), Some(ca)) = (text("tls.crt"), text("tls.key"), text("ca.crt")) else { return false };
    let same = text("hub").as_deref() == Some(&own.hub) && ca == own.ca_pem;
    let Ok(identity) = Identity::from_pem(&chain, &key, &ca) else { return false };
    let role = Role::Names(own.cluster.to_string());
    same && *identity.role() == role && SystemTime::from(Timestamp::now()) < identity.bearer().half_life()
}

//! A member's agent as the hub sees one: it enrols with a token, opens its link over mutual TLS, reports, beats, and sends what changes.

use atoll_api::facts::Facts;
use atoll_api::token::JoinToken;
use atoll_reach::{Connect as _, Expect, Identity, Revocations, System, TlsIdentity, pinned};
use atoll_wire::channel::{self, GRPC_ALPN};
use atoll_wire::delta::Sender;
use atoll_wire::v1::from_agent::Message;
use atoll_wire::v1::{
    EnrolRequest, FromAgent, Heartbeat, Hello, enrolment_client::EnrolmentClient, link_client::LinkClient,
};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Duration, interval};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;

use crate::Result;

/// One change of what a member reports.
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) value: Value,
}

/// Turns a token into an identity.
pub(crate) async fn enrol(hub: &str, token: &str) -> Result<TlsIdentity> {
    let token: JoinToken = token.parse()?;
    let (host, port) = atoll_reach::host_and_port(hub).ok_or("the hub's address is none")?;
    let tcp = System::default().connect(host, port).await?;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(pinned(token.ca_pin, &[GRPC_ALPN])).connect(name, tcp).await?;
    let key = KeyPair::generate()?;
    let request = EnrolRequest {
        token: token.to_string(),
        csr_pem: CertificateParams::default().serialize_request(&key)?.pem()?,
        agent_version: "bench".into(),
        cluster_uid: String::new(),
    };
    let answer = EnrolmentClient::new(channel::over(stream, hub).await?).enrol(request).await?.into_inner();
    let identity = Identity::from_pem(&answer.certificate_pem, &key.serialize_pem(), &answer.ca_pem)?;
    Ok(TlsIdentity::new(identity, Revocations::none())?)
}

/// Keeps the link of a member that reports `facts`, and sends `changes` of them.
pub(crate) async fn link(
    hub: String,
    tls: TlsIdentity,
    mut facts: Facts,
    mut changes: mpsc::Receiver<Change>,
) -> Result<()> {
    let (host, port) = atoll_reach::host_and_port(&hub).ok_or("the hub's address is none")?;
    let tcp = System::default().connect(host, port).await?;
    let stream = tls.connect(tcp, host, Expect::Hub, &[GRPC_ALPN]).await?.stream;
    let mut client = LinkClient::new(channel::over(stream, &hub).await?);
    let (say, queue) = mpsc::channel(64);
    let to = |message| FromAgent { message: Some(message) };
    say.send(to(Message::Hello(Hello { agent_version: "bench".into(), instance: "1".into(), epoch: 0 }))).await?;
    let mut heard = client.open(ReceiverStream::new(queue)).await?.into_inner();
    let (mut sent, mut status) = (Sender::new(0), Sender::new(0));
    for delta in sent.update(&facts) {
        say.send(to(Message::Facts(delta))).await?;
    }
    for delta in status.update(&Facts::default()) {
        say.send(to(Message::Status(delta))).await?;
    }
    let mut beat = interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            message = heard.message() => if message?.is_none() { return Err("the hub closed a link".into()) },
            _ = beat.tick() => {
                let beat = Heartbeat {
                    api_ok: true,
                    dns_ok: true,
                    reason: String::new(),
                    facts_digest: sent.digest().to_vec().into(),
                    status_digest: status.digest().to_vec().into(),
                };
                say.send(to(Message::Heartbeat(beat))).await?;
            }
            change = changes.recv() => {
                let Some(Change { key, value }) = change else { return Ok(()) };
                facts.put(key, &value);
                for delta in sent.update(&facts) {
                    say.send(to(Message::Facts(delta))).await?;
                }
            }
        }
    }
}

//! Whether the member answers its own agent: API server and DNS.
//!
//! In: the client, the DNS found. Out: [`Health`], which each heartbeat carries: a live link to a member that its own
//! agent can't reach is not Ready. The DNS is asked over TCP (RFC 7766: every server must speak it), by the one connector.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::{DnsKind, MemberDns};
use atoll_reach::{Connect, host_and_port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two rounds; shorter than a heartbeat, so that each brings news.
const PERIOD: Duration = Duration::from_secs(3);
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Servers asked until one answers.
const SERVERS_MAX: usize = 3;

/// What the member's own agent sees of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) api_ok: bool,
    pub(crate) dns_ok: bool,
    /// Why not, for people.
    pub(crate) reason: String,
}

/// Asks round by round until `shutdown`.
pub(crate) async fn run(
    client: kube::Client,
    connect: Arc<dyn Connect>,
    mut dns: watch::Receiver<Option<MemberDns>>,
    health: watch::Sender<Health>,
    shutdown: CancellationToken,
) {
    loop {
        let found = dns.borrow_and_update().clone();
        let round = async { tokio::join!(ask_api(&client), ask_dns(&*connect, found.as_ref())) };
        let (api, name_server) = tokio::select! {
            answers = round => answers,
            () = shutdown.cancelled() => return,
        };
        let reason =
            [&api, &name_server].into_iter().filter_map(|a| a.as_ref().err().cloned()).collect::<Vec<_>>().join("; ");
        let now = Health { api_ok: api.is_ok(), dns_ok: name_server.is_ok(), reason };
        health.send_if_modified(|was| {
            let changed = *was != now;
            if changed && !now.reason.is_empty() {
                tracing::warn!(reason = now.reason, "the member does not answer its agent");
            }
            *was = now;
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            // Found, or found elsewhere.
            Ok(()) = dns.changed() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn ask_api(client: &kube::Client) -> Result<(), String> {
    match tokio::time::timeout(ANSWER_MAX, client.apiserver_version()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("API server: {error}")),
        Err(_) => Err("API server: no answer within 2 s".to_owned()),
    }
}

async fn ask_dns(connect: &dyn Connect, dns: Option<&MemberDns>) -> Result<(), String> {
    let Some(dns) = dns.filter(|dns| !dns.servers.is_empty()) else { return Err("DNS: none found".to_owned()) };
    let name = match dns.kind {
        DnsKind::Kubernetes => format!("kubernetes.default.svc.{}", dns.domain),
        _ => dns.domain.clone(),
    };
    let mut last = String::new();
    for server in dns.servers.iter().take(SERVERS_MAX) {
        match tokio::time::timeout(ANSWER_MAX / 2, ask_server(connect, server, &name)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = format!("DNS {server}: {error}"),
            Err(_) => last = format!("DNS {server}: no answer within 1 s"),
        }
    }
    Err(last)
}

/// Any answer counts but a failure of the server itself.
async fn ask_server(connect: &dyn Connect, server: &str, name: &str) -> io::Result<()> {
    let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (host, port) = host_and_port(server).ok_or_else(|| odd("not host:port"))?;
    let mut stream = connect.connect(host, port).await?;
    let query = query(name).ok_or_else(|| odd("the domain is not a DNS name"))?;
    stream.write_all(&query).await?;
    stream.flush().await?;
    let len = stream.read_u16().await?;
    let mut header = [0; 12];
    if usize::from(len) < header.len() {
        return Err(odd("the answer is too short"));
    }
    stream.read_exact(&mut header).await?;
    let is_answer = header[0..2] == query[2..4] && header[2] & 0x80 != 0;
    match (is_answer, header[3] & 0x0f) {
        (false, _) => Err(odd("not an answer to our question")),
        // RFC 1035 §4.1.1: 2 is a failure of the server, 5 a refusal.
        (true, 2) => Err(odd("SERVFAIL")),
        (true, 5) => Err(odd("REFUSED")),
        (true, _) => Ok(()),
    }
}

/// A question for A records, with the length in front that TCP wants (RFC 1035 §4.2.2).
fn query(name: &str) -> Option<Vec<u8>> {
    let mut message = vec![0xa7, 0x01, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).ok().filter(|len| *len < 64)?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut framed = u16::try_from(message.len()).ok()?.to_be_bytes().to_vec();
    framed.append(&mut message);
    Some(framed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_reach::BoxStream;

    /// A server that answers every question with these flags.
    struct Answers(u8, u8);

    #[async_trait::async_trait]
    impl Connect for Answers {
        async fn connect(&self, _host: &str, _port: u16) -> io::Result<BoxStream> {
            let (near, mut far) = tokio::io::duplex(512);
            let flags = [self.0, self.1];
            tokio::spawn(async move {
                let len = far.read_u16().await.unwrap();
                let mut message = vec![0; usize::from(len)];
                far.read_exact(&mut message).await.unwrap();
                message[2..4].copy_from_slice(&flags);
                far.write_u16(len).await.unwrap();
                far.write_all(&message).await.unwrap();
            });
            Ok(Box::new(near))
        }
    }

    #[tokio::test]
    async fn a_dns_server_counts_unless_it_fails() {
        let dns =
            MemberDns { domain: "cluster.local".into(), servers: vec!["10.0.0.10:53".into()], ..Default::default() };
        for (name, flags, ok) in [
            ("an answer", (0x81, 0x80), true),
            ("NXDOMAIN", (0x81, 0x83), true),
            ("SERVFAIL", (0x81, 0x82), false),
            ("REFUSED", (0x81, 0x85), false),
            ("a question back", (0x01, 0x00), false),
        ] {
            assert_eq!(ask_dns(&Answers(flags.0, flags.1), Some(&dns)).await.is_ok(), ok, "{name}");
        }
        assert!(ask_dns(&Answers(0x81, 0x80), None).await.is_err());
    }
}

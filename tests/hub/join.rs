//! Join: tokens and what is refused of them, certificates, removal.

use std::sync::Arc;
use std::time::Duration;

use atoll_agents::AgentError;
use atoll_api::kinds::SyncMode;
use atoll_api::token::JoinToken;
use atoll_apiserver::{ApiServer, Storage};
use atoll_federation::tokens::{TokenRequest, create_token};
use atoll_reach::{System, pinned};
use atoll_wire::v1::EnrolRequest;
use atoll_wire::v1::enrolment_client::EnrolmentClient;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use crate::world::{World, api_config, eventually, within};

/// An empty member.
async fn empty() -> ApiServer {
    ApiServer::open(api_config(), Storage::Memory).await.unwrap()
}

#[tokio::test]
async fn a_token_joins_its_member_once_and_a_restart_needs_none() {
    let world = World::start().await;
    let (member, other) = (empty().await, empty().await);
    let token = world.token("prod-eu").await;
    let line = token.to_string();
    assert_eq!(line, format!("atoll join {} --token {}", world.config.advertise, token.token));
    let token = token.token.to_string();
    let agent = world.agent_over(member.client(), Arc::new(System::default()), Some(token.clone()));
    world.condition("prod-eu", "Ready", "True").await;
    let cluster = world.clusters().get("prod-eu").await.unwrap();
    assert_eq!((cluster.spec.environment.as_str(), cluster.spec.sync.mode), ("prod", SyncMode::Pull));
    let certificate = cluster.status.unwrap().certificate.unwrap();
    assert!(!certificate.serial.is_empty() && !certificate.not_after.is_empty());
    // Used.
    let late = world.agent_over(other.client(), Arc::new(System::default()), Some(token.clone()));
    let refused = late.ended().await.unwrap_err();
    assert!(matches!(&refused, AgentError::Refused { message, .. } if message.contains("was used at")), "{refused}");
    assert!(refused.to_string().contains("make another with `atoll token create prod-eu`"), "{refused}");
    // Again under the same name: without a token, or with the old one.
    agent.stop().await.unwrap();
    for again in [None, Some(token)] {
        let agent = world.agent_over(member.client(), Arc::new(System::default()), again);
        world.condition("prod-eu", "Syncing", "True").await;
        agent.stop().await.unwrap();
        world.condition("prod-eu", "Syncing", "False").await;
    }
    // Under another name it is refused, and says what to do.
    let token = world.token("dev").await.token.to_string();
    let agent = world.agent_over(member.client(), Arc::new(System::default()), Some(token));
    let refused = agent.ended().await.unwrap_err().to_string();
    assert!(refused.contains("joined as `prod-eu` already, the token is for `dev`"), "{refused}");
    world.end([]).await;
}

#[tokio::test]
async fn tokens_that_are_none_are_refused_with_the_reason() {
    let world = World::start().await;
    let good = world.token("prod-eu").await.token;
    let brief = TokenRequest { ttl: Duration::from_secs(1), ..TokenRequest::new("prod-us".parse().unwrap()) };
    let brief = create_token(&world.client(), &brief).await.unwrap().token.to_string();
    let unknown = JoinToken { secret: "A".repeat(32), ..good.clone() };
    let renamed = JoinToken { cluster: "prod-us".parse().unwrap(), ..good.clone() };
    let foreign = JoinToken { ca_pin: [7; 32], ..good.clone() };
    let text = good.to_string();
    for (name, token, says) in [
        ("no token at all", "hello".to_owned(), "paste the whole of what `atoll token create` printed"),
        ("cut off", text[..text.len() - 20].to_owned(), "malformed"),
        ("a name that is none", text.replacen("prod-eu", "Prod_EU", 1), "Prod_EU"),
        ("never made here", unknown.to_string(), "not known here"),
        ("another name's", renamed.to_string(), "token is for cluster `prod-eu`, not for `prod-us`"),
    ] {
        let member = empty().await;
        let agent = world.agent_over(member.client(), Arc::new(System::default()), Some(token));
        let refused = agent.ended().await.unwrap_err().to_string();
        assert!(refused.contains(says), "{name}: {refused}");
    }
    // Its time is over.
    let member = empty().await;
    let config = |token: &str| atoll_agents::Config {
        hub: world.config.advertise.clone(),
        token: Some(token.to_owned()),
        ..Default::default()
    };
    let resources = || world.resources(member.client());
    let over = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1);
    eventually("its time is over", async || if jiff::Timestamp::now() > over { Ok(()) } else { Err(()) }).await;
    let refused = atoll_agents::enrol(&config(&brief), &resources()).await.unwrap_err().to_string();
    assert!(refused.contains("expired at") && refused.contains("atoll token create prod-us"), "{refused}");
    // A hub that is not the token's is not told the token.
    let refused = atoll_agents::enrol(&config(&foreign.to_string()), &resources()).await.unwrap_err().to_string();
    assert!(refused.contains("pin") || refused.contains("certificate"), "{refused}");
    // Nothing of all this spent the good one.
    atoll_agents::enrol(&config(&text), &resources()).await.unwrap();
    assert_eq!(world.clusters().list(&Default::default()).await.unwrap().items.len(), 1, "nobody else became a member");
    world.end([]).await;
}

#[tokio::test]
async fn a_bad_certificate_request_is_refused_and_does_not_spend_the_token() {
    let world = World::start().await;
    let token = world.token("prod-eu").await.token;
    let (address, pin) = (world.config.advertise.clone(), token.ca_pin);
    let connect = tower::service_fn(move |_| {
        let address = address.clone();
        async move {
            let tcp = TcpStream::connect(&address).await?;
            let tls = TlsConnector::from(pinned(pin, &[b"h2"]));
            let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    let channel = Endpoint::from_static("http://hub").connect_with_connector(connect).await.unwrap();
    let mut client = EnrolmentClient::new(channel);
    for csr in [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        &"x".repeat(20_000),
    ] {
        let request = EnrolRequest { token: token.to_string(), csr_pem: csr.to_owned(), ..Default::default() };
        let refused = client.enrol(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().starts_with("certificate request: "), "{}", refused.message());
    }
    let member = empty().await;
    let agent = world.agent_over(member.client(), Arc::new(System::default()), Some(token.to_string()));
    world.condition("prod-eu", "Ready", "True").await;
    world.end([agent]).await;
}

#[tokio::test]
async fn a_certificate_of_another_member_opens_nothing() {
    let world = World::start().await;
    let (eu, us) = (empty().await, empty().await);
    for (name, member) in [("prod-eu", &eu), ("prod-us", &us)] {
        let token = world.token(name).await.token.to_string();
        let agent = world.agent_over(member.client(), Arc::new(System::default()), Some(token));
        world.condition(name, "Ready", "True").await;
        agent.stop().await.unwrap();
    }
    // us takes eu's certificate but says that it is us.
    let secrets = |server: &ApiServer| Api::<Secret>::namespaced(server.client(), "atoll-system");
    let stolen = secrets(&eu).get("atoll-agent").await.unwrap().data.unwrap();
    let patch = json!({"data": {"tls.crt": stolen["tls.crt"], "tls.key": stolen["tls.key"]}});
    secrets(&us).patch("atoll-agent", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let agent = world.agent_over(us.client(), Arc::new(System::default()), None);
    let refused = agent.ended().await.unwrap_err().to_string();
    assert!(refused.contains("Secret atoll-system/atoll-agent") && refused.contains("not `prod-us`"), "{refused}");
    // Broken ones are said to be so.
    let patch = json!({"stringData": {"tls.crt": "broken"}});
    secrets(&us).patch("atoll-agent", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let agent = world.agent_over(us.client(), Arc::new(System::default()), None);
    let refused = agent.ended().await.unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
    world.end([]).await;
}

#[tokio::test]
async fn a_removed_member_is_cut_off_and_revoked_within_ten_seconds() {
    let world = World::start().await;
    let member = empty().await;
    let token = world.token("dev").await.token.to_string();
    let agent = world.agent_over(member.client(), Arc::new(System::default()), Some(token));
    world.condition("dev", "Ready", "True").await;
    let serial = world.clusters().get("dev").await.unwrap().status.unwrap().certificate.unwrap().serial;
    // One that never opened a link is revoked, too.
    let idle = empty().await;
    let config = atoll_agents::Config {
        hub: world.config.advertise.clone(),
        token: Some(world.token("test").await.token.to_string()),
        ..Default::default()
    };
    atoll_agents::enrol(&config, &world.resources(idle.client())).await.unwrap();
    let idle_serial = eventually("its certificate is written down", async || {
        let status = world.clusters().get("test").await.unwrap().status;
        status.and_then(|s| s.certificate).map(|c| c.serial).ok_or("none")
    })
    .await;
    let began = Instant::now();
    for name in ["dev", "test"] {
        world.clusters().delete(name, &DeleteParams::default()).await.unwrap();
    }
    world
        .topology("both are gone and revoked", |t| {
            let revoked = [&serial, &idle_serial].iter().all(|s| t.settings.revoked.contains(s));
            (t.clusters.is_empty() && revoked).then_some(())
        })
        .await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // With its old certificate it does not even get a handshake; a new token lets it in again.
    agent.stop().await.unwrap();
    let agent = world.agent_over(member.client(), Arc::new(System::default()), None);
    let config = atoll_agents::Config { token: Some(world.token("dev").await.token.to_string()), ..config };
    let secrets: Api<Secret> = Api::namespaced(member.client(), "atoll-system");
    secrets.delete("atoll-agent", &DeleteParams::default()).await.unwrap();
    agent.stop().await.unwrap();
    within("a new token", atoll_agents::enrol(&config, &world.resources(member.client()))).await.unwrap();
    world.end([]).await;
}

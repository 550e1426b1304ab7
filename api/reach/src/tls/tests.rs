//! Who may shake hands with whom.

use super::*;
use crate::identity::ca_pin;
use crate::role::{Role, Serial};
use crate::testing::Ca;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Both = (io::Result<Secured>, io::Result<Secured>);

async fn shake(client: &TlsIdentity, expect: Expect, server: &TlsIdentity) -> Both {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let config = server.server(ClientAuth::Required, &[b"x/1"]);
    tokio::join!(
        async {
            let mut secured = client.connect(Box::new(near), "127.0.0.1", expect, &[b"x/1"]).await?;
            // In TLS 1.3 a server's refusal of our certificate shows at the first read.
            secured.stream.read_u8().await?;
            Ok(secured)
        },
        async {
            let mut secured = server.accept(config, Box::new(far)).await?;
            secured.stream.write_u8(1).await?;
            secured.stream.flush().await?;
            Ok(secured)
        }
    )
}

#[tokio::test]
async fn each_side_learns_the_others_role_from_the_certificate() {
    let ca = Ca::new();
    let (agent, hub) = (ca.tls(&Role::Cluster("dev".into())), ca.tls(&Role::Hub));
    let (client, server) = shake(&agent, Expect::Hub, &hub).await;
    let (client, server) = (client.unwrap(), server.unwrap());
    assert_eq!(client.peer.unwrap().role, Role::Hub);
    assert_eq!(server.peer.unwrap().role, Role::Cluster("dev".into()));
    assert_eq!(client.alpn.unwrap(), b"x/1");
}

#[tokio::test]
async fn whoever_is_not_expected_is_refused() {
    let (ca, foreign) = (Ca::new(), Ca::new());
    let dev = Role::Cluster("dev".into());
    let site = Role::Site("dns-0".into());
    let expired = {
        let (chain, key, ca) = ca.issue_pem(&dev, -1);
        TlsIdentity::new(Identity::from_pem(&chain, &key, &ca).unwrap(), Revocations::none()).unwrap()
    };
    // It trusts our hub, and so may dial it; its own certificate is of another CA.
    let stranger = {
        let (chain, key, _) = foreign.issue_pem(&dev, 7);
        TlsIdentity::new(Identity::from_pem(&chain, &key, &ca.pem).unwrap(), Revocations::none()).unwrap()
    };
    for (name, client, expect, server, ok) in [
        ("a client of another CA", stranger, Expect::Hub, ca.tls(&Role::Hub), false),
        ("an agent dials the hub", ca.tls(&dev), Expect::Hub, ca.tls(&Role::Hub), true),
        ("an agent dials a site", ca.tls(&dev), Expect::Site(Some("dns-0".into())), ca.tls(&site), true),
        ("another site answers", ca.tls(&dev), Expect::Site(Some("dns-1".into())), ca.tls(&site), false),
        ("a member poses as the hub", ca.tls(&dev), Expect::Hub, ca.tls(&Role::Cluster("test".into())), false),
        ("a site poses as the hub", ca.tls(&dev), Expect::Hub, ca.tls(&site), false),
        ("a hub of another CA", ca.tls(&dev), Expect::Hub, foreign.tls(&Role::Hub), false),
        ("an expired client", expired, Expect::Hub, ca.tls(&Role::Hub), false),
    ] {
        let (client, server) = shake(&client, expect, &server).await;
        assert_eq!(client.is_ok() && server.is_ok(), ok, "{name}");
    }
}

#[tokio::test]
async fn a_revoked_certificate_shakes_no_hands_and_its_live_stream_is_cut() {
    let ca = Ca::new();
    let (agent, hub) = (ca.tls(&Role::Cluster("dev".into())), ca.tls(&Role::Hub));
    let (_client, server) = shake(&agent, Expect::Hub, &hub).await;
    let mut server = server.unwrap();
    hub.revocations().set([agent.bearer().serial, Serial::from_hex("1")]);
    assert_eq!(server.stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    let (client, server) = shake(&agent, Expect::Hub, &hub).await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn a_swapped_identity_shows_at_the_next_handshake_of_old_configurations() {
    let ca = Ca::new();
    let dev = Role::Cluster("dev".into());
    let (agent, hub) = (ca.tls(&dev), ca.tls(&Role::Hub));
    let first = shake(&agent, Expect::Hub, &hub).await.1.unwrap().peer.unwrap().serial;
    agent.swap(ca.issue(&dev)).unwrap();
    let second = shake(&agent, Expect::Hub, &hub).await.1.unwrap().peer.unwrap().serial;
    assert_ne!(first, second);
    assert_eq!(second, agent.bearer().serial);
}

#[tokio::test]
async fn enrolment_trusts_only_the_hub_under_the_pinned_ca() {
    let (ca, foreign) = (Ca::new(), Ca::new());
    for (name, server, ok) in [
        ("the hub", ca.tls(&Role::Hub), true),
        ("a member of the hub", ca.tls(&Role::Cluster("dev".into())), false),
        ("a hub of another CA", foreign.tls(&Role::Hub), false),
    ] {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let config = server.server(ClientAuth::Optional, &[]);
        let connector = TlsConnector::from(pinned(ca_pin(&ca.der), &[]));
        let (client, served) =
            tokio::join!(connector.connect(server_name("10.0.0.1"), near), server.accept(config, Box::new(far)));
        assert_eq!(client.is_ok(), ok, "{name}");
        if ok {
            assert!(served.unwrap().peer.is_none(), "without a certificate the peer is nobody");
        }
    }
}

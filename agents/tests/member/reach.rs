//! Reaching into the member through its agent.

use atoll_api::facts::Facts;
use atoll_api::kinds::MemberDns;
use atoll_api::topology::Site;
use atoll_reach::RelayError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::hub::{Authority, Hub};
use crate::{Member, eventually};

/// Something in the member that echoes one byte, and its address.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    stream.write_u8(byte).await.unwrap();
                }
            });
        }
    });
    address
}

async fn reaches(hub: &Hub, address: &str) -> bool {
    let (host, port) = address.split_once(':').unwrap();
    let Ok(mut stream) = hub.relays.open("dev", host, port.parse().unwrap()).await else { return false };
    stream.write_u8(7).await.is_ok() && stream.read_u8().await.is_ok_and(|byte| byte == 7)
}

#[tokio::test]
async fn hub_and_sites_reach_the_members_addresses_and_no_others_also_while_the_hub_is_dead() {
    let (authority, inside, outside) = (Authority::new(), echo().await, echo().await);
    let mut member = Member::new().await;
    member.dns =
        Some(MemberDns { domain: "cluster.local".into(), servers: vec![inside.clone()], ..Default::default() });
    let site = Hub::start(&authority, 1, Facts::default()).await;
    let mut wanted = Facts::default();
    let fact =
        Site { instance: "dns-0".into(), kind: "dns".into(), relay: site.address.to_string(), ..Site::default() };
    wanted.put("site/dns-0", &fact);
    let hub = Hub::start(&authority, 1, wanted).await;
    let agent = member.start(&hub.address.to_string(), Some(authority.token("dev")));
    eventually("the hub reaches in", || reaches(&hub, &inside)).await;
    eventually("the site reaches in", || reaches(&site, &inside)).await;
    let (host, port) = outside.split_once(':').unwrap();
    let refused = hub.relays.open("dev", host, port.parse().unwrap()).await.err().unwrap();
    assert!(matches!(refused, RelayError::Refused { .. }), "{refused}");

    hub.kill().await;
    assert!(reaches(&site, &inside).await, "a dead hub does not matter to a site");
    agent.stop().await.unwrap();
    let again = member.start("", None);
    eventually("the site reaches in after the agent's restart", || reaches(&site, &inside)).await;
    again.stop().await.unwrap();
}

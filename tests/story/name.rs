//! Name: own records, members' names asked at the members, federated names, and what is not there.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::objects::{self, NAMESPACE};
use crate::said::{same, until};
use crate::world::{APEX, Ground, World, condition, list, text};

const SOON: Duration = Duration::from_secs(30);
/// A change of the membership counts at once: not after a TTL, only after the way through hub and feed.
const AT_ONCE: Duration = Duration::from_secs(5);

pub(crate) async fn tell(world: &World) -> Result<()> {
    world.scene("Name");
    own(world).await?;
    of_members(world).await?;
    federated(world).await?;
    nowhere(world).await?;
    sets(world).await?;
    members_come_and_go(world).await
}

async fn own(world: &World) -> Result<()> {
    world.apply(&objects::records()).await?;
    let wanted: Vec<std::net::IpAddr> = vec!["192.0.2.10".parse()?, "192.0.2.11".parse()?];
    until("the record of the Zone", SOON, async || {
        same("www", &world.dig("www.story.example", "A").await?.some()?, &wanted)
    })
    .await?;
    same("www by TCP", &world.dig_tcp("www.story.example", "A").await?.some()?, &wanted)?;
    let soa = world.dig("story.example", "SOA").await?;
    ensure!(soa.answer.iter().any(|record| record.data.starts_with("ns1.story.example.")), "{soa:?}");
    world.dig("nobody.story.example", "A").await?.absent("story.example")?;
    until("the record of the DNSEndpoint", SOON, async || {
        same("board", &world.dig(&format!("board.{APEX}"), "A").await?.some()?, &vec!["192.0.2.20".parse()?])
    })
    .await?;
    world.proves(
        "own records of a Zone and a DNSEndpoint, by UDP and TCP; what is not in the zone is NXDOMAIN with its SOA",
    );
    Ok(())
}

/// The name is asked at the member's own DNS, translated both ways.
async fn of_members(world: &World) -> Result<()> {
    for member in ["prod-eu", "dr"] {
        let name = format!("web.shop.svc.{member}.{APEX}");
        let service =
            until("the service is there", SOON, async || world.member_get(member, "service", "shop", "web").await)
                .await?;
        let wanted = vec![text(&service, "/spec/clusterIP").parse().context("the service has an address")?];
        let answer = until(&name, SOON, async || {
            let answer = world.dig(&name, "A").await?;
            same("its addresses", &answer.some()?, &wanted)?;
            Ok(answer)
        })
        .await?;
        ensure!(answer.answer.iter().all(|record| record.owner == format!("{name}.")), "owners: {answer:?}");
        let srv = world.dig(&format!("_http._tcp.{name}"), "SRV").await?;
        let ours = |data: &str| data.contains(&format!("{member}.{APEX}.")) && !data.contains("cluster.local");
        ensure!(srv.status == "NOERROR" && !srv.answer.is_empty(), "SRV: {srv:?}");
        ensure!(srv.answer.iter().all(|record| ours(&record.data)), "a name leaks: {srv:?}");
        same("by TCP", &world.dig_tcp(&name, "A").await?.some()?, &wanted)?;
        let by = if member == "dr" { ", asked through its agent" } else { "" };
        world.proves(format!("{name} is what {member}'s own DNS says{by}, with every name translated"));
    }
    if let Ground::Bed(bed) = &world.ground {
        let lab = bed.testbed.lab().context("asked for")?;
        let name = format!("web.service.lab.{APEX}");
        let wanted = vec![lab.address().into()];
        until(&name, SOON, async || same("its address", &world.dig(&name, "A").await?.some()?, &wanted)).await?;
        world.proves(format!("{name} is what Consul says"));
    } else {
        world.leaves_out("a name of Consul's");
    }
    Ok(())
}

/// The nearest healthy cluster's endpoints.
async fn federated(world: &World) -> Result<()> {
    let name = format!("store.{NAMESPACE}.svc.{APEX}");
    until(&name, SOON, async || {
        let owners = world.owners(&world.dig(&name, "A").await?).await?;
        same("whose endpoints", &owners, &vec!["prod-eu".to_owned()])
    })
    .await?;
    world.proves(format!("{name} is prod-eu's endpoints, the nearest ones"));
    // From inside a pod: where it stands is looked up by its address.
    let pod = world.pod("prod-us", NAMESPACE, "app=store").await?;
    until(&name, SOON, async || {
        let owners = world.owners(&world.dig_in("prod-us", (NAMESPACE, &pod), &name).await?).await?;
        same("whose endpoints", &owners, &vec!["prod-us".to_owned()])
    })
    .await?;
    world.proves("asked from a pod in prod-us it is prod-us's endpoints");
    let relayed = format!("web.shop.svc.dr.{APEX}");
    let service = world.member_get("dr", "service", "shop", "web").await?;
    let wanted = vec![text(&service, "/spec/clusterIP").parse()?];
    same("by relay", &world.dig_in("prod-us", (NAMESPACE, &pod), &relayed).await?.some()?, &wanted)?;
    let own = world.pod("dr", NAMESPACE, "app=spare").await?;
    // On the testbed they come by the address of their node.
    let spare = format!("spare.{NAMESPACE}.svc.{APEX}");
    until(&spare, SOON, async || {
        let owners = world.owners(&world.dig_in("dr", (NAMESPACE, &own), &spare).await?).await?;
        same("whose endpoints", &owners, &vec!["dr".to_owned()])
    })
    .await?;
    world.proves("from inside pods: dr's names through its agent, and dr's own service for a pod of dr");
    Ok(())
}

async fn nowhere(world: &World) -> Result<()> {
    world.dig(&format!("web.shop.svc.nobody.{APEX}"), "A").await?.absent(APEX)?;
    world.dig(&format!("nothing.{NAMESPACE}.svc.{APEX}"), "A").await?.absent(APEX)?;
    world.proves("an unknown cluster and an unknown service are NXDOMAIN, with the SOA of the apex");
    Ok(())
}

/// A federated name exists inside its cluster set alone; a member's own names are for all.
async fn sets(world: &World) -> Result<()> {
    let name = format!("lonely.{NAMESPACE}.svc.{APEX}");
    let pod = world.pod("dev", NAMESPACE, "app=lonely").await?;
    until("dev's service for dev's pods", SOON, async || {
        let owners = world.owners(&world.dig_in("dev", (NAMESPACE, &pod), &name).await?).await?;
        same("whose endpoints", &owners, &vec!["dev".to_owned()])
    })
    .await?;
    world.dig(&name, "A").await?.absent(APEX)?;
    world.dig_in("dev", (NAMESPACE, &pod), &format!("store.{NAMESPACE}.svc.{APEX}")).await?.absent(APEX)?;
    world.dig(&format!("lonely.{NAMESPACE}.svc.dev.{APEX}"), "A").await?.some()?;
    world.proves(
        "a service of dev's set is NXDOMAIN with SOA for prod and the other way round; lonely.….dev is answered to all",
    );
    Ok(())
}

/// A member that is added or removed counts at once.
async fn members_come_and_go(world: &World) -> Result<()> {
    let name = format!("web.shop.svc.extra.{APEX}");
    // Asked before, so that a remembered "not there" would show.
    world.dig(&name, "A").await?.absent(APEX)?;
    let servers = world.get("cluster", "default", "test").await?;
    let server = list(&servers, "/status/dns/servers")
        .first()
        .and_then(|one| one.as_str().map(str::to_owned))
        .context("test has DNS")?;
    let dns = format!("{{kind: Kubernetes, domain: cluster.local, servers: [\"{server}\"]}}");
    world.apply(&objects::names_only("extra", "extra", &dns)).await?;
    until("the new member's names", AT_ONCE, async || world.dig(&name, "A").await?.some()).await?;
    until("it is Ready", SOON, async || {
        let (status, reason, message) = condition(&world.get("cluster", "default", "extra").await?, "Ready");
        ensure!(status == "True", "Ready={status} {reason}: {message}");
        Ok(())
    })
    .await?;
    world.kubectl(&["delete", "cluster", "extra"]).await?.ok()?;
    until("the removed member's names", AT_ONCE, async || world.dig(&name, "A").await?.absent(APEX)).await?;
    world.proves("a member that is added or removed counts at once");
    Ok(())
}

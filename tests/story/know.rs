//! Know: what the hub shows of its members, as their agents found it.

use std::time::Duration;

use anyhow::{Result, ensure};
use atoll_testbed::Target;

use crate::join;
use crate::objects;
use crate::said::{same, until};
use crate::world::{APEX, Ground, MEMBERS, World, becomes, condition, list, text};

pub(crate) async fn tell(world: &World) -> Result<()> {
    world.scene("Know");
    for member in MEMBERS {
        known(world, member).await?;
    }
    let table = world.kubectl(&["get", "clusters"]).await?.ok()?;
    println!("{}", table.lines().map(|line| format!("      {line}\n")).collect::<String>().trim_end());
    world.proves("conditions, version, nodes, capacity, free room, ranges, DNS and certificate of each member");
    match &world.ground {
        Ground::Bed(bed) => {
            ranges(world, bed).await?;
            apart_from_its_agent(world, bed).await?;
        }
        Ground::Demo(_) => world.leaves_out("a member whose API server is away while its agent's link lives"),
    }
    let relayed = becomes(world, "dr is reached by relay", 30, ("cluster", "default", "dr"), |cluster| {
        same("its reach", &text(cluster, "/status/reach"), &"Relay")
    });
    relayed.await?;
    for member in ["prod-eu", "prod-us"] {
        becomes(world, "prod is reached directly", 30, ("cluster", "default", member), |cluster| {
            same("its reach", &text(cluster, "/status/reach"), &"Direct")
        })
        .await?;
    }
    world.proves("dr is reached through its agent, prod-eu and prod-us directly");
    overlap(world).await
}

/// Two members with the same ranges: both say so, and the one that has an agent is reached through it.
async fn overlap(world: &World) -> Result<()> {
    let test = world.get("cluster", "default", "test").await?;
    let cidrs = test["status"]["cidrs"].to_string();
    let dns = "{kind: Generic, domain: twin, servers: []}";
    let twin = objects::names_only("twin", "twin", dns).replace("reach: Direct", &format!("cidrs: {cidrs}"));
    world.apply(&twin).await?;
    becomes(world, "the overlap is reported", 30, ("cluster", "default", "test"), |cluster| {
        let (status, reason, message) = condition(cluster, "CIDRsDistinct");
        ensure!(status == "False" && message.contains("twin"), "CIDRsDistinct={status} {reason}: {message}");
        same("its reach", &text(cluster, "/status/reach"), &"Relay")
    })
    .await?;
    let name = format!("kubernetes.default.svc.test.{APEX}");
    until(&name, Duration::from_secs(20), async || world.dig(&name, "A").await?.some()).await?;
    world.kubectl(&["delete", "cluster", "twin"]).await?.ok()?;
    becomes(world, "it is alone again", 60, ("cluster", "default", "test"), |cluster| {
        same("CIDRsDistinct", &condition(cluster, "CIDRsDistinct").0, &"True".to_owned())?;
        same("its reach", &text(cluster, "/status/reach"), &"Direct")
    })
    .await?;
    world.proves("ranges that overlap another's are reported, and reached through the agent while they do");
    Ok(())
}

async fn known(world: &World, member: &str) -> Result<()> {
    becomes(world, "it is known", 60, ("cluster", "default", member), |cluster| {
        for kind in ["Ready", "DNSReady", "Syncing", "CIDRsDistinct"] {
            let (status, reason, message) = condition(cluster, kind);
            ensure!(status == "True" && !reason.is_empty(), "{kind}={status} {reason}: {message}");
        }
        for field in
            ["version", "agentVersion", "capacity/cpu", "allocatable/memory", "free/cpu", "certificate/notAfter"]
        {
            ensure!(!text(cluster, &format!("/status/{field}")).is_empty(), "status.{field} is empty");
        }
        ensure!(cluster["status"]["nodes"].as_i64() >= Some(1), "no nodes");
        for field in ["cidrs/pods", "cidrs/services", "dns/servers"] {
            ensure!(!list(cluster, &format!("/status/{field}")).is_empty(), "status.{field} is empty");
        }
        same("its domain", &text(cluster, "/status/dns/domain"), &"cluster.local")
    })
    .await
    .map(drop)
}

/// The ranges and the DNS server are those that the testbed gave.
async fn ranges(world: &World, bed: &crate::bed::Bed) -> Result<()> {
    for member in bed.testbed.members() {
        let plan = member.plan();
        becomes(world, "its ranges are found", 60, ("cluster", "default", member.name()), |cluster| {
            same("pods", list(cluster, "/status/cidrs/pods"), &[plan.pods().into()][..])?;
            same("services", list(cluster, "/status/cidrs/services"), &[plan.services().into()][..])?;
            same("its first DNS server", &list(cluster, "/status/dns/servers").first(), &Some(&member.dns().into()))
        })
        .await?;
    }
    world.proves("pod ranges, service ranges and DNS servers are the ones that the clusters have");
    Ok(())
}

/// The link lives, but the member's API server does not answer its agent: not Ready, and the reason says which.
async fn apart_from_its_agent(world: &World, bed: &crate::bed::Bed) -> Result<()> {
    let test = bed.testbed.member("test")?;
    test.pause(&Target::ApiServer).await?;
    let seen = until("test is not Ready", Duration::from_secs(40), async || {
        let (status, reason, message) = condition(&world.get("cluster", "default", "test").await?, "Ready");
        ensure!(status == "False" && reason == "APIServerUnreachable", "Ready={status} {reason}: {message}");
        Ok(())
    })
    .await;
    test.resume(&Target::ApiServer).await?;
    seen?;
    world.proves("a member whose API server does not answer its agent is not Ready, though the link lives");
    join::ready(world, "test", 60).await
}

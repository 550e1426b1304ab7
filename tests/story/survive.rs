//! Survive: the hub is dead; names and requests go on, also through restarts; a dead cluster is noticed; then the hub is back.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::time::Instant;

use crate::join;
use crate::load::{Load, get};
use crate::objects::{HOST, NAMESPACE};
use crate::place;
use crate::said::{same, throughout, until};
use crate::world::{APEX, MEMBERS, World};

/// A dead cluster is noticed by own probes once the hub's word is stale (15 s).
const NOTICED: Duration = Duration::from_secs(40);
/// How long a member is watched that must stay as it is.
const WATCHED: Duration = Duration::from_secs(12);

pub(crate) async fn tell(world: &World) -> Result<()> {
    world.scene("Survive");
    world.kill("hub").await?;
    let told = without_the_hub(world).await;
    let began = Instant::now();
    world.start("hub").await?;
    told?;
    reconverges(world, began).await
}

async fn without_the_hub(world: &World) -> Result<()> {
    serves(world, "prod-eu").await?;
    world.proves("the hub is dead: DNS and gateway go on");
    let load = Load::begin(world.http, HOST, "/");
    changes_nothing(world).await?;
    let shots = load.end().await?;
    let failed = shots.iter().filter(|shot| shot.result.is_err()).count();
    ensure!(failed == 0 && !shots.is_empty(), "{failed} of {} requests failed", shots.len());
    for part in ["dns", "gateway"] {
        world.kill(part).await?;
        world.start(part).await?;
    }
    serves(world, "prod-eu").await?;
    let name = format!("web.shop.svc.dr.{APEX}");
    until(&name, Duration::from_secs(60), async || world.dig(&name, "A").await?.some()).await?;
    until("dr's service", Duration::from_secs(60), async || {
        same("by", &get(world.http, HOST, "/spare").await?.cluster()?, &"dr".to_owned())
    })
    .await?;
    world.proves("both were killed and started again while the hub is dead: they go on, dr by its agent included");
    world.cut("prod-eu").await?;
    let cut = Instant::now();
    let noticed = async {
        serves_within(world, "prod-us", NOTICED).await?;
        world.proves(format!("a cluster that is cut off is noticed by their own probes, after {:.1?}", cut.elapsed()));
        Ok(())
    };
    let noticed: Result<()> = noticed.await;
    world.heal("prod-eu").await?;
    noticed?;
    serves_within(world, "prod-eu", NOTICED).await?;
    world.proves("and so is that it is back");
    Ok(())
}

async fn serves(world: &World, member: &str) -> Result<()> {
    serves_within(world, member, Duration::from_secs(20)).await
}

/// DNS and gateway answer from that member.
async fn serves_within(world: &World, member: &str, within: Duration) -> Result<()> {
    let wanted = pods(world, member).await?;
    let name = format!("store.{NAMESPACE}.svc.{APEX}");
    until(&format!("{name} is {member}'s"), within, async || {
        let found = world.dig(&name, "A").await?.some()?;
        ensure!(found.iter().all(|address| wanted.contains(&address.to_string())), "{found:?}, not of {wanted:?}");
        Ok(())
    })
    .await?;
    until(&format!("the gateway answers from {member}"), within, async || {
        same("by", &get(world.http, HOST, "/").await?.cluster()?, &member.to_owned())
    })
    .await
}

/// The addresses of a member's pods, asked at the member: the hub is dead.
async fn pods(world: &World, member: &str) -> Result<Vec<String>> {
    let selected = ["get", "pods", "-n", NAMESPACE, "-l", "app=store", "-o", "json"];
    let found =
        until("its pods", Duration::from_secs(30), async || world.member(member, &selected).await?.json()).await?;
    let address = |pod: &Value| pod["status"]["podIP"].as_str().map(str::to_owned);
    Ok(found["items"].as_array().into_iter().flatten().filter_map(address).collect())
}

/// An agent that can't hear the hub changes nothing in its member: what somebody did there stays.
async fn changes_nothing(world: &World) -> Result<()> {
    world.member("prod-eu", &["scale", "deployment", "-n", NAMESPACE, "store", "--replicas=3"]).await?.ok()?;
    throughout("the copies that somebody asked for in prod-eu stay", WATCHED, async || {
        let found = world.member_get("prod-eu", "deployment", NAMESPACE, "store").await?;
        same("copies", &found["spec"]["replicas"], &Value::from(3))
    })
    .await?;
    world.proves("an agent that can't hear the hub changes nothing in its member");
    Ok(())
}

async fn reconverges(world: &World, began: Instant) -> Result<()> {
    for member in MEMBERS {
        join::ready(world, member, 90).await?;
    }
    world.proves(format!("the hub is back: every member is Ready again after {:.1?}", began.elapsed()));
    place::runs(world, "prod-eu", "store", 2, 90).await?;
    serves(world, "prod-eu").await?;
    until("the Bundle is as before", Duration::from_secs(60), async || {
        let bundle = world.get("bundle", NAMESPACE, "store").await?;
        same("prod-eu", &place::line(&bundle, "prod-eu"), &("Ready".to_owned(), 2, 2))?;
        same("prod-us", &place::line(&bundle, "prod-us"), &("Ready".to_owned(), 1, 1))
    })
    .await?;
    world.proves(format!("everything is as it was asked for again after {:.1?}", began.elapsed()));
    Ok(())
}

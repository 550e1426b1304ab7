//! Fail over: a cluster is cut off; names, requests and work go elsewhere; it comes back without a gap.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::time::Instant;

use crate::dig::Answer;
use crate::load::{Load, Shot};
use crate::objects::{self, HOST, NAMESPACE};
use crate::place::line;
use crate::said::{same, until};
use crate::world::{APEX, World, condition, list, text};

/// DNS and gateway answer from elsewhere: a bound for what hangs. They aim at 15 s, and what they took is said; how soon is proved where the
/// clock is ours (the simulations of `federation` and `dns`), since here the cores are shared with whatever else runs.
const ELSEWHERE: Duration = Duration::from_secs(60);
/// The server answers within 2 s; the rest is what a busy machine adds. `dig` itself gives up after 4 s.
const ANSWERED: Duration = Duration::from_millis(3500);
/// What is left on each node of a member that is full.
const LEFT_MILLI: i64 = 30;
/// The work runs elsewhere.
const MOVED: Duration = Duration::from_secs(120);
/// `failback.stabilise` of 20 s, the heartbeats and pulls around it.
const BACK: Duration = Duration::from_secs(120);

pub(crate) async fn tell(world: &World) -> Result<()> {
    world.scene("Fail over");
    fill(world, "prod-us").await?;
    let load = Load::begin(world.http, HOST, "/");
    let told = cut_and_healed(world, &load).await;
    let shots = load.end().await?;
    if told.is_err() {
        print(&shots);
    }
    told?;
    world
        .member("prod-us", &["delete", "pods", "-l", "app=filler", "-n", "default", "--wait=false"])
        .await?
        .ok()
        .map(drop)
}

/// Takes up what is free on each node of a member, so that no more copies of `store` fit.
async fn fill(world: &World, member: &str) -> Result<()> {
    let nodes = world.member(member, &["get", "nodes", "-o", "json"]).await?.json()?;
    let pods = world.member(member, &["get", "pods", "-A", "-o", "json"]).await?.json()?;
    for node in list(&nodes, "/items") {
        let name = text(node, "/metadata/name");
        let room = milli(text(node, "/status/allocatable/cpu")).context("a node's CPU")?;
        let taken: i64 =
            list(&pods, "/items").iter().filter(|pod| text(pod, "/spec/nodeName") == name).map(requested).sum();
        world.member_apply(member, &objects::filler(name, room - taken - LEFT_MILLI)).await?;
    }
    until(&format!("{member} is full"), Duration::from_secs(60), async || {
        let cluster = world.get("cluster", "default", member).await?;
        let left = milli(text(&cluster, "/status/free/cpu")).context("free CPU")?;
        ensure!(left < objects::STORE_CPU_MILLI, "{left}m are free still");
        Ok(())
    })
    .await?;
    world.proves(format!("{member} is full: another copy does not fit"));
    Ok(())
}

/// What a pod asks for, in thousandths of a CPU.
fn requested(pod: &Value) -> i64 {
    let over = ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
    let asked = |container: &Value| milli(text(container, "/resources/requests/cpu")).unwrap_or(0);
    if over { 0 } else { list(pod, "/spec/containers").iter().map(asked).sum() }
}

/// A quantity of CPU in thousandths.
fn milli(quantity: &str) -> Option<i64> {
    match quantity.strip_suffix('m') {
        Some(milli) => milli.parse().ok(),
        None => quantity.parse::<f64>().ok().map(|cores| (cores * 1000.0) as i64),
    }
}

async fn cut_and_healed(world: &World, load: &Load) -> Result<()> {
    let name = format!("store.{NAMESPACE}.svc.{APEX}");
    let own = format!("web.shop.svc.prod-eu.{APEX}");
    let first = until("the load is served", ELSEWHERE, async || load.shots().last().cloned().context("none")).await?;
    same("by", &first.result, &Ok("prod-eu".to_owned()))?;
    world.dig(&own, "A").await?.some()?;

    let cut = Instant::now();
    world.cut("prod-eu").await?;
    let unknown = format!("nobody-asked.shop.svc.prod-eu.{APEX}");
    down(&world.dig(&unknown, "A").await?)?;
    let from_dns = until("DNS answers from elsewhere", ELSEWHERE, async || {
        let owners = world.owners(&world.dig(&name, "A").await?).await?;
        same("whose endpoints", &owners, &vec!["prod-us".to_owned()])?;
        Ok(cut.elapsed())
    })
    .await?;
    let elsewhere = until("the gateway answers from elsewhere", ELSEWHERE, async || {
        let shots = load.shots();
        let first = shots.iter().find(|shot| shot.at > cut && shot.result.as_deref() == Ok("prod-us"));
        first.map(|shot| shot.at).context("no request was answered by prod-us")
    })
    .await?;
    let from_gateway = elsewhere.duration_since(cut);
    world.proves(format!(
        "prod-eu is cut off: DNS answers from prod-us after {from_dns:.1?}, the gateway after {from_gateway:.1?} (aim: 15 s)"
    ));
    stale(world, &own).await?;

    moved(world, cut).await?;
    ensure_served(load, elsewhere, "after the gateway noticed")?;
    world.proves("no request failed after the gateway had noticed");

    let healed = Instant::now();
    world.heal("prod-eu").await?;
    back(world, healed).await?;
    ensure_served(load, healed, "after the heal")?;
    until("the nearest answers again", Duration::from_secs(30), async || {
        same("by", &load.shots().last().and_then(|shot| shot.result.clone().ok()), &Some("prod-eu".to_owned()))
    })
    .await?;
    let owners = until("DNS names it again", Duration::from_secs(30), async || {
        let owners = world.owners(&world.dig(&name, "A").await?).await?;
        same("whose endpoints", &owners, &vec!["prod-eu".to_owned()])?;
        Ok(owners)
    })
    .await?;
    ensure_served(load, healed, "after the heal")?;
    world.proves(format!(
        "not one request failed while it came back; DNS and gateway answer from {} again",
        owners.join(", ")
    ));
    Ok(())
}

/// A member that is down is stale or SERVFAIL, soon, and never "not there".
async fn stale(world: &World, name: &str) -> Result<()> {
    for (name, what) in
        [(name, "asked before"), (&*format!("echo-nobody.shop.svc.prod-eu.{APEX}"), "never asked before")]
    {
        let answer = world.dig(name, "A").await?;
        let said = down(&answer)?;
        world.proves(format!("a name of its own, {what}: {said} within {:.1?}", answer.took));
    }
    Ok(())
}

fn down(answer: &Answer) -> Result<&'static str> {
    ensure!(answer.took < ANSWERED, "it took {:?}: {answer:?}", answer.took);
    match answer.status.as_str() {
        "NOERROR" if answer.ede.contains(&3) && !answer.addresses().is_empty() => Ok("stale, marked by EDE 3,"),
        "SERVFAIL" if !answer.ede.is_empty() => Ok("SERVFAIL with an EDE"),
        _ => bail!("neither stale nor SERVFAIL with an EDE: {answer:?}"),
    }
}

async fn moved(world: &World, cut: Instant) -> Result<()> {
    let left = MOVED.saturating_sub(cut.elapsed());
    until("the work runs in dr", left, async || {
        let dr = world.member_get("dr", "deployment", NAMESPACE, "store").await?;
        same("ready copies", &dr["status"]["readyReplicas"], &Value::from(2))
    })
    .await?;
    let took = cut.elapsed();
    let bundle = world.get("bundle", NAMESPACE, "store").await?;
    ensure!(line(&bundle, "prod-us").1 == 1, "prod-us is full: {}", bundle["status"]);
    world.proves(format!("its work runs in dr after {took:.1?}: {}", text(&bundle, "/status/summary")));
    Ok(())
}

/// It comes back, make before break: at no time are fewer copies ready than were before.
async fn back(world: &World, healed: Instant) -> Result<()> {
    let mut fewest = i64::MAX;
    let mut seen_dr_last = healed.elapsed();
    until("the work is back", BACK, async || {
        let bundle = world.get("bundle", NAMESPACE, "store").await?;
        let (eu, us, dr) = (line(&bundle, "prod-eu"), line(&bundle, "prod-us"), line(&bundle, "dr"));
        fewest = fewest.min(eu.2 + us.2 + dr.2);
        if dr.1 > 0 {
            seen_dr_last = healed.elapsed();
        }
        same("prod-eu", &eu, &("Ready".to_owned(), 2, 2))?;
        same("copies in dr", &dr.1, &0)?;
        let (status, reason, message) = condition(&bundle, "Ready");
        ensure!(status == "True", "Ready={status} {reason}: {message}");
        Ok(())
    })
    .await?;
    ensure!(fewest >= 1, "at some time no copy was ready");
    let stabilise = Duration::from_secs(20);
    ensure!(
        seen_dr_last >= stabilise.saturating_sub(Duration::from_secs(3)),
        "dr was left after {seen_dr_last:.1?}, before prod-eu was stable"
    );
    until("dr is empty", Duration::from_secs(30), async || {
        let said = world.member("dr", &["get", "deployment", "-n", NAMESPACE, "store"]).await?;
        ensure!(said.err.contains("NotFound"), "{said:?}");
        Ok(())
    })
    .await?;
    world.proves(format!(
        "healed: back in prod-eu after {:.1?}, never fewer than {fewest} copies ready",
        healed.elapsed()
    ));
    Ok(())
}

fn ensure_served(load: &Load, since: Instant, when: &str) -> Result<()> {
    let failed = load.failed_since(since);
    let first = failed.first().map(|shot| (shot.at.duration_since(since), shot.result.clone()));
    ensure!(failed.is_empty(), "{} requests failed {when}, the first {first:?}", failed.len());
    Ok(())
}

/// Who answered, in runs: for a telling that failed.
fn print(shots: &[Shot]) {
    let mut runs: Vec<(&Shot, usize)> = Vec::new();
    for shot in shots {
        match runs.last_mut() {
            Some((last, count)) if last.result == shot.result => *count += 1,
            _ => runs.push((shot, 1)),
        }
    }
    let Some(began) = shots.first().map(|shot| shot.at) else { return };
    for (shot, count) in runs {
        println!("      {:6.1} s  {count} × {:?}", shot.at.duration_since(began).as_secs_f32(), shot.result);
    }
}

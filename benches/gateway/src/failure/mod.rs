//! Pods killed and rolled, then a whole cluster, once by RST and once by blackhole, while requests keep coming at a rate: who got an answer?
//!
//! ```text
//!   crowd (open loop) ─► gateway (this process) ─┬─► namespace eu: four pods, processes of their own, killed and cut
//!                                                └─► namespace us: four pods, the next tier
//! ```
//!
//! In: a rate, a folder. Out: for each thing that happens the requests, who of the idempotent ones had a 2xx within 3 s, the slowest of them, how
//! long until the cluster was out, and how many POSTs reached more than one pod or one pod twice. Needs root: it makes two namespaces.

mod crowd;
mod network;
pub(crate) mod pod;
mod stage;

use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

pub(crate) use self::crowd::Crowd;
use self::crowd::Seen;
use self::network::Cluster;
use self::stage::Stage;
use crate::{Result, say};

/// How long after a kill the hub says that a pod is gone, as a kubelet and an endpoint controller take.
const NEWS: Duration = Duration::from_millis(1500);
/// How long a pod that is rolled goes on after everybody was told.
const GRACE: Duration = Duration::from_millis(1500);
/// By when a cluster must be out or back, else the measurement is over.
const TURN_MAX: Duration = Duration::from_secs(30);

/// Measures all of it, a tenth of the requests being POSTs. Undoes what it made also when it is told to end.
pub(crate) async fn run(rate: f64, folder: &Path) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        measured = measure(rate, folder) => measured,
        _ = terminate.recv() => Err("told to end".into()),
    }
}

async fn measure(rate: f64, folder: &Path) -> Result<()> {
    let (mut eu, us) = (Cluster::make("eu", 1, folder)?, Cluster::make("us", 2, folder)?);
    let stage = Stage::start(&[&eu, &us]).await?;
    let crowd = Crowd::start(stage.http, rate);
    crowd.until_served().await?;
    sleep(Duration::from_secs(2)).await;
    let mut all = Seen::default();
    crowd.take();

    sleep(Duration::from_secs(5)).await;
    all.add(tell("calm", crowd.take(), None)?);

    for victim in 0..2 {
        eu.kill(victim)?;
        sleep(NEWS).await;
        stage.publish(&[&eu, &us]);
        eu.start_at(victim)?;
        stage.publish(&[&eu, &us]);
        sleep(Duration::from_secs(2)).await;
    }
    all.add(tell("pods killed", crowd.settled().await, None)?);

    for old in 0..4 {
        eu.replace(old)?;
        stage.publish(&[&eu, &us]);
        sleep(GRACE).await;
        eu.stop_replaced().await?;
    }
    all.add(tell("pods rolled", crowd.settled().await, None)?);

    let died = Instant::now();
    eu.kill_all()?;
    let out = stage.until("eu", false, TURN_MAX).await?.duration_since(died);
    sleep(Duration::from_secs(8)).await;
    all.add(tell("cluster by RST", crowd.settled().await, Some(out))?);
    eu.start_all()?;
    all.add(back(&stage, &crowd, "back from RST").await?);

    let died = Instant::now();
    eu.cut()?;
    let out = stage.until("eu", false, TURN_MAX).await?.duration_since(died);
    sleep(Duration::from_secs(8)).await;
    all.add(tell("cluster by blackhole", crowd.settled().await, Some(out))?);
    eu.heal()?;
    all.add(back(&stage, &crowd, "back from blackhole").await?);

    let died = Instant::now();
    eu.freeze(true)?;
    let out = stage.until("eu", false, TURN_MAX).await?.duration_since(died);
    sleep(Duration::from_secs(8)).await;
    all.add(tell("cluster hangs", crowd.settled().await, Some(out))?);
    eu.freeze(false)?;
    all.add(back(&stage, &crowd, "back from hanging").await?);

    crowd.stop().await;
    // Without traffic: what probes find.
    let died = Instant::now();
    eu.cut()?;
    let out = stage.until("eu", false, TURN_MAX).await?.duration_since(died);
    say("without_traffic_out_ms", out.as_millis())?;
    eu.heal()?;
    tell("all", all, None)?;
    let reached = pod::reached(folder)?;
    say("posts_that_reached_pods", reached.len())?;
    say("posts_that_reached_pods_twice", reached.values().filter(|times| **times > 1).count())
}

/// Waits until the cluster is back and has its whole part.
async fn back(stage: &Stage, crowd: &Crowd, what: &str) -> Result<Seen> {
    let healed = Instant::now();
    let back = stage.until("eu", true, TURN_MAX).await?.duration_since(healed);
    // It gets its whole part within 10 s.
    sleep(Duration::from_secs(11)).await;
    tell(what, crowd.settled().await, Some(back))
}

/// Says what was seen. `turn`: how long until the cluster was out, or back.
fn tell(what: &str, seen: Seen, turn: Option<Duration>) -> Result<Seen> {
    let turn = turn.map_or_else(String::new, |turn| format!(", turned after {} ms", turn.as_millis()));
    say(&what.replace(' ', "_"), format!("{seen}{turn}"))?;
    Ok(seen)
}

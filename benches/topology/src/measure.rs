//! Joins all members at once, then makes changes at a rate and waits for each until a query shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, interval, sleep};

use crate::agent::{self, Change};
use crate::child::Process;
use crate::federation::{endpoints, endpoints_key, facts, member, moving, name, own, own_address, resting};
use crate::names::{self, Names, forwarded};
use crate::query::shown;
use crate::{Result, say};

/// Longer than that, and something is broken.
const SEEN_MAX: Duration = Duration::from_secs(30);
const JOINED_MAX: Duration = Duration::from_secs(300);
/// Our own names; one in so many changes is of them, and one in so many of the services has a policy.
const OWN: usize = 50;
const SHARE: usize = 10;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) members: usize,
    /// Of each member.
    pub(crate) services: usize,
    /// Changes a second.
    pub(crate) rate: u32,
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
}

/// What a change is of; the word of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Endpoint,
    Health,
    Geo,
    Own,
    /// Within the TTL of the member's answer, and what counts.
    Forwarded,
}

/// A service's endpoints as they were said last.
#[derive(Clone, Copy)]
struct Said {
    last: u8,
    ready: bool,
}

/// Where changes are put in, and where they are asked for.
struct Asked {
    dns: SocketAddr,
    agents: Vec<mpsc::Sender<Change>>,
    names: Names,
}

/// Starts everything, measures, prints.
pub(crate) async fn measure(dir: &Path, plan: Plan) -> Result<()> {
    let text = dir.to_str().ok_or("the directory's name is no text")?;
    let (mut hub, at) = Process::start(&["hub", text], &dir.join("hub.log")).await?;
    let dns_at: SocketAddr = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let (dns, _) = Process::start(&["dns", text, &at, &dns_at.to_string()], &dir.join("dns.log")).await?;
    let (names, names_at) = Names::serve().await?;
    let agents = join(&mut hub, &at, dns_at, names_at, plan).await?;
    report("hub after the join", &hub, None)?;
    report("DNS server after the join", &dns, None)?;
    for s in 0..plan.services.div_ceil(SHARE) {
        hub.ask(&format!("nearest 0 {}", s * SHARE)).await?;
    }
    for n in 0..OWN {
        hub.ask(&format!("own {n} 1")).await?;
    }
    let mut said = vec![Said { last: 1, ready: true }; plan.members * plan.services];
    say(format!(
        "{:<34} {:>7} {:>9} {:>9} {:>9}",
        "until a query shows a change", "changes", "p50 ms", "p99 ms", "max ms"
    ))?;
    let asked = Asked { dns: dns_at, agents, names };
    round("while imports are written", &mut hub, &dns, &asked, &mut said, plan).await?;
    settle(&hub).await?;
    for n in 1..=plan.rounds {
        round(&format!("round {n}"), &mut hub, &dns, &asked, &mut said, plan).await?;
    }
    Ok(())
}

/// Every member enrols, links and reports at once. Gives where their changes are put in.
async fn join(
    hub: &mut Process,
    at: &str,
    dns: SocketAddr,
    names: SocketAddr,
    plan: Plan,
) -> Result<Vec<mpsc::Sender<Change>>> {
    let mut tokens = Vec::new();
    for m in 0..plan.members {
        tokens.push(hub.ask(&format!("token {}", member(m))).await?);
    }
    let began = Instant::now();
    let (mut agents, mut seen) = (Vec::new(), JoinSet::new());
    for (m, token) in tokens.into_iter().enumerate() {
        let (sender, changes) = mpsc::channel(64);
        agents.push(sender);
        let at = at.to_owned();
        tokio::spawn(async move {
            let linked = async {
                let tls = agent::enrol(&at, &token).await?;
                agent::link(at, tls, facts(m, plan.services, (m == 0).then_some(names)), changes).await
            };
            if let Err(error) = linked.await {
                let _ = say(format!("member {m}: {error}"));
            }
        });
        // Its first and its last service: all of it has come.
        let last = name(m, plan.services - 1);
        seen.spawn(async move {
            shown(dns, &name(m, 0), moving(m, 1), true, JOINED_MAX).await?;
            shown(dns, &last, moving(m, 1), true, JOINED_MAX).await
        });
    }
    let mut took = Vec::new();
    while let Some(at) = seen.join_next().await {
        took.push((at?? - began).as_millis());
    }
    took.sort_unstable();
    let (first, last) = (took[0], took[took.len() - 1]);
    say(format!(
        "{} members x {} services join at once: answers show the first after {first} ms, the last after {last} ms",
        plan.members, plan.services
    ))?;
    Ok(agents)
}

/// Waits until the hub has written its imports and rests.
async fn settle(hub: &Process) -> Result<()> {
    let (began, mut before) = (Instant::now(), hub.cost()?.0);
    loop {
        sleep(Duration::from_secs(3)).await;
        let now = hub.cost()?.0;
        // A tenth of a core.
        if now - before < 300 {
            return say(format!("the hub rests after {} s", began.elapsed().as_secs()));
        }
        if began.elapsed() > Duration::from_secs(600) {
            return say("the hub does not come to rest within 600 s");
        }
        before = now;
    }
}

/// Changes at the plan's rate, each waited for.
async fn round(
    title: &str,
    hub: &mut Process,
    dns_process: &Process,
    asked: &Asked,
    said: &mut [Said],
    plan: Plan,
) -> Result<()> {
    let (hub_before, dns_before, began) = (hub.cost()?, dns_process.cost()?, Instant::now());
    let mut tick = interval(Duration::from_secs(1) / plan.rate);
    let mut seen: JoinSet<Result<(Kind, Duration)>> = JoinSet::new();
    let count = u64::from(plan.rate) * plan.seconds;
    let (dns, mut own_last) = (asked.dns, 1u8);
    for n in 0..count {
        tick.tick().await;
        if n.is_multiple_of(SHARE as u64) {
            own_last = own_last % 250 + 1;
            let (which, sent) = ((n as usize / SHARE) % OWN, Instant::now());
            hub.ask(&format!("own {which} {own_last}")).await?;
            seen.spawn(async move {
                Ok((Kind::Own, shown(dns, &own(which), own_address(own_last), true, SEEN_MAX).await? - sent))
            });
            continue;
        }
        if n % SHARE as u64 == 2 {
            let (names, which) = (asked.names.clone(), (n as usize / SHARE) % names::NAMES);
            seen.spawn(async move { Ok((Kind::Forwarded, forward(dns, &names, which).await?)) });
            continue;
        }
        let is_geo = n % SHARE as u64 == 1;
        let (m, s) = {
            let mut dice = rand::rng();
            let s: usize = dice.random_range(0..plan.services);
            if is_geo { (0, s / SHARE * SHARE) } else { (dice.random_range(1..plan.members.max(2)) % plan.members, s) }
        };
        let now = &mut said[m * plan.services + s];
        let heals = n.is_multiple_of(2) && !is_geo;
        if heals {
            now.ready = !now.ready;
        } else {
            now.last = now.last % 250 + 1;
        }
        let Said { last, ready } = *now;
        let sent = Instant::now();
        asked.agents[m].send(Change { key: endpoints_key(m, s), value: endpoints(m, last, ready) }).await?;
        seen.spawn(async move {
            let name = name(m, s);
            let at = if heals {
                shown(dns, &name, resting(m), ready, SEEN_MAX).await?
            } else {
                shown(dns, &name, moving(m, last), true, SEEN_MAX).await?
            };
            let kind = if is_geo {
                Kind::Geo
            } else if heals {
                Kind::Health
            } else {
                Kind::Endpoint
            };
            Ok((kind, at - sent))
        });
    }
    let mut took: BTreeMap<Kind, Vec<Duration>> = BTreeMap::new();
    let mut lost = 0;
    while let Some(one) = seen.join_next().await {
        match one? {
            Ok((kind, duration)) => took.entry(kind).or_default().push(duration),
            // The same service may have been changed again before this was seen.
            Err(_) => lost += 1,
        }
    }
    let elapsed = began.elapsed();
    let mut all: Vec<Duration> = Vec::new();
    for (kind, durations) in took {
        line(&format!("{title}: {kind:?}"), durations.clone())?;
        if kind != Kind::Forwarded {
            all.extend(durations);
        }
    }
    line(&format!("{title}: all but those, {lost} overtaken"), all)?;
    report(&format!("{title}: hub"), hub, Some((hub_before, elapsed)))?;
    report(&format!("{title}: DNS server"), dns_process, Some((dns_before, elapsed)))
}

/// Changes what a member's DNS says of a name, at any time of the life of its kept answer; gives how long the old one was answered.
async fn forward(dns: SocketAddr, names: &Names, which: usize) -> Result<Duration> {
    let (name, before) = (forwarded(which), names.of(which));
    let last = before % 250 + 1;
    shown(dns, &name, names::address(before), true, SEEN_MAX).await?;
    let life: u64 = rand::rng().random_range(0..u64::from(names::TTL) * 1000);
    sleep(Duration::from_millis(life)).await;
    names.set(which, last);
    let sent = Instant::now();
    Ok(shown(dns, &name, names::address(last), true, SEEN_MAX).await? - sent)
}

fn line(title: &str, mut took: Vec<Duration>) -> Result<()> {
    took.sort_unstable();
    let at = |part: f64| took[((took.len() as f64 * part) as usize).min(took.len() - 1)].as_secs_f64() * 1000.0;
    say(format!("{title:<34} {:>7} {:>9.1} {:>9.1} {:>9.1}", took.len(), at(0.5), at(0.99), at(1.0)))
}

fn report(title: &str, process: &Process, since: Option<((u64, u64), Duration)>) -> Result<()> {
    let (cpu, rss) = process.cost()?;
    let mib = rss / 1024;
    match since {
        Some(((before, _), elapsed)) => {
            let share = (cpu - before) as f64 / elapsed.as_secs_f64() / 10.0;
            say(format!("{title:<34} {share:.0} % of a core, {mib} MiB"))
        }
        None => say(format!("{title:<34} {:.1} s of CPU, {mib} MiB", cpu as f64 / 1000.0)),
    }
}

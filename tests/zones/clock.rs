//! The wall clock jumps by hours under a running `atoll up`, ahead and back, as when NTP steps or a machine wakes: by libfaketime, which
//! gives the process another wall clock and leaves it the one that never jumps.
//!
//! What protocols say by the wall clock follows at once: signatures, cookies, TSIG, tokens. Intervals do not notice: times to live,
//! heartbeats and health, connections.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atoll_api::kinds::Cluster;
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use serde_json::json;
use tokio::time::sleep;

use crate::stage::{SECRET, Stage};
use crate::world::{Place, until};

const MEMBERS: [&str; 2] = ["prod-eu", "prod-us"];
const HOUR: i64 = 3600;
/// Machines that run all tests at once are slow.
const SLACK: i64 = 60;
/// More than two heartbeats (5 s each), after which a cluster counts as lost.
const BEATS: Duration = Duration::from_secs(13);

/// A wall clock of its own.
struct Wall {
    file: PathBuf,
    offset: i64,
    _dir: tempfile::TempDir,
}

impl Wall {
    /// As the process sees it.
    fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.offset)
    }

    fn jump(&mut self, offset: i64) -> Result<()> {
        self.offset = offset;
        // Read at every look at the clock: replaced whole.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{offset:+}\n"))?;
        std::fs::rename(next, &self.file)?;
        Ok(())
    }
}

fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().context("libfaketime is missing: apt-get install libfaketime")
}

async fn stage() -> Result<(Stage, Wall)> {
    let dir = tempfile::tempdir()?;
    let mut wall = Wall { file: dir.path().join("clock"), offset: 0, _dir: dir };
    wall.jump(0)?;
    let place = Place::within(vec![
        ("LD_PRELOAD", library()?.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", wall.file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_DONT_RESET", "1".to_owned()),
    ])?;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let stage = Stage::at(place, &MEMBERS.join(","), crate::world::FREE).await?;
    stage.zone(json!({"dnssec": {"enabled": true}})).await?;
    Ok((stage, wall))
}

/// Seconds of the era out of a signature's `20261128053000`.
fn seconds(text: &str) -> Result<i64> {
    let at = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", text).with_context(|| text.to_owned())?;
    Ok(at.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_second())
}

/// That each signature of a name counts now.
async fn signed(stage: &Stage, wall: &Wall) -> Result<()> {
    for (name, kind) in [("www.example.com", "A"), ("example.com", "SOA"), ("nowhere.example.com", "A")] {
        let said = stage.dig(&["+dnssec", "+noall", "+answer", "+authority", name, kind]).await?;
        let signatures: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
        let signatures: Vec<&Vec<&str>> = signatures.iter().filter(|words| words.get(3) == Some(&"RRSIG")).collect();
        ensure!(!signatures.is_empty(), "{name}: {said}");
        for words in signatures {
            let (ends, begins, now) = (seconds(words[8])?, seconds(words[9])?, wall.now().as_second());
            ensure!(begins <= now && now < ends, "{name} at {}: {}", wall.now(), words.join(" "));
            ensure!(
                ends - now > 24 * HOUR && now - begins < 26 * HOUR,
                "{name} at {}: {}",
                wall.now(),
                words.join(" ")
            );
        }
    }
    Ok(())
}

/// RFC 9018 §4.3: the time that a cookie was given, in its octets 12 to 16.
async fn cookie(stage: &Stage, sent: &str) -> Result<(String, i64)> {
    let said = stage.dig(&["+noall", "+comments", &format!("+cookie={sent}"), "www.example.com"]).await?;
    let line = said.lines().find_map(|line| line.strip_prefix("; COOKIE: ")).with_context(|| said.clone())?;
    let octets = line.split_whitespace().next().context("a cookie")?.to_owned();
    let given = i64::from_str_radix(octets.get(24..32).context("both parts")?, 16)?;
    Ok((octets, given))
}

/// The time to live and the address of a member's name.
async fn forwarded(stage: &Stage, name: &str) -> Result<(u32, String)> {
    let said = stage.dig(&["+noall", "+answer", name, "A"]).await?;
    let words: Vec<&str> = said.split_whitespace().collect();
    ensure!(words.len() >= 5 && words[3] == "A", "{name}: {said}");
    Ok((words[1].parse()?, words[4].to_owned()))
}

/// That names are answered as ever: a member's, a federated one, one of our own.
async fn serves(stage: &Stage, when: &str) -> Result<()> {
    for name in ["web.shop.svc.prod-eu.atoll.internal", "web.shop.svc.atoll.internal", "www.example.com"] {
        let said = stage.dig(&["+noall", "+comments", "+answer", name, "A"]).await?;
        let answered = said.lines().any(|line| line.split_whitespace().nth(3) == Some("A"));
        let good = answered && said.contains("status: NOERROR") && !said.contains("EDE");
        ensure!(good, "{when}: {name}: {said}");
    }
    Ok(())
}

/// What is said of tokens, by the process's own clock.
async fn tokens(stage: &Stage) -> Result<String> {
    Ok(stage.place.ended(&["token", "list"]).await?.out)
}

async fn ready(stage: &Stage, when: &str) -> Result<()> {
    let clusters: Api<Cluster> = Api::all(stage.hub.clone());
    for name in MEMBERS {
        let conditions = clusters.get(name).await?.status.map(|status| status.conditions).unwrap_or_default();
        let is = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        ensure!(is, "{when}: {name}: {conditions:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wall_clock_jumps_by_hours_and_only_what_goes_by_it_follows() -> Result<()> {
    let (stage, mut wall) = stage().await?;
    until("all is well", async || {
        ready(&stage, "at first").await?;
        serves(&stage, "at first").await
    })
    .await;
    signed(&stage, &wall).await?;
    stage.place.ended(&["token", "create", "late", "--ttl", "15m"]).await?;
    ensure!(tokens(&stage).await?.contains("good"));
    let (mut given, then) = cookie(&stage, "0102030405060708").await?;
    ensure!((then - wall.now().as_second()).abs() < SLACK, "a cookie of {then}");
    let key = format!("k1:{SECRET}");
    for (n, offset) in [6 * HOUR, -6 * HOUR, 48 * HOUR, 0].into_iter().enumerate() {
        let when = format!("{:+} h", offset / HOUR);
        // A member's answer that is some seconds old.
        let name = format!("web.shop.svc.{}.atoll.internal", MEMBERS[n % 2]);
        until("an answer that has aged", async || {
            let (left, _) = forwarded(&stage, &name).await?;
            ensure!((2..=3).contains(&left), "{left} s left");
            Ok(())
        })
        .await;
        wall.jump(offset)?;
        // By the other clock: what was kept is as old as it was, and goes on being given.
        let (left, _) = forwarded(&stage, &name).await?;
        ensure!(left <= 3, "{when}: {left} s left");
        serves(&stage, &when).await?;
        // By the wall clock, at once.
        until("signatures follow", async || signed(&stage, &wall).await).await;
        let (new, then) = cookie(&stage, &given).await?;
        ensure!((then - wall.now().as_second()).abs() < SLACK, "{when}: a cookie of {then}");
        given = new;
        // RFC 8945 §5.2.3: a client by the real clock is outside the fudge, and inside it once the clocks agree.
        let update = stage.nsupdate(Some(&key), &format!("update add h{n}.example.com 60 A 192.0.2.{n}")).await;
        ensure!(update.is_ok() == (offset == 0), "{when}: {update:?}");
        // Heartbeats, health and connections do not notice.
        let end = tokio::time::Instant::now() + BEATS;
        while tokio::time::Instant::now() < end {
            ready(&stage, &when).await?;
            serves(&stage, &when).await?;
            sleep(Duration::from_millis(500)).await;
        }
        // A token's end is a point of the wall clock.
        if offset > HOUR {
            ensure!(!tokens(&stage).await?.contains("good"), "{when}: {}", tokens(&stage).await?);
        }
    }
    stage.end().await
}

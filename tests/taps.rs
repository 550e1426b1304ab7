//! Who looks on at DNS queries: the query log, dnstap as Debian's `fstrm_capture` collects it and `dnstap-ldns` reads it, and the whole
//! decision as `atoll dns query --trace` tells it.

#[path = "up/world.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod world;

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};
use world::{FREE, Place, Up, until};

/// More than the frame that begins a file.
const FRAMES_BYTES_MIN: u64 = 200;
const NAME: &str = "web.shop.svc.prod-eu.atoll.internal.";

fn capture(socket: &Path, file: &Path) -> Result<Child> {
    let mut command = Command::new("fstrm_capture");
    command.args(["-t", "protobuf:dnstap.Dnstap", "-u"]).arg(socket).arg("-w").arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().context("fstrm_capture is missing: install fstrm-bin")
}

/// Ends a collector as its operator would, so that its file is whole.
async fn end(mut collector: Child) -> Result<()> {
    kill(Pid::from_raw(collector.id().context("it has ended already")?.cast_signed()), Signal::SIGTERM)?;
    collector.wait().await?;
    Ok(())
}

/// What a collector gets while there are queries.
async fn collected(place: &Place, up: &Up, socket: &Path, round: &str) -> String {
    until("messages at the collector", async || {
        let file = place.at(&format!("{round}.dnstap"));
        let collector = capture(socket, &file)?;
        // It writes by the block; the first queries may go by before Atoll has found it.
        until("a block of frames", async || {
            up.dig(NAME).await?;
            let length = std::fs::metadata(&file)?.len();
            ensure!(length > FRAMES_BYTES_MIN, "only {length} octets");
            Ok(())
        })
        .await;
        end(collector).await?;
        let read = Command::new("dnstap-ldns").arg("-y").arg("-r").arg(&file).output().await;
        let read = read.context("dnstap-ldns is missing: install dnstap-ldns")?;
        let text = String::from_utf8_lossy(&read.stdout).into_owned();
        ensure!(text.contains("CLIENT_RESPONSE"), "{text}{}", String::from_utf8_lossy(&read.stderr));
        Ok(text)
    })
    .await
}

/// The whole decision: for a member's name, for a service from elsewhere, for a network whose word the server takes from nobody.
async fn explained(place: &Place) -> Result<()> {
    const SERVICE: &str = "web.shop.svc.atoll.internal";
    const NETWORK: [&str; 2] = ["--ecs", "203.0.113.0/24"];
    let there = "as it would be answered there";
    for (words, says) in [
        (
            vec![NAME, "--trace"],
            vec!["below cluster prod-eu, asked for web.shop.svc.cluster.local", "NOERROR from 127."],
        ),
        (
            vec![SERVICE, "--from", "eu-central", "--trace"],
            vec!["region eu-central as asked", "nearest: prod-eu", there],
        ),
        ([&[SERVICE, "--trace"], &NETWORK[..]].concat(), vec!["the asker comes from outside", there]),
        ([&[SERVICE], &NETWORK[..]].concat(), vec!["NOERROR from 127.", "dns.ecs"]),
    ] {
        let traced = words.contains(&"--trace");
        let told = place.ended(&[&["dns", "query"], &words[..]].concat()).await?;
        told.says(&words.join(" "), 0, &says);
        let stages = ["asker  ", "name  ", "cache  ", "health  ", "answer  ", "topology  generation"];
        told.says(&words.join(" "), 0, if traced { &stages } else { &[] });
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_logged_and_collected_and_a_new_collector_gets_the_next_ones() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let place = Place::new()?;
    let (log, socket) = (place.at("queries.log"), place.at("tap.sock"));
    let taps =
        format!("dns: {{queryLog: {{sample: 1, path: '{}'}}, dnstap: 'unix:{}'}}\n", log.display(), socket.display());
    let config = place.file("up.yaml", &format!("{FREE}{taps}"))?;
    let up = place.up(&["--members", "prod-eu", "--config", &config.display().to_string()]).await?;
    for round in ["first", "second"] {
        let text = collected(&place, &up, &socket, round).await;
        for word in ["CLIENT_QUERY", "CLIENT_RESPONSE", "127.0.0.1", NAME, "identity: \"dns", "NOERROR", "UDP"] {
            assert!(text.contains(word), "{round}: no {word} in\n{text}");
        }
    }
    let text = std::fs::read_to_string(&log)?;
    let line: Value = serde_json::from_str(text.lines().last().context("an empty log")?)?;
    assert_eq!((&line["name"], &line["type"], &line["rcode"]), (&NAME.into(), &"A".into(), &0.into()), "{line}");
    assert!(line["transport"] == "udp" && line["answers"].as_u64() > Some(0), "{line}");
    explained(&place).await?;
    // Moved away, it is made anew.
    std::fs::rename(&log, place.at("queries.log.1"))?;
    until("a new log", async || {
        up.dig(NAME).await?;
        ensure!(std::fs::metadata(&log)?.len() > 0, "empty");
        Ok(())
    })
    .await;
    assert_eq!(up.interrupt().await?, Some(0));
    Ok(())
}

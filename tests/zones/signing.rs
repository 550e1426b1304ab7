//! Signed zones before validators: delv with our key as its trust anchor, and the checkers of whole zones.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atoll_api::kinds::{TrafficPolicy, Zone};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::timeout;

use crate::stage::{SECRET, Stage, run, text};
use crate::world::until;

/// Delv gives up on a server that says nothing after ten seconds; longer it only waits for itself: in BIND 9.18 the answer may come between
/// its look whether there is one and its wait for it (`isc_app_ctxrun`, `isc_app_ctxsuspend`), and then it waits for ever. It is asked again.
const DELV_MAX: Duration = Duration::from_secs(25);

/// What delv says of a name, with the zone's present keys as the anchor.
pub(crate) async fn delv(stage: &Stage, apex: &str, words: &[&str]) -> Result<String> {
    let (address, port) = stage.dns();
    let keys = stage.dig(&["+short", "DNSKEY", apex]).await?;
    let first = keys.lines().next().context("no DNSKEY")?;
    let mut fields = first.splitn(4, ' ');
    let (flags, protocol, algorithm) = (fields.next(), fields.next(), fields.next());
    let key: String = fields.next().unwrap_or_default().split_whitespace().collect();
    let (flags, protocol, algorithm) = (flags.unwrap_or("?"), protocol.unwrap_or("?"), algorithm.unwrap_or("?"));
    let anchor = format!("trust-anchors {{ \"{apex}.\" static-key {flags} {protocol} {algorithm} \"{key}\"; }};\n");
    let file = stage.place.file(&format!("anchor-{apex}"), &anchor)?;
    let (at, file, root) = (format!("@{address}"), text(&file), format!("+root={apex}"));
    let mut all = vec![at.as_str(), "-p", port, "-a", &file, &root];
    all.extend(words);
    for _ in 0..2 {
        if let Ok(ended) = timeout(DELV_MAX, run("delv", "bind9-dnsutils", &all, "")).await {
            return Ok(ended?.1);
        }
    }
    anyhow::bail!("delv does not end, twice: {all:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_finds_every_answer_of_a_signed_zone_secure() -> Result<()> {
    let stage = Stage::new().await?;
    stage.zone(json!({"dnssec": {"enabled": true}})).await?;
    stage.zone(json!({"apex": "plain.example.com", "ns": ["ns1.example.com"], "records": [{"name": "www", "type": "A", "values": ["192.0.2.90"]}]})).await?;
    stage.zone(json!({"apex": "safe.example.com", "ns": ["ns1.example.com"], "dnssec": {"enabled": true}, "records": [{"name": "www", "type": "A", "values": ["192.0.2.91"]}]})).await?;
    // An answer that a policy decides.
    let policies: Api<TrafficPolicy> = Api::namespaced(stage.hub.clone(), "default");
    let policy = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": {"name": "shop"},
        "spec": {"hosts": ["shop.example.com"], "strategy": [{"policy": "nearest"}], "ttlSeconds": 5}});
    policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
    let secure = "fully validated";
    for (what, words, says) in [
        ("an address", vec!["www.example.com", "A"], vec![secure, "192.0.2.80"]),
        ("a wildcard", vec!["x.wild.example.com", "TXT"], vec![secure, "from the wildcard"]),
        ("an alias", vec!["alias.example.com", "A"], vec![secure, "192.0.2.80"]),
        ("no data", vec!["www.example.com", "AAAA"], vec!["negative response, fully validated"]),
        ("no name", vec!["nowhere.example.com", "A"], vec!["negative response, fully validated"]),
        ("an inner name", vec!["empty.example.com", "A"], vec!["negative response, fully validated"]),
        ("no data by a wildcard", vec!["x.wild.example.com", "A"], vec!["negative response, fully validated"]),
        ("the keys", vec!["example.com", "DNSKEY"], vec![secure]),
        ("the SOA", vec!["example.com", "SOA"], vec![secure]),
        ("CDS", vec!["example.com", "CDS"], vec![secure]),
        ("no DS of a delegation", vec!["sub.example.com", "DS"], vec!["negative response, fully validated"]),
        ("an unsigned child", vec!["www.plain.example.com", "A"], vec!["unsigned answer", "192.0.2.90"]),
        ("a signed child", vec!["www.safe.example.com", "A"], vec![secure, "192.0.2.91"]),
    ] {
        until(what, async || {
            let said = delv(&stage, "example.com", &words).await?;
            ensure!(says.iter().all(|word| said.contains(word)), "{said}");
            Ok(())
        })
        .await;
    }
    let said = delv(&stage, "example.com", &["shop.example.com", "A"]).await?;
    assert!(said.contains("fully validated"), "an answer by policy: {said}");
    // Without DO nothing is signed, and no name is no name.
    let plain = stage.dig(&["nowhere.example.com"]).await?;
    assert!(plain.contains("status: NXDOMAIN") && !plain.contains("RRSIG"), "{plain}");
    // The same signature again, and on every answer's whole life.
    let signature = async || stage.dig(&["+dnssec", "+short", "www.example.com"]).await;
    let first = signature().await?;
    assert!(first.lines().any(|line| line.starts_with("A 13 ")), "an answer and its RRSIG: {first}");
    assert_eq!(signature().await?, first);

    whole_zone_is_sound(&stage).await?;
    roll(&stage).await?;
    stage.end().await
}

async fn whole_zone_is_sound(stage: &Stage) -> Result<()> {
    let key = format!("hmac-sha256:k1:{SECRET}");
    let zone = stage.dig(&["AXFR", "example.com", "-y", &key, "+onesoa", "+nocomments", "+nostats", "+nocmd"]).await?;
    let zone: String =
        zone.lines().filter(|line| !line.contains("\tTSIG\t")).fold(String::new(), |all, line| all + line + "\n");
    let file = text(&stage.place.file("signed.zone", &zone)?);
    for (tool, package, words) in [
        ("dnssec-verify", "bind9-utils", vec!["-z", "-o", "example.com", &file]),
        ("ldns-verify-zone", "ldnsutils", vec![&file]),
        ("kzonecheck", "knot-dnssecutils", vec!["-o", "example.com", "-d", "on", &file]),
        ("named-checkzone", "bind9-utils", vec!["-i", "local", "example.com", &file]),
        ("nsd-checkzone", "nsd", vec!["example.com", &file]),
    ] {
        let (ok, said) = run(tool, package, &words, "").await?;
        assert!(ok, "{tool}: {said}");
    }
    Ok(())
}

/// A rollover: two keys sign, the old one goes; a validator that knows either is never left alone.
async fn roll(stage: &Stage) -> Result<()> {
    let zones: Api<Zone> = Api::all(stage.hub.clone());
    let keys = async || Ok::<_, anyhow::Error>(stage.dig(&["+short", "DNSKEY", "example.com"]).await?.lines().count());
    for (generation, retired, count) in [(2, 0, 2), (2, 1, 1)] {
        let patch = json!({"spec": {"dnssec": {"keyGeneration": generation, "retiredGeneration": retired}}});
        zones.patch("example-com", &PatchParams::default(), &Patch::Merge(&patch)).await?;
        until("so many keys", async || {
            ensure!(keys().await? == count, "not yet");
            Ok(())
        })
        .await;
        let said = delv(stage, "example.com", &["www.example.com", "A"]).await?;
        assert!(said.contains("fully validated"), "generation {generation}: {said}");
    }
    Ok(())
}

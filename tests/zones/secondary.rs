//! Real secondaries: Knot and NSD pull the zone with TSIG, by TCP and by TLS (RFC 9103), are told of changes, take differences, and answer
//! what we answer.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::stage::{SECRET, Stage, free_port, program, run, text};
use crate::world::{FREE, until};

fn start(name: &str, package: &str, words: &[&str], log: &Path) -> Result<Child> {
    let file = std::fs::File::create(log)?;
    let mut command = Command::new(program(name, package)?);
    command.args(words).kill_on_drop(true).stdin(Stdio::null());
    Ok(command.stdout(file.try_clone()?).stderr(file).spawn()?)
}

/// What a secondary answers.
async fn ask(port: u16, words: &[&str]) -> Result<String> {
    let port = port.to_string();
    let mut all = vec!["@127.0.0.1", "-p", &port, "+short", "+time=2", "+tries=1"];
    all.extend(words);
    Ok(run("dig", "bind9-dnsutils", &all, "").await?.1.trim().to_owned())
}

/// Both have the same serial and this record.
async fn agrees(stage: &Stage, port: u16, name: &str, want: &str) -> Result<()> {
    until("the secondary follows", async || {
        let (ours, theirs) =
            (stage.dig(&["+short", "SOA", "example.com"]).await?, ask(port, &["SOA", "example.com"]).await?);
        ensure!(ours.trim() == theirs, "{ours} {theirs}");
        let got = ask(port, &[name]).await?;
        ensure!(got == want, "{name}: {got}");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn knot_follows_by_notify_and_differences() -> Result<()> {
    let stage = Stage::new().await?;
    let port = free_port()?;
    let (address, dns) = stage.dns();
    let dir = stage.place.at("knot");
    std::fs::create_dir_all(&dir)?;
    let at = text(&dir);
    let conf = format!(
        "server:\n  rundir: {at}\n  listen: 127.0.0.1@{port}\ndatabase:\n  storage: {at}\nlog:\n- target: stdout\n  any: info\n\
         key:\n- id: k1\n  algorithm: hmac-sha256\n  secret: {SECRET}\nremote:\n- id: atoll\n  address: {address}@{dns}\n  key: k1\n\
         acl:\n- id: told\n  address: 127.0.0.1\n  key: k1\n  action: notify\n\
         template:\n- id: default\n  storage: {at}\n  master: atoll\n  acl: told\n- id: member\n  storage: {at}\n  master: atoll\n  acl: told\n\
         zone:\n- domain: example.com\n- domain: catalog.example\n  catalog-role: interpret\n  catalog-template: member\n"
    );
    let conf = stage.place.file("knot.conf", &conf)?;
    let told = json!([{"address": format!("127.0.0.1:{port}"), "tsig": "k1"}]);
    stage.zone(json!({"notify": told})).await?;
    stage.zone(json!({"apex": "catalog.example", "ns": [], "records": [], "catalog": true, "notify": told})).await?;
    let log = stage.place.at("knot.log");
    let mut knot = start("knotd", "knot", &["-c", &text(&conf)], &log)?;
    agrees(&stage, port, "www.example.com", "192.0.2.80").await?;

    let key = format!("k1:{SECRET}");
    stage.nsupdate(Some(&key), "update add new.example.com 60 A 192.0.2.33").await?;
    agrees(&stage, port, "new.example.com", "192.0.2.33").await?;
    stage.nsupdate(Some(&key), "update delete new.example.com").await?;
    agrees(&stage, port, "new.example.com", "").await?;
    let said = std::fs::read_to_string(&log)?;
    for word in ["AXFR, incoming", "notify, incoming", "IXFR, incoming"] {
        assert!(said.contains(word), "no `{word}` in {said}");
    }
    // A zone that the hub gets, the secondary gets by the catalog.
    stage.zone(json!({"apex": "other.example", "ns": ["ns.other.example"], "records": [{"name": "www", "type": "A", "values": ["192.0.2.99"]}]})).await?;
    until("the catalog's new member", async || {
        let got = ask(port, &["www.other.example"]).await?;
        ensure!(got == "192.0.2.99", "{got}");
        Ok(())
    })
    .await;
    assert!(stage.dig(&["version.catalog.example", "TXT"]).await?.contains("status: REFUSED"));
    knot.start_kill().context("knotd has ended")?;
    knot.wait().await?;
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nsd_follows_and_the_checkers_find_nothing() -> Result<()> {
    let stage = Stage::new().await?;
    let port = free_port()?;
    let (address, dns) = stage.dns();
    let dir = stage.place.at("nsd");
    std::fs::create_dir_all(&dir)?;
    let at = text(&dir);
    let conf = format!(
        "server:\n  ip-address: 127.0.0.1@{port}\n  zonesdir: \"{at}\"\n  database: \"\"\n  pidfile: \"{at}/pid\"\n  xfrdfile: \"{at}/xfrd\"\n  \
         xfrdir: \"{at}\"\n  zonelistfile: \"{at}/list\"\n  username: \"\"\n  verbosity: 2\n  server-count: 1\nremote-control:\n  control-enable: no\n\
         key:\n  name: k1\n  algorithm: hmac-sha256\n  secret: \"{SECRET}\"\n\
         zone:\n  name: example.com\n  zonefile: \"{at}/example.com\"\n  allow-notify: 127.0.0.1 k1\n  request-xfr: {address}@{dns} k1\n"
    );
    let conf = stage.place.file("nsd.conf", &conf)?;
    let records: Vec<_> = (0..5000)
        .map(|i| json!({"name": format!("host-{i}"), "type": "A", "values": [format!("10.0.{}.{}", i / 250, i % 250)]}))
        .collect();
    let records: Vec<_> = records
        .into_iter()
        .chain([
            json!({"name": "ns1", "type": "A", "values": ["127.0.0.1"]}),
            json!({"name": "sub", "type": "NS", "values": ["ns.sub.example.com."]}),
            json!({"name": "ns.sub", "type": "A", "values": ["192.0.2.53"]}),
            json!({"name": "svc", "type": "HTTPS", "values": ["1 . alpn=\"h2,h3\""]}),
            json!({"name": "place", "type": "LOC", "values": ["52 22 23 N 4 53 32 E -2m 0m 10000m 10m"]}),
            json!({"name": "@", "type": "CAA", "values": ["0 issue \"ca.example.net\""]}),
            json!({"name": "old", "type": "DNAME", "values": ["new.example.com."]}),
        ])
        .collect();
    stage.zone(json!({"records": records, "notify": [{"address": format!("127.0.0.1:{port}"), "tsig": "k1"}]})).await?;
    let log = stage.place.at("nsd.log");
    let mut nsd = start("nsd", "nsd", &["-d", "-c", &text(&conf)], &log)?;
    agrees(&stage, port, "host-4999.example.com", "10.0.19.249").await?;
    let key = format!("k1:{SECRET}");
    stage.nsupdate(Some(&key), "update add new.example.com 60 A 192.0.2.33").await?;
    agrees(&stage, port, "new.example.com", "192.0.2.33").await?;
    assert_eq!(
        stage.dig(&["+short", "x.y.old.example.com", "CNAME"]).await?.lines().last(),
        Some("x.y.new.example.com.")
    );
    nsd.start_kill().context("nsd has ended")?;
    nsd.wait().await?;

    let zone = stage
        .dig(&[
            "AXFR",
            "example.com",
            "-y",
            &format!("hmac-sha256:{key}"),
            "+onesoa",
            "+nocomments",
            "+nostats",
            "+nocmd",
        ])
        .await?;
    assert!(zone.lines().count() > 5000, "{zone}");
    let refused = stage.dig(&["AXFR", "example.com"]).await?;
    assert!(refused.contains("Transfer failed"), "{refused}");
    let zone: String =
        zone.lines().filter(|line| !line.contains("\tTSIG\t")).fold(String::new(), |all, line| all + line + "\n");
    let file = text(&stage.place.file("example.com.zone", &zone)?);
    for (tool, package, words) in [
        ("named-checkzone", "bind9-utils", vec!["-i", "local", "example.com", &file]),
        ("kzonecheck", "knot-dnssecutils", vec!["-o", "example.com", &file]),
        ("ldns-read-zone", "ldnsutils", vec![&file]),
        ("nsd-checkzone", "nsd", vec!["example.com", &file]),
    ] {
        let (ok, said) = run(tool, package, &words, "").await?;
        assert!(ok, "{tool}: {said}");
    }
    stage.end().await
}

/// A certificate that is its own authority, and its key.
fn certificate(dir: &Path, name: &str) -> Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
    let (cert, key) = (dir.join("tls.crt"), dir.join("tls.key"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((text(&cert), text(&key)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_goes_over_tls_to_nsd_and_kdig() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ((cert, key), tls, port) = (certificate(dir.path(), "dns.example")?, free_port()?, free_port()?);
    let listen = FREE.replace("dns: '127.0.0.1:0'", &format!("dns: '127.0.0.1:0', dnsTls: '127.0.0.1:{tls}'"));
    let stage = Stage::with("0", &format!("{listen}dns: {{tls: {{cert: {cert}, key: {key}}}}}\n")).await?;
    stage.zone(json!({"notify": [{"address": format!("127.0.0.1:{port}"), "tsig": "k1"}]})).await?;
    // RFC 9103 §7: the whole zone, and its changes, over TLS 1.3 with the ALPN "dot".
    let tls = tls.to_string();
    let signed = format!("hmac-sha256:k1:{SECRET}");
    let whole = ["@127.0.0.1", "-p", &tls, "+tls-hostname=dns.example", "-y", &signed];
    let trusted = format!("+tls-ca={cert}");
    let words = [&whole[..], &[&trusted, "example.com", "AXFR"]].concat();
    let (_, said) = run("kdig", "knot-dnsutils", &words, "").await?;
    ensure!(said.contains("192.0.2.80") && said.contains("\tTSIG\t") && !said.contains("WARNING"), "{said}");
    ensure!(said.matches("\tSOA\t").count() == 2, "{said}");
    let bare = ["@127.0.0.1", "-p", &tls, "+tls-hostname=dns.example", &trusted, "example.com", "AXFR"];
    let (_, said) = run("kdig", "knot-dnsutils", &bare, "").await?;
    ensure!(said.contains("REFUSED") && !said.contains("192.0.2.80"), "{said}");

    let at = stage.place.at("nsd");
    std::fs::create_dir_all(&at)?;
    let at = text(&at);
    let conf = format!(
        "server:\n  ip-address: 127.0.0.1@{port}\n  zonesdir: \"{at}\"\n  database: \"\"\n  pidfile: \"{at}/pid\"\n  xfrdfile: \"{at}/xfrd\"\n  \
         xfrdir: \"{at}\"\n  zonelistfile: \"{at}/list\"\n  username: \"\"\n  verbosity: 3\n  server-count: 1\n  tls-cert-bundle: \"{cert}\"\n\
         remote-control:\n  control-enable: no\n\
         key:\n  name: k1\n  algorithm: hmac-sha256\n  secret: \"{SECRET}\"\n\
         tls-auth:\n  name: atoll\n  auth-domain-name: \"dns.example\"\n\
         zone:\n  name: example.com\n  zonefile: \"{at}/example.com\"\n  allow-notify: 127.0.0.1 k1\n  request-xfr: 127.0.0.1@{tls} k1 atoll\n"
    );
    let conf = stage.place.file("nsd.conf", &conf)?;
    let log = stage.place.at("nsd.log");
    let mut nsd = start("nsd", "nsd", &["-d", "-c", &text(&conf)], &log)?;
    agrees(&stage, port, "www.example.com", "192.0.2.80").await?;
    stage.nsupdate(Some(&format!("k1:{SECRET}")), "update add new.example.com 60 A 192.0.2.33").await?;
    agrees(&stage, port, "new.example.com", "192.0.2.33").await?;
    nsd.start_kill().context("nsd has ended")?;
    nsd.wait().await?;
    stage.end().await
}

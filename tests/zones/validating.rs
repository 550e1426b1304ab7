//! The federation's own apex, signed, before real validators: members' names, federated ones, aliases into members, what is not there,
//! wildcards; delv and unbound with our key as their trust anchor, unbound as resolvers keep what they learn (RFC 8198, RFC 9156).

use std::process::Stdio;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::signing::delv;
use crate::stage::{Stage, free_port, program, run, text};
use crate::world::{FREE, until};

/// What is asked, and what a validator says of it: the status, whether it is secure, a word of the answer.
const ASKED: &[(&str, &str, &str, bool, &str)] = &[
    // What is not there comes first: whoever makes too much of a denial denies what is asked for afterwards.
    ("web.shop.svc.prod-eu.atoll.internal", "AAAA", "NOERROR", true, ""),
    ("web.shop.svc.prod-eu.atoll.internal", "TXT", "NOERROR", true, ""),
    ("web.shop.svc.prod-eu.atoll.internal", "A", "NOERROR", true, " IN A "),
    ("no.shop.svc.prod-eu.atoll.internal", "A", "NOERROR", true, ""),
    ("no.shop.svc.prod-eu.atoll.internal", "DS", "NOERROR", true, ""),
    ("web.shop.svc.atoll.internal", "MX", "NOERROR", true, ""),
    ("web.shop.svc.atoll.internal", "AAAA", "NOERROR", true, ""),
    ("web.shop.svc.atoll.internal", "A", "NOERROR", true, " IN A "),
    ("_http._tcp.web.shop.svc.atoll.internal", "SRV", "NOERROR", true, " IN SRV "),
    ("nothing.shop.svc.atoll.internal", "A", "NOERROR", true, ""),
    ("web.shop.svc.eu-central.region.atoll.internal", "A", "NOERROR", true, " IN A "),
    ("web.shop.svc.mars.region.atoll.internal", "A", "NOERROR", true, ""),
    ("web.shop.svc.prod.env.atoll.internal", "A", "NOERROR", true, " IN A "),
    ("web.shop.svc.nowhere.atoll.internal", "A", "NOERROR", true, ""),
    ("nowhere.atoll.internal", "A", "NOERROR", true, ""),
    // Names above names, ours and the members'.
    ("svc.atoll.internal", "A", "NOERROR", true, ""),
    ("shop.svc.atoll.internal", "A", "NOERROR", true, ""),
    ("prod-eu.atoll.internal", "A", "NOERROR", true, ""),
    ("prod-eu.atoll.internal", "DS", "NOERROR", true, ""),
    ("prod-eu.atoll.internal", "NS", "NOERROR", true, ""),
    ("svc.prod-eu.atoll.internal", "TXT", "NOERROR", true, ""),
    ("dns-version.prod-eu.atoll.internal", "TXT", "NOERROR", true, " IN TXT "),
    // Aliases that cross into a member, into the federation, out of a renamed subtree, to what is not there.
    ("shop-eu.atoll.internal", "A", "NOERROR", true, "web.shop.svc.prod-eu.atoll.internal."),
    ("shop.atoll.internal", "A", "NOERROR", true, "web.shop.svc.atoll.internal."),
    ("web.moved.atoll.internal", "A", "NOERROR", true, " IN DNAME "),
    ("no.moved.atoll.internal", "A", "NOERROR", true, " IN DNAME "),
    ("dangling.atoll.internal", "A", "NOERROR", true, "no.shop.svc.prod-eu.atoll.internal."),
    ("shop-eu.atoll.internal", "AAAA", "NOERROR", true, " IN CNAME "),
    // Wildcards: their answers, what they have not, an alias into a member behind one.
    ("x.wild.atoll.internal", "TXT", "NOERROR", true, "from the wildcard"),
    ("x.y.wild.atoll.internal", "TXT", "NOERROR", true, "from the wildcard"),
    ("x.wild.atoll.internal", "A", "NOERROR", true, ""),
    ("x.apps.atoll.internal", "A", "NOERROR", true, "web.shop.svc.prod-us.atoll.internal."),
    // The zone itself, and those below it.
    ("atoll.internal", "SOA", "NOERROR", true, " IN SOA "),
    ("atoll.internal", "NS", "NOERROR", true, " IN NS "),
    ("atoll.internal", "MX", "NOERROR", true, ""),
    ("safe.atoll.internal", "DS", "NOERROR", true, " IN DS "),
    ("www.safe.atoll.internal", "A", "NOERROR", true, "192.0.2.91"),
    ("no.safe.atoll.internal", "A", "NOERROR", true, ""),
    ("plain.atoll.internal", "DS", "NOERROR", true, ""),
    ("www.plain.atoll.internal", "A", "NOERROR", false, "192.0.2.90"),
    ("no.plain.atoll.internal", "A", "NXDOMAIN", false, ""),
    ("into-plain.atoll.internal", "A", "NOERROR", false, "192.0.2.90"),
];

async fn stage() -> Result<Stage> {
    let stage = Stage::with("prod-eu,prod-us", FREE).await?;
    let records = json!([
        {"name": "ns", "type": "A", "values": ["127.0.0.1"]},
        {"name": "shop-eu", "type": "CNAME", "values": ["web.shop.svc.prod-eu.atoll.internal."]},
        {"name": "shop", "type": "CNAME", "values": ["web.shop.svc.atoll.internal."]},
        {"name": "dangling", "type": "CNAME", "values": ["no.shop.svc.prod-eu.atoll.internal."]},
        {"name": "into-plain", "type": "CNAME", "values": ["www.plain.atoll.internal."]},
        {"name": "moved", "type": "DNAME", "values": ["shop.svc.prod-eu.atoll.internal."]},
        {"name": "*.wild", "type": "TXT", "values": ["from the wildcard"]},
        {"name": "*.apps", "type": "CNAME", "values": ["web.shop.svc.prod-us.atoll.internal."]},
    ]);
    let below = |apex: &str, ip: &str| json!({"apex": apex, "ns": ["ns.atoll.internal"], "records": [{"name": "www", "type": "A", "values": [ip]}]});
    stage.zone(json!({"apex": "atoll.internal", "ns": ["ns.atoll.internal"], "dnssec": {"enabled": true}, "records": records})).await?;
    let mut safe = below("safe.atoll.internal", "192.0.2.91");
    safe["dnssec"] = json!({"enabled": true});
    stage.zone(safe).await?;
    stage.zone(below("plain.atoll.internal", "192.0.2.90")).await?;
    until("the zones are signed and the members answer", async || {
        for (name, kind) in
            [("atoll.internal", "DNSKEY"), ("safe.atoll.internal", "DNSKEY"), ("safe.atoll.internal", "DS")]
        {
            ensure!(!stage.dig(&["+short", name, kind]).await?.trim().is_empty(), "{name} {kind}");
        }
        for name in [
            "web.shop.svc.prod-eu.atoll.internal",
            "web.shop.svc.prod-us.atoll.internal",
            "web.shop.svc.atoll.internal",
        ] {
            ensure!(stage.dig(&["+short", name]).await?.trim().starts_with("127."), "{name}");
        }
        Ok(())
    })
    .await;
    Ok(stage)
}

/// Words with one space between them.
fn plain(said: &str) -> String {
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Unbound as a validating resolver that knows nothing but our key.
async fn unbound(stage: &Stage) -> Result<(Child, u16)> {
    let (port, dir) = (free_port()?, stage.place.at("unbound"));
    std::fs::create_dir_all(&dir)?;
    let ((address, dns), at) = (stage.dns(), text(&dir));
    let keys = stage.dig(&["+short", "DNSKEY", "atoll.internal"]).await?;
    let key = keys.lines().next().unwrap_or_default();
    let conf = format!(
        "server:\n  interface: 127.0.0.1@{port}\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{at}\"\n  pidfile: \"\"\n  \
         use-syslog: no\n  logfile: \"\"\n  val-log-level: 2\n  module-config: \"validator iterator\"\n  do-not-query-localhost: no\n  \
         aggressive-nsec: yes\n  qname-minimisation: yes\n  harden-below-nxdomain: yes\n  harden-dnssec-stripped: yes\n  num-threads: 1\n  \
         trust-anchor: \"atoll.internal. IN DNSKEY {key}\"\n\
         remote-control:\n  control-enable: no\n\
         stub-zone:\n  name: \"atoll.internal\"\n  stub-addr: {address}@{dns}\n"
    );
    let conf = text(&stage.place.file("unbound.conf", &conf)?);
    let log = std::fs::File::create(stage.place.at("unbound.log"))?;
    let mut command = Command::new(program("unbound", "unbound")?);
    command.args(["-d", "-c", &conf]).kill_on_drop(true).stdin(Stdio::null());
    let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
    Ok((child, port))
}

#[tokio::test(flavor = "multi_thread")]
async fn validators_find_no_translated_and_no_federated_answer_bogus() -> Result<()> {
    let stage = stage().await?;
    let mut wrong = Vec::new();
    for (name, kind, _, secure, word) in ASKED {
        let said = delv(&stage, "atoll.internal", &[name, kind]).await?;
        let found = if *secure { "fully validated" } else { "unsigned answer" };
        // delv's "negative response, unsigned answer" has no word of its own for what lies below an insecure delegation.
        let told = said.contains(found) || (!*secure && said.contains("unsigned"));
        if !told || !plain(&said).contains(word) {
            wrong.push(format!("delv on {name} {kind}: {said}"));
        }
    }
    let (mut running, port) = unbound(&stage).await?;
    let port = port.to_string();
    let ask = async |name: &str, kind: &str| {
        let words = ["@127.0.0.1", "-p", &port, "+dnssec", "+time=20", "+tries=3", name, kind];
        Ok::<_, anyhow::Error>(run("dig", "bind9-dnsutils", &words, "").await?.1)
    };
    until("unbound answers", async || {
        let said = ask("atoll.internal", "SOA").await?;
        ensure!(said.contains("status: NOERROR"), "{said}");
        Ok(())
    })
    .await;
    // Twice: what is kept is made answers of.
    for round in 0..2 {
        for (name, kind, status, secure, word) in ASKED {
            let said = ask(name, kind).await?;
            let flags = said.lines().find(|line| line.contains("flags: qr")).unwrap_or_default();
            let right = said.contains(&format!("status: {status}"))
                && flags.split(';').any(|part| part.contains("flags:") && part.contains(" ad") == *secure)
                && plain(&said).contains(word);
            if !right {
                wrong.push(format!("unbound, round {round}, on {name} {kind}: {said}"));
            }
        }
    }
    let log = std::fs::read_to_string(stage.place.at("unbound.log"))?;
    ensure!(wrong.is_empty(), "{}\n{log}", wrong.join("\n"));
    ensure!(!log.contains("validation failure"), "{log}");
    running.start_kill()?;
    running.wait().await?;
    stage.end().await
}

//! Dynamic updates by nsupdate: allowed by key, atomic, stored by the hub, visible at once; the condition of a Zone with bad records.

use anyhow::Result;
use atoll_api::kinds::{DNSEndpoint, Zone};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::stage::{SECRET, Stage};
use crate::world::until;

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_stored_and_answered_at_once() -> Result<()> {
    let stage = Stage::new().await?;
    stage.zone(json!({})).await?;
    let key = format!("k1:{SECRET}");
    let k1 = Some(key.as_str());
    let records: Api<DNSEndpoint> = Api::namespaced(stage.hub.clone(), "atoll-system");
    for i in 0..20 {
        stage.nsupdate(k1, &format!("update add h{i}.example.com 60 A 192.0.2.{i}")).await?;
        let got = stage.dig(&["+short", &format!("h{i}.example.com")]).await?;
        assert_eq!(got.trim(), format!("192.0.2.{i}"), "read your own write");
    }
    assert_eq!(records.get("update-example-com").await?.spec.endpoints.len(), 20);
    let txt = "update add t.example.com 60 TXT \"heritage=external-dns,external-dns/owner=me\"";
    stage.nsupdate(k1, &format!("prereq nxdomain t.example.com\n{txt}")).await?;
    let got = stage.dig(&["+short", "TXT", "t.example.com"]).await?;
    assert_eq!(got.trim(), "\"heritage=external-dns,external-dns/owner=me\"");
    for (what, who, script, says) in [
        ("no key", None, "update add x.example.com 60 A 192.0.2.1", "REFUSED"),
        (
            "an unknown key",
            Some("k2:c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2g="),
            "update add x.example.com 60 A 192.0.2.1",
            "BADKEY",
        ),
        (
            "a wrong secret",
            Some("k1:b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA=="),
            "update add x.example.com 60 A 192.0.2.1",
            "BADSIG",
        ),
        (
            "a prerequisite",
            k1,
            "prereq yxdomain nowhere.example.com\nupdate add x.example.com 60 A 192.0.2.1",
            "NXDOMAIN",
        ),
        (
            "a set that is there",
            k1,
            "prereq nxrrset t.example.com TXT\nupdate add x.example.com 60 A 192.0.2.1",
            "YXRRSET",
        ),
        (
            "a record of people's",
            k1,
            "update delete www.example.com A\nupdate add x.example.com 60 A 192.0.2.1",
            "REFUSED",
        ),
        ("another zone", k1, "update add x.example.net 60 A 192.0.2.1", "NOTZONE"),
    ] {
        let Err(error) = stage.nsupdate(who, script).await else { panic!("{what}: done") };
        assert!(error.to_string().contains(says), "{what}: {error}");
        assert_eq!(stage.dig(&["+short", "x.example.com"]).await?.trim(), "", "{what}: nothing is done by halves");
    }
    stage
        .nsupdate(
            k1,
            "prereq yxrrset t.example.com TXT\nupdate delete t.example.com\nupdate delete h0.example.com A 192.0.2.0",
        )
        .await?;
    for name in ["t.example.com", "h0.example.com"] {
        assert!(stage.dig(&[name, "ANY"]).await?.contains("status: NOERROR"), "{name} ANY is minimal");
        assert!(stage.dig(&[name, "TXT"]).await?.contains("status: NXDOMAIN"), "{name}");
    }
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_with_a_bad_record_names_it_and_serves_the_others() -> Result<()> {
    let stage = Stage::new().await?;
    let file = "$TTL 60\nfile A 192.0.2.7\nbroken A 1.2.3\n$INCLUDE /etc/passwd\n";
    stage.zone(json!({})).await?;
    let zones: Api<Zone> = Api::all(stage.hub.clone());
    let patch = json!({"spec": {"zoneFile": {"text": file}, "tsigKeys": {"k1": "k1", "gone": "nowhere"}}});
    zones.patch("example-com", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    let message = until("the verdict", async || {
        let status = zones.get("example-com").await?.status.unwrap_or_default();
        let found = status.conditions.into_iter().find(|c| c.type_ == "Accepted" && c.status == "False");
        found.map(|c| c.message).ok_or_else(|| anyhow::anyhow!("accepted"))
    })
    .await;
    for says in [
        "zone file line 3: record `broken.example.com. A`",
        "line 4: $INCLUDE is refused",
        "TSIG key `gone`: Secret atoll-system/nowhere: there is none",
    ] {
        assert!(message.contains(says), "{message}");
    }
    until("the others are served", async || {
        let got = stage.dig(&["+short", "file.example.com"]).await?;
        anyhow::ensure!(got.trim() == "192.0.2.7", "{got}");
        Ok(())
    })
    .await;
    stage.end().await
}

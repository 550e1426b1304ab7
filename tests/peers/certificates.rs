//! Certificates from pebble, its random failures on: many hosts, a leader that dies, renewal when the CA says so, a CA that is gone.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::authority::{Authority, REPLICAS};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs programs of the testbed's: ./check has a step for it"]
async fn many_hosts_get_certificates_although_the_leader_dies() -> Result<()> {
    let mut ca = Authority::open(json!({}), "").await?;
    for at in REPLICAS {
        ca.gateway(at).await?;
    }
    let hosts: Vec<String> = (1..=16).map(|n| format!("host-{n}.example.com")).collect();
    ca.listen("main", &hosts).await?;
    ca.until("orders are open, their challenges shown", async || {
        let (orders, challenges) = (ca.count("order").await?, ca.count("challenge").await?);
        ensure!(orders > 0 && challenges > 0, "{orders} {challenges}");
        Ok(())
    })
    .await;
    let dead = ca.leader().await?;
    ca.kill(dead).await?;
    let alive = REPLICAS.into_iter().find(|at| *at != dead).unwrap_or(dead);
    ca.name_at(&[alive]).await?;
    ca.until("the other one leads, and says that all is done", async || {
        let said = ca.condition("main").await?;
        ensure!(said[0] == "True" && said[1] == "Issued" && ca.leader().await? == alive, "{said:?}");
        Ok(())
    })
    .await;
    for host in &hosts {
        ca.browse(alive, host).await?;
    }
    ca.until("nothing stays behind", async || {
        let (orders, challenges) = (ca.count("order").await?, ca.count("challenge").await?);
        ensure!(orders == 0 && challenges == 0, "{orders} {challenges}");
        Ok(())
    })
    .await;
    ensure!(ca.count("account").await? == 1);

    // Two replicas again: the CA is told to look once both of them answer, at either.
    ca.gateway(dead).await?;
    ca.name_at(&[dead]).await?;
    let more: Vec<String> = (1..=4).map(|n| format!("more-{n}.example.com")).collect();
    ca.listen("more", &more).await?;
    for host in &more {
        ca.until("it is served by both", async || {
            for at in REPLICAS {
                ca.browse(at, host).await?;
            }
            Ok(())
        })
        .await;
    }
    ca.close().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs programs of the testbed's: ./check has a step for it"]
async fn what_is_refused_is_said_and_the_others_go_on() -> Result<()> {
    let told = json!({"domainBlocklist": ["blocked.example.com"]});
    let mut ca = Authority::open(told, "").await?;
    let [at, _] = REPLICAS;
    ca.name_at(&[at]).await?;
    ca.end().await?;
    ca.gateway(at).await?;
    let host = |name: &str| vec![format!("{name}.example.com")];
    // Somebody else's stays as it is.
    let made = rcgen::generate_simple_self_signed(host("own"))?;
    let pair = json!({"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()});
    ca.apply(
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "own-tls"},
        "stringData": pair}),
    )
    .await?;
    for name in ["good", "own", "blocked"] {
        ca.listen(name, &host(name)).await?;
    }
    ca.listen("wild", &["*.example.com".to_owned()]).await?;
    let says = async |name: &str, reason: &str, words: &[&str]| {
        ca.until(&format!("{name} is {reason}"), async || {
            let said = ca.condition(name).await?;
            ensure!(said[1] == reason && words.iter().all(|word| said[2].contains(word)), "{said:?}");
            Ok(())
        })
        .await;
    };
    says("good", "NotIssued", &["no word with the CA", "can't be reached", "tried again at"]).await;
    says("own", "RenewalFails", &["own-tls", "not made by ACME"]).await;
    says("wild", "NotIssued", &["`*.example.com`", "http-01"]).await;
    ca.begin().await?;
    let says = async |name: &str, reason: &str, words: &[&str]| {
        ca.until(&format!("{name} is {reason}"), async || {
            let said = ca.condition(name).await?;
            ensure!(said[1] == reason && words.iter().all(|word| said[2].contains(word)), "{said:?}");
            Ok(())
        })
        .await;
    };
    says("good", "Issued", &[]).await;
    says("blocked", "NotIssued", &["rejectedIdentifier", "tried again at"]).await;
    ca.browse(at, "good.example.com").await?;
    ensure!(ca.leaf("own.example.com").await?.trim() == made.cert.pem().replace('\r', "").trim());
    ca.until("an Event says so, too", async || {
        let events = ca.api("Event")?.list(&Default::default()).await?;
        let told = |event: &&kube::api::DynamicObject| {
            event.data["reason"] == "CertificateNotIssued" && event.data["involvedObject"]["name"] == "blocked"
        };
        ensure!(events.iter().any(|event| told(&event)));
        Ok(())
    })
    .await;

    // An Ingress asks in the same way.
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    ca.apply(json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "shop", "annotations": {"kubernetes.io/tls-acme": "true"}},
        "spec": {"ingressClassName": "atoll", "tls": [{"hosts": ["shop.example.com"], "secretName": "shop-tls"}],
            "rules": [{"host": "shop.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}}))
        .await?;
    ca.until("the Ingress has its certificate", async || ca.browse(at, "shop.example.com").await).await;

    // The CA wants it renewed now: the next leader asks, and is told.
    let before = ca.leaf("good.example.com").await?;
    let window = json!({"suggestedWindow": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}});
    let wish = json!({"certificate": before, "ariResponse": window.to_string()}).to_string();
    ca.managed("/set-renewal-info/", &["--data", &wish]).await?;
    ca.kill(at).await?;
    ca.gateway(at).await?;
    ca.until("it is renewed", async || {
        ensure!(ca.leaf("good.example.com").await? != before);
        ca.browse(at, "good.example.com").await
    })
    .await;

    // What was ordered is ordered again once it is gone, of a CA that forgot who we are.
    ca.end().await?;
    ca.begin().await?;
    ca.api("Secret")?.delete("good-tls", &Default::default()).await?;
    ca.until("it is back, by the CA's new root", async || ca.browse(at, "good.example.com").await).await;
    ca.close().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs programs of the testbed's: ./check has a step for it"]
async fn wildcards_are_proven_by_records_for_an_account_that_is_bound() -> Result<()> {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let told = json!({"externalAccountBindingRequired": true, "externalAccountMACKeys": {"kid-1": key}});
    let bound = ", challenge: dns-01, externalAccount: {keyId: kid-1, keySecret: default/eab}";
    let mut ca = Authority::open(told, bound).await?;
    for at in REPLICAS {
        ca.gateway(at).await?;
    }
    let listener = |name: &str, host: &str| json!({"name": name, "port": 443, "protocol": "HTTPS", "hostname": host, "tls": {"certificateRefs": [{"name": "all-tls"}]}});
    ca.apply(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "main", "annotations": {"kubernetes.io/tls-acme": "true"}},
        "spec": {"gatewayClassName": "atoll", "listeners": [listener("all", "*.example.com"), listener("apex", "example.com")]}}))
        .await?;
    let says = async |words: &[&str]| {
        ca.until(&words.join(", "), async || {
            let said = ca.condition("main").await?;
            ensure!(words.iter().all(|word| said[1] == *word || said[2].contains(word)), "{said:?}");
            Ok(())
        })
        .await;
    };
    let secret = async |key: &str| {
        ca.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "eab"}, "stringData": {"key": key}}))
            .await
    };
    says(&["NotIssued", "Secret `default/eab`: does not exist"]).await;
    secret(&key.replace('z', "y")).await?;
    says(&["NotIssued", "no account is given"]).await;
    secret(key).await?;
    says(&["Issued"]).await;
    for at in REPLICAS {
        ca.until("it is served", async || {
            ca.browse(at, "any.example.com").await?;
            ca.browse(at, "example.com").await
        })
        .await;
    }
    ca.until("no record stays behind", async || {
        let said = ca.stage.dig(&["TXT", "_acme-challenge.example.com", "+short"]).await?;
        ensure!(said.trim().is_empty() && ca.count("order").await? == 0, "{said}");
        Ok(())
    })
    .await;
    ca.close().await
}

//! kdig, a client of other people's making, over every transport that it speaks.
//!
//! It is in Debian's package knot-dnsutils; without it these tests fail and say so.

#![allow(clippy::unwrap_used, reason = "a stage that can't be set ends the test")]

mod stage;

use std::sync::Arc;

use atoll_dns::Config;
use serde_json::json;
use stage::*;
use tokio::process::Command;
use tokio::time::timeout;

/// What kdig prints.
async fn kdig(arguments: &[&str]) -> String {
    let ran = Command::new("kdig").args(arguments).output();
    let ran = timeout(PATIENCE * 2, ran).await.expect("kdig waits for ever");
    let ran = ran.unwrap_or_else(|e| panic!("kdig can't be run ({e}): install the package knot-dnsutils"));
    String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_answered_over_udp_tcp_tls_https_and_quic() {
    let mut t = federation();
    let endpoints = json!({"endpoints": [
        {"dnsName": "db.atoll.internal", "recordType": "A", "recordTTL": 30, "targets": ["192.0.2.7"]},
        {"dnsName": "big.atoll.internal", "recordType": "TXT", "targets": ["x".repeat(3000)]},
    ]});
    t.records.insert("ops/a".into(), Arc::new(serde_json::from_value(endpoints).unwrap()));
    let stage = Stage::everywhere(Config { instance: "dns-fra-1".into(), ..Config::default() }, t).await;
    let ends = stage.ends();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), &ends.pem).unwrap();
    let trusted = format!("+tls-ca={}", ca.path().display());
    let [plain, tls, https, quic] = [stage.addr, ends.tls, ends.https, ends.quic].map(|at| at.port().to_string());
    let secure = ["+tls-hostname=localhost", &trusted];
    let ways: [(&str, &str, Vec<&str>, &str); 6] = [
        ("UDP", &plain, vec!["+notcp"], "(UDP)"),
        ("TCP", &plain, vec!["+tcp"], "(TCP)"),
        ("TLS", &tls, [&["+tls"][..], &secure].concat(), "TLS session (TLS1.3)"),
        ("HTTPS", &https, [&["+https=/dns-query"][..], &secure].concat(), "HTTP session (HTTP/2-POST)"),
        (
            "HTTPS, GET",
            &https,
            [&["+https=/dns-query", "+https-get"][..], &secure].concat(),
            "HTTP session (HTTP/2-GET)",
        ),
        ("QUIC", &quic, [&secure[..], &["+quic"]].concat(), "QUIC session"),
    ];
    for (case, port, how, seen) in &ways {
        let common = ["@127.0.0.1", "-p", port, "+retry=0", "+nsid", "+edns"];
        let ask = async |name: &str, kind: &str| kdig(&[&common[..], how, &[name, kind]].concat()).await;
        let found = ask("db.atoll.internal", "A").await;
        for words in ["status: NOERROR", "192.0.2.7", "Flags: qr aa rd", "dns-fra-1", "ext-rcode: NOERROR", seen] {
            assert!(found.contains(words), "{case}: `{words}` is not in\n{found}");
        }
        assert!(!found.contains("WARNING"), "{case}:\n{found}");
        let none = ask("no.atoll.internal", "A").await;
        assert!(none.contains("status: NXDOMAIN") && none.contains("SOA"), "{case}:\n{none}");
        let big = ask("big.atoll.internal", "TXT").await;
        assert_eq!(big.contains("xxxxxxxx"), *case != "UDP", "{case}:\n{big}");
    }
    // Cut by UDP, it comes back by TCP by itself; a cookie goes out and comes back.
    let common = ["@127.0.0.1", "-p", &plain, "+cookie"];
    let big = kdig(&[&common[..], &["big.atoll.internal", "TXT"]].concat()).await;
    assert!(big.contains("xxxxxxxx") && big.contains("COOKIE"), "{big}");
    assert_eq!((big.matches("WARNING").count(), big.contains("retrying over TCP")), (1, true), "{big}");
    stage.end().await;
}

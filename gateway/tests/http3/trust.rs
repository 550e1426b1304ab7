//! Names, certificates of both sides, and what changes of them while HTTP/3 is served.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::quic::{Caller, LONG};
use crate::stage::{Stage, certificate, https};
use crate::world::{Made, gateway};

#[tokio::test]
async fn each_name_gets_its_certificate_and_no_connection_reaches_another_listener() {
    let stage = Stage::set("127.52.0.1", Made::default()).await;
    let (b, secret) = certificate("b", "*.b.test");
    stage.world.apply(secret).await;
    let mut passed = https("c", "c.test", "a");
    passed["protocol"] = json!("TLS");
    passed["tls"] = json!({"mode": "Passthrough"});
    stage.world.apply(gateway("main", json!([https("a", "a.test", "a"), https("b", "*.b.test", "b"), passed]))).await;
    let roots = [stage.roots[0].clone(), b];
    let began = Instant::now();
    let mut other = loop {
        match Caller::new("x.b.test", &roots).open(stage.world.https).await {
            Ok(client) => break client,
            Err(error) => assert!(began.elapsed() < LONG, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(other.get("x.b.test", "/").await.unwrap().status, 200);
    assert_eq!(other.get("a.test", "/").await.unwrap().status, 421, "opened for one name, asked for another");
    assert_eq!(stage.open().await.get("x.b.test", "/").await.unwrap().status, 421);
    for (name, alpn, why) in [
        ("unknown.test", "h3", "no listener takes that name"),
        ("c.test", "h3", "what is passed through is not ended here"),
        ("a.test", "h2", "another protocol"),
    ] {
        let refused = Caller { alpn, ..Caller::new(name, &roots) }.connect(stage.world.https).await;
        assert!(refused.is_err(), "{why}");
    }
}

#[tokio::test]
async fn a_certificate_is_swapped_and_the_next_connection_gets_it() {
    let stage = Stage::set("127.52.1.1", Made::default()).await;
    let mut before = stage.open().await;
    let (new, secret) = certificate("a", "a.test");
    stage.world.apply(secret).await;
    let began = Instant::now();
    let roots = [new];
    while let Err(error) = Caller::new("a.test", &roots).connect(stage.world.https).await {
        assert!(began.elapsed() < LONG, "{error}");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(stage.caller().connect(stage.world.https).await.is_err(), "the old one is gone");
    assert_eq!(before.get("a.test", "/").await.unwrap().status, 200, "who was there goes on");
}

/// An authority, and a certificate that it signed for `name`.
fn signed(name: &str) -> (String, (CertificateDer<'static>, Vec<u8>)) {
    let mut parameters = CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, "authority");
    let key = KeyPair::generate().unwrap();
    let authority = parameters.self_signed(&key).unwrap();
    let issuer = Issuer::new(parameters, key);
    let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    (authority.pem(), (certificate.der().clone(), key.serialize_der()))
}

#[tokio::test]
async fn clients_show_the_certificate_that_the_listener_asks_for_from_the_next_connection_on() {
    let stage = Stage::set("127.52.2.1", Made::default()).await;
    let (authority, known) = signed("client.test");
    let (_, stranger) = signed("client.test");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "clients", "namespace": "infra"},
        "data": {"ca.crt": authority}});
    stage.world.apply(map).await;
    let mut asking = gateway("main", json!([https("a", "a.test", "a")]));
    asking["spec"]["tls"] = json!({"frontend": {"default": {"validation":
        {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "clients"}]}}}});
    stage.world.apply(asking.clone()).await;
    let at = stage.world.https;
    let began = Instant::now();
    // The handshake of TLS 1.3 is over for the client before its certificate is looked at: the request tells.
    let served = async |identity: Option<(CertificateDer<'static>, Vec<u8>)>| {
        let mut client = (Caller { identity, ..stage.caller() }).open(at).await.ok()?;
        client.get("a.test", "/").await.ok().map(|answer| answer.status)
    };
    while served(None).await.is_some() {
        assert!(began.elapsed() < LONG, "clients without a certificate are still let in");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(served(Some(known)).await, Some(200));
    assert_eq!(served(Some(stranger)).await, None, "another authority vouches for it");
    asking["spec"]["tls"]["frontend"]["default"]["validation"]["mode"] = json!("AllowInsecureFallback");
    stage.world.apply(asking).await;
    let began = Instant::now();
    while served(None).await != Some(200) {
        assert!(began.elapsed() < LONG, "whoever comes is to be let in");
        sleep(Duration::from_millis(20)).await;
    }
}

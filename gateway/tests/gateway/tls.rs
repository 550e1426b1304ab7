//! HTTPS: certificates by server name, both HTTP versions, swapped while serving.

use base64::Engine as _;
use rcgen::{CertificateParams, KeyPair};
use rustls::{CipherSuite, ProtocolVersion, SupportedProtocolVersion, version};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};

use crate::backend::Pod;
use crate::client::{get_tls, tls};
use crate::world::{World, gateway, import, listener, route, topology};

/// A certificate that signs itself, and its Secret in `infra`.
fn certificate(secret: &str, host: &str) -> (CertificateDer<'static>, Value) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
    let object = self::secret(secret, &certificate.pem(), &key.serialize_pem());
    (certificate.der().clone(), object)
}

fn secret(name: &str, certificate: &str, key: &str) -> Value {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name, "namespace": "infra"},
        "data": {"tls.crt": encode(certificate), "tls.key": encode(key)}})
}

fn https(name: &str, host: &str, secret: &str) -> Value {
    let mut listener = listener(name, 443, "HTTPS");
    listener["hostname"] = json!(host);
    listener["tls"] = json!({"certificateRefs": [{"name": secret}]});
    listener
}

async fn world() -> (World, Pod) {
    let world = World::bare(None).await;
    let web = Pod::start("web", "127.18.0.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    (world, web)
}

/// Asks until TLS for `name` is answered with this certificate.
async fn until_served(world: &World, name: &str, certificate: &CertificateDer<'static>) {
    let served = async {
        while tls(world.https, name, std::slice::from_ref(certificate), "http/1.1").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), served).await.expect("the certificate is served in time");
}

#[tokio::test]
async fn each_name_gets_its_certificate_and_unknown_names_are_refused() {
    let (world, _web) = world().await;
    let (a, secret_a) = certificate("a", "a.test");
    let (b, secret_b) = certificate("b", "*.b.test");
    world.apply(secret_a).await;
    world.apply(secret_b).await;
    world.apply(gateway("main", json!([https("a", "a.test", "a"), https("b", "*.b.test", "b")]))).await;
    until_served(&world, "a.test", &a).await;
    let roots = [a, b];
    for (name, alpn, version) in
        [("a.test", "h2", "HTTP/1.1"), ("a.test", "http/1.1", "HTTP/1.1"), ("x.b.test", "h2", "HTTP/1.1")]
    {
        let answer = get_tls(world.https, name, &roots, alpn, name, "/").await.unwrap();
        assert_eq!((answer.status, answer.pod()), (200, "web"), "{name} {alpn}");
        let said = answer.said();
        assert_eq!(said["version"], version, "towards the endpoint it is HTTP/1.1");
        assert_eq!(said["headers"]["x-forwarded-proto"], "https");
        assert_eq!(said["headers"]["host"], name);
    }
    let refused = tls(world.https, "unknown.test", &roots, "h2").await.expect_err("no certificate for that name");
    assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
    for (name, of) in [("a.test", "a.test"), ("x.b.test", "*.b.test")] {
        let explained = world.server.explain(name, "/", None).await;
        let shown = explained.pointer("/listeners/0/certificate").unwrap_or(&Value::Null);
        assert_eq!((&shown["names"], &shown["expired"]), (&json!([of]), &json!(false)), "{explained}");
        assert!(shown["notAfter"].as_str().is_some_and(|until| until.ends_with('Z')), "{shown}");
    }
    let misdirected = get_tls(world.https, "a.test", &roots, "http/1.1", "x.b.test", "/").await.unwrap();
    assert_eq!(misdirected.status, 421, "opened for one name, asked for another");
}

#[tokio::test]
async fn a_certificate_is_swapped_while_serving_and_a_bad_one_is_not_taken() {
    let (world, _web) = world().await;
    let (old, first) = certificate("web", "a.test");
    world.apply(first).await;
    world.apply(gateway("main", json!([https("web", "a.test", "web")]))).await;
    until_served(&world, "a.test", &old).await;
    let (new, second) = certificate("web", "a.test");
    world.apply(second).await;
    until_served(&world, "a.test", &new).await;
    assert!(tls(world.https, "a.test", &[old], "h2").await.is_err(), "the old one is gone");
    let foreign = KeyPair::generate().unwrap().serialize_pem();
    let pem = {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
    };
    world.apply(secret("web", &pem, &foreign)).await;
    let said = world
        .until_status(gateway("main", json!([])), |s| {
            let conditions = s["listeners"][0]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["reason"] == "InvalidCertificateRef")
        })
        .await;
    let answer = get_tls(world.https, "a.test", &[new], "h2", "a.test", "/").await.unwrap();
    assert_eq!(answer.status, 200, "the one before is served on: {said:#}");
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_alone() {
    let (world, _web) = world().await;
    let (good, secret_good) = certificate("good", "good.test");
    world.apply(secret_good).await;
    world.apply(secret("broken", "no certificate", "no key")).await;
    let mut elsewhere = https("elsewhere", "elsewhere.test", "x");
    elsewhere["tls"]["certificateRefs"][0]["namespace"] = json!("other");
    let listeners = json!([
        https("good", "good.test", "good"),
        https("missing", "missing.test", "none"),
        https("broken", "broken.test", "broken"),
        elsewhere,
    ]);
    world.apply(gateway("main", listeners)).await;
    until_served(&world, "good.test", &good).await;
    let said =
        world.until_status(gateway("main", json!([])), |s| s["listeners"].as_array().map(Vec::len) == Some(4)).await;
    for (index, resolved, reason, programmed) in [
        (0, "True", "ResolvedRefs", "True"),
        (1, "False", "InvalidCertificateRef", "False"),
        (2, "False", "InvalidCertificateRef", "False"),
        (3, "False", "RefNotPermitted", "False"),
    ] {
        let conditions = said["listeners"][index]["conditions"].as_array().unwrap();
        let found = |kind: &str| conditions.iter().find(|c| c["type"] == kind).unwrap();
        assert_eq!(
            (&found("ResolvedRefs")["status"], &found("ResolvedRefs")["reason"], &found("Programmed")["status"]),
            (&json!(resolved), &json!(reason), &json!(programmed)),
            "{index}: {said:#}"
        );
    }
}

/// What a client that speaks these versions and no others agrees on with the listener of a name.
async fn agreed(
    world: &World,
    name: &str,
    root: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<(ProtocolVersion, CipherSuite)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(world.https).await?;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = connector.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await?;
    let (_, session) = stream.get_ref();
    Ok((session.protocol_version().unwrap(), session.negotiated_cipher_suite().unwrap().suite()))
}

#[tokio::test]
async fn a_listener_speaks_the_versions_and_ciphers_that_its_options_name() {
    let (world, _web) = world().await;
    let (root, secret) = certificate("web", "*.tls.test");
    world.apply(secret).await;
    let with = |name: &str, options: Value| {
        let mut listener = https(name, &format!("{name}.tls.test"), "web");
        listener["tls"]["options"] = options;
        listener
    };
    let few = "ECDHE-ECDSA-AES256-GCM-SHA384, TLS_AES_128_GCM_SHA256";
    let mut private = with("private", json!({"atoll.dev/client-ca": "nobody"}));
    private["protocol"] = json!("TLS");
    let mut passed = with("passed", json!({"atoll.dev/min-version": "1.3"}));
    passed["protocol"] = json!("TLS");
    passed["tls"] = json!({"mode": "Passthrough", "options": passed["tls"]["options"]});
    let listeners = |newest: Value| {
        json!([
            with("few", json!({"atoll.dev/ciphers": few})),
            with("newest", newest),
            with("odd", json!({"atoll.dev/min-version": "1.1"})),
            private,
            passed
        ])
    };
    world.apply(gateway("main", listeners(json!({"atoll.dev/min-version": "1.3"})))).await;
    until_served(&world, "newest.tls.test", &root).await;
    let (old, new) = (&[&version::TLS12][..], &[&version::TLS13][..]);
    let said = agreed(&world, "few.tls.test", &root, old).await.unwrap();
    assert_eq!(said, (ProtocolVersion::TLSv1_2, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384));
    let said = agreed(&world, "few.tls.test", &root, new).await.unwrap();
    assert_eq!(said, (ProtocolVersion::TLSv1_3, CipherSuite::TLS13_AES_128_GCM_SHA256));
    let refused = agreed(&world, "newest.tls.test", &root, old).await.unwrap_err();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    for name in ["odd.tls.test", "private.tls.test", "passed.tls.test"] {
        assert!(agreed(&world, name, &root, new).await.is_err(), "{name}");
    }
    let said =
        world.until_status(gateway("main", json!([])), |s| s["listeners"].as_array().map(Vec::len) == Some(5)).await;
    for (at, why) in [
        (2, "tls.options: atoll.dev/min-version: `1.1` is neither 1.2 nor 1.3"),
        (3, "Secret `infra/nobody`: does not exist"),
        (4, "tls.options: `atoll.dev/min-version`: TLS that is passed on as it comes is not spoken here"),
    ] {
        let conditions = said["listeners"][at]["conditions"].as_array().unwrap();
        let accepted = conditions.iter().find(|c| c["type"] == "Accepted").unwrap();
        assert_eq!((&accepted["status"], &accepted["message"]), (&json!("False"), &json!(why)));
    }
    world.apply(gateway("main", listeners(json!({})))).await;
    let began = tokio::time::Instant::now();
    while agreed(&world, "newest.tls.test", &root, old).await.is_err() {
        assert!(began.elapsed().as_secs() < 20, "what is no longer asked for still counts");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

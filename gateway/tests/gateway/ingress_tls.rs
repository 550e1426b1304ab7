//! Ingresses and TLS: certificates of clients, TLS towards backends, TLS that is passed on.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::backend::Pod;
use crate::ingress::ingress;
use crate::world::{World, service, topology};

const ROOT: &[(&str, &str)] = &[("/", "Prefix")];

/// An authority, and what it vouches for.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    der: CertificateDer<'static>,
}

/// A certificate with its key.
pub(crate) struct Identity {
    pem: String,
    key: KeyPair,
    der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(parameters, key) }
    }

    pub(crate) fn vouch(&self, host: &str, name: &str) -> Identity {
        let mut parameters = CertificateParams::new(vec![host.to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Identity { pem: certificate.pem(), der: certificate.der().clone(), key }
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        Arc::new(roots)
    }
}

impl Identity {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

fn secret(name: &str, kind: &str, data: &[(&str, &str)]) -> Value {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let data: serde_json::Map<String, Value> = data.iter().map(|(k, v)| ((*k).to_owned(), encode(v).into())).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name, "namespace": "shop"}, "data": data})
}

fn of_tls(name: &str, identity: &Identity, more: &[(&str, &str)]) -> Value {
    let key = identity.key.serialize_pem();
    let mut data = vec![("tls.crt", identity.pem.as_str()), ("tls.key", &key)];
    data.extend(more);
    secret(name, "kubernetes.io/tls", &data)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A server of HTTP/1.1 over TLS that wants clients whom `authority` vouches for, if any.
pub(crate) async fn serve(ip: &str, identity: &Identity, authority: Option<&Authority>) -> SocketAddr {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = match authority {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider()).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(vec![identity.der.clone()], identity.key()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = service_fn(|_: http::Request<hyper::body::Incoming>| async {
                    let body = Full::new(bytes::Bytes::from_static(b"by TLS"));
                    Ok::<_, std::convert::Infallible>(http::Response::new(body))
                });
                let connection = hyper::server::conn::http1::Builder::new();
                drop(connection.serve_connection(TokioIo::new(stream), answer).await);
            });
        }
    });
    at
}

/// A GET over TLS by somebody who shows a certificate, or none: status, headers, body.
async fn get(
    at: SocketAddr,
    host: &str,
    trusts: &Authority,
    shows: Option<&Identity>,
    headers: &[(&str, &str)],
) -> std::io::Result<(u16, http::HeaderMap, String)> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(trusts.roots());
    let config = match shows {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_auth_cert(vec![identity.der.clone()], identity.key()).unwrap(),
    };
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(at).await?).await?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    let mut request = http::Request::builder().uri("/").header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<bytes::Bytes>::default()).unwrap();
    let (head, body) = sender.send_request(request).await.map_err(std::io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    Ok((head.status.as_u16(), head.headers, String::from_utf8_lossy(&body).into_owned()))
}

/// Asks until the answer has this status.
async fn until(status: u16, ask: impl AsyncFn() -> std::io::Result<(u16, http::HeaderMap, String)>) -> String {
    let mut last = None;
    for _ in 0..500 {
        match ask().await {
            Ok((found, _, body)) if found == status => return body,
            other => last = Some(other),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("never {status}, but {last:?}")
}

async fn world(ip: &str) -> (World, Pod) {
    let world = World::start().await;
    let web = Pod::start("web", ip).await;
    world.publish(topology(&[]), true);
    for object in service("web", &web) {
        world.apply(object).await;
    }
    (world, web)
}

fn with_tls(mut ingress: Value, secret: &str) -> Value {
    let host = ingress["spec"]["rules"][0]["host"].clone();
    ingress["spec"]["tls"] = json!([{"hosts": [host], "secretName": secret}]);
    ingress
}

#[tokio::test]
async fn clients_show_the_certificates_that_an_ingress_asks_for() {
    let (world, _web) = world("127.43.0.1").await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (anna, bert) = (ours.vouch("anna.test", "anna"), theirs.vouch("bert.test", "bert"));
    world.apply(secret("clients", "Opaque", &[("ca.crt", &ours.pem)])).await;
    for host in ["on", "optional", "unchecked", "named", "page"] {
        let identity = ours.vouch(&format!("{host}.test"), host);
        world.apply(of_tls(host, &identity, &[])).await;
    }
    let asks = ("auth-tls-secret", "shop/clients");
    for (host, more) in [
        ("on", &[("auth-tls-pass-certificate-to-upstream", "true")][..]),
        ("optional", &[("auth-tls-verify-client", "optional")]),
        ("unchecked", &[("auth-tls-verify-client", "optional_no_ca")]),
        ("named", &[("auth-tls-match-cn", "CN=(bert|carl)")]),
        ("page", &[("auth-tls-error-page", "https://help.test/certificates")]),
    ] {
        let annotations = [&[asks], more].concat();
        world.apply(with_tls(ingress(host, &format!("{host}.test"), "web", &annotations, ROOT), host)).await;
    }
    let spoofed = [("ssl-client-verify", "SUCCESS"), ("ssl-client-subject-dn", "CN=root")];
    for (host, shows, status, verify, subject) in [
        ("on", Some(&anna), 200, "SUCCESS", "CN=anna"),
        ("on", None, 400, "", ""),
        ("on", Some(&bert), 0, "", ""),
        ("optional", None, 200, "NONE", ""),
        ("optional", Some(&anna), 200, "SUCCESS", "CN=anna"),
        ("optional", Some(&bert), 0, "", ""),
        ("unchecked", Some(&bert), 200, "FAILED:nobody looked who vouches for it", "CN=bert"),
        ("unchecked", None, 200, "NONE", ""),
        ("named", Some(&anna), 403, "", ""),
        ("page", None, 302, "", ""),
    ] {
        let name = format!("{host}.test");
        let ask = async || get(world.https, &name, &ours, shows, &spoofed).await;
        if status == 0 {
            assert!(ask().await.is_err(), "{host}: nobody here vouches for bert");
            continue;
        }
        let body = until(status, ask).await;
        let said: Value = serde_json::from_str(&body).unwrap_or_default();
        let told = |name: &str| said["headers"][name].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (told("ssl-client-verify").as_str(), told("ssl-client-subject-dn").as_str()),
            (verify, subject),
            "{host}"
        );
        let certificate = told("ssl-client-cert");
        assert_eq!(certificate.starts_with("-----BEGIN%20CERTIFICATE"), host == "on" && status == 200, "{host}");
    }
    let (_, headers, _) = get(world.https, "page.test", &ours, None, &[]).await.unwrap();
    assert_eq!(headers["location"], "https://help.test/certificates");
    let plain = crate::client::get(world.http, "optional.test", "/").await;
    assert_eq!(plain.status, 308, "a host with a certificate is asked by HTTPS");
    // Another authority counts at once.
    world.apply(secret("clients", "Opaque", &[("ca.crt", &theirs.pem)])).await;
    until(200, async || get(world.https, "on.test", &ours, Some(&bert), &[]).await).await;
    assert!(get(world.https, "on.test", &ours, Some(&anna), &[]).await.is_err());
}

#[tokio::test]
async fn without_what_it_needs_a_host_that_asks_for_certificates_is_closed() {
    let (world, web) = world("127.43.1.1").await;
    let ours = Authority::new("ours");
    world.apply(of_tls("cert", &ours.vouch("absent.test", "a"), &[])).await;
    let asks = |secret: &'static str| [("auth-tls-secret", secret), ("ssl-redirect", "false")];
    world.apply(ingress("plain", "plain.test", "web", &asks("shop/clients"), ROOT)).await;
    world.apply(ingress("foreign", "foreign.test", "web", &asks("infra/clients"), ROOT)).await;
    world.apply(with_tls(ingress("absent", "absent.test", "web", &asks("shop/none"), ROOT), "cert")).await;
    for host in ["plain.test", "foreign.test"] {
        world.until(host, "/", |a| a.status == 503).await;
    }
    // Nobody vouches: by HTTPS there is nobody, and without TLS there is no certificate.
    world.until("absent.test", "/", |a| a.status == 400).await;
    assert!(get(world.https, "absent.test", &ours, None, &[]).await.is_err());
    assert_eq!(web.hits(), 0);
}

#[tokio::test]
async fn backends_that_speak_tls_are_trusted_as_an_ingress_says() {
    let (world, _web) = world("127.43.2.1").await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let at = serve("127.43.2.2", &ours.vouch("inner.test", "inner"), Some(&ours)).await;
    for object in service("secure", &Pod::named(at)) {
        world.apply(object).await;
    }
    let us = ours.vouch("gateway.test", "gateway");
    world.apply(of_tls("both", &us, &[("ca.crt", &ours.pem)])).await;
    world.apply(of_tls("wrong", &us, &[("ca.crt", &theirs.pem)])).await;
    world.apply(secret("nobody", "Opaque", &[("ca.crt", &ours.pem)])).await;
    let of = |secret: &'static str, name: &'static str| {
        [
            ("backend-protocol", "HTTPS"),
            ("proxy-ssl-secret", secret),
            ("proxy-ssl-verify", "on"),
            ("proxy-ssl-name", name),
        ]
    };
    for (host, annotations, status) in [
        ("good.test", &of("shop/both", "inner.test")[..], 200),
        ("name.test", &of("shop/both", "other.test"), 503),
        ("authority.test", &of("shop/wrong", "inner.test"), 503),
        ("unknown.test", &of("shop/nobody", "inner.test"), 502),
        ("absent.test", &of("shop/absent", "inner.test"), 503),
        ("unchecked.test", &[("backend-protocol", "HTTPS"), ("proxy-ssl-secret", "shop/both")], 503),
        ("unsaid.test", &[("backend-protocol", "HTTPS")], 503),
    ] {
        let name = host.trim_end_matches(".test");
        world.apply(ingress(name, host, "secure", annotations, ROOT)).await;
        let answer = world.until(host, "/", |a| a.status != 404).await;
        let found = if answer.status == 200 { 200 } else { status };
        assert_eq!(found, status, "{host}: {answer:?}");
        assert_eq!(answer.body == "by TLS", status == 200, "{host}: {answer:?}");
    }
}

#[tokio::test]
async fn tls_of_a_host_is_passed_on_as_it_comes() {
    let (world, _web) = world("127.43.3.1").await;
    let theirs = Authority::new("theirs");
    let at = serve("127.43.3.2", &theirs.vouch("pass.test", "pass"), None).await;
    for object in service("secure", &Pod::named(at)) {
        world.apply(object).await;
    }
    let passes = ("ssl-passthrough", "true");
    world.apply(ingress("pass", "pass.test", "secure", &[passes], ROOT)).await;
    let body = until(200, async || get(world.https, "pass.test", &theirs, None, &[]).await).await;
    assert_eq!(body, "by TLS", "the certificate is the backend's own");
    // What can't be kept on a stream closes it.
    world.apply(ingress("limited", "limited.test", "secure", &[passes, ("limit-rps", "1")], ROOT)).await;
    world.until("limited.test", "/", |a| a.status == 503).await;
    assert!(get(world.https, "limited.test", &theirs, None, &[]).await.is_err());
    world.delete(ingress("pass", "pass.test", "secure", &[], ROOT)).await;
    for _ in 0..500 {
        if get(world.https, "pass.test", &theirs, None, &[]).await.is_err() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it is passed on although its Ingress is gone");
}

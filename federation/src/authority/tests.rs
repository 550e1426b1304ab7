//! What the hub signs, and what it doesn't.

use atoll_reach::{Identity, Peer};

use super::*;

fn now() -> Timestamp {
    Timestamp::now()
}

fn request() -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("atoll://h1/hub".try_into().unwrap()));
    params.serialize_request(&key).unwrap().pem().unwrap()
}

/// By OpenSSL: subject O=system:masters CN=hub; critical CA:TRUE; keyCertSign; names of the hub and of prod-us; any extended use.
const HOSTILE: &str = "\
-----BEGIN CERTIFICATE REQUEST-----
MIIBeTCCAR8CAQAwJzEXMBUGA1UECgwOc3lzdGVtOm1hc3RlcnMxDDAKBgNVBAMM
A2h1YjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCltn3esCJEn06ytvEbVsNXV
Yg+pJwMbZ/0PYTxiCLMjoj8Ufm19av/Qx+88lGt1NpixpJmEfhqH9M6fKQNlW8mg
gZUwgZIGCSqGSIb3DQEJDjGBhDCBgTBGBgNVHREEPzA9gg9odWIuZXhhbXBsZS5j
b22GDmF0b2xsOi8vaDEvaHVihhphdG9sbDovL2gxL2NsdXN0ZXIvcHJvZC11czAP
BgNVHRMBAf8EBTADAQH/MAsGA1UdDwQEAwIBBjAZBgNVHSUEEjAQBggrBgEFBQcD
AQYEVR0lADAKBggqhkjOPQQDAgNIADBFAiEAjcm6WR+jwr0gQqUpfUOrIBwx6AoY
epX6fKgN7A3ogGQCIH4cwCvcUu5DCYX8dtJmvVHQ97UG5BRoUIdZHIstA6Tr
-----END CERTIFICATE REQUEST-----
";

fn leaf(issued: &Issued) -> Peer {
    let (_, pem) = x509_parser::pem::parse_x509_pem(issued.chain_pem.as_bytes()).unwrap();
    Peer::from_der(&pem.contents).unwrap()
}

#[test]
fn a_request_gets_the_role_it_was_given_and_nothing_it_asked_for() {
    let (authority, _) = Authority::generate("h1", now()).unwrap();
    let issued = authority.sign(&request(), &Role::Cluster("prod-eu".into()), now()).unwrap();
    let peer = leaf(&issued);
    assert_eq!(peer.role, Role::Cluster("prod-eu".into()));
    assert_eq!(peer.hub, "h1");
    assert_eq!(peer.serial, issued.serial);
    let hostile = authority.sign(HOSTILE, &Role::Cluster("prod-eu".into()), now()).unwrap();
    for issued in [issued, hostile] {
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.chain_pem.as_bytes()).unwrap();
        let leaf = pem.parse_x509().unwrap();
        assert!(!leaf.is_ca());
        assert_eq!(leaf.subject().to_string(), format!("CN={}", peer.role));
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1, "{:?}", names.value);
        assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
        assert!(!leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
    }
}

#[test]
fn a_broken_request_is_refused() {
    let (authority, _) = Authority::generate("h1", now()).unwrap();
    let mut forged = request();
    let at = forged.len() / 2;
    let other = if &forged[at..=at] == "A" { "B" } else { "A" };
    forged.replace_range(at..=at, other);
    for (name, csr) in [
        ("empty", String::new()),
        ("text", "hello".into()),
        ("forged", forged),
        ("long", "x".repeat(REQUEST_LEN_MAX + 1)),
        ("a certificate", authority.ca_pem().to_owned()),
    ] {
        assert!(authority.sign(&csr, &Role::Cluster("a".into()), now()).is_err(), "{name}");
    }
}

#[test]
fn a_stored_authority_is_the_same_one() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (made, key) = Authority::generate("h1", now()).unwrap();
    let read = Authority::from_pem("h1", made.ca_pem(), &key).unwrap();
    assert_eq!(read.pin(), made.pin());
    let issued = read.issue(&Role::Hub, &["localhost".into()], now()).unwrap();
    let identity = Identity::from_pem(&issued.chain_pem, issued.key_pem.as_deref().unwrap(), made.ca_pem()).unwrap();
    assert_eq!(identity.role(), &Role::Hub);
    atoll_reach::TlsIdentity::new(identity, atoll_reach::Revocations::none()).unwrap();
    let (_, other_key) = Authority::generate("h2", now()).unwrap();
    assert!(Authority::from_pem("h1", made.ca_pem(), &other_key).is_err(), "another's key");
    assert!(Authority::from_pem("h1", "garbage", &key).is_err());
}

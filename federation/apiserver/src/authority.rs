//! A small certificate authority for this server's listener and its users, and the kubeconfig made of it.
//! In: names; out: PEM. Users are certificates: the name is the CN, the groups are the Os, as on any API server.
//! The hub's CA for members is not this one.

use std::{net::IpAddr, sync::Arc};

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};

use crate::Error;

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The private key, PEM.
    pub key_pem: String,
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    identity: Identity,
}

fn refuse(subject: &str) -> impl Fn(rcgen::Error) -> Error + '_ {
    move |why| Error::Certificate { subject: subject.to_owned(), why: why.to_string() }
}

/// Valid from yesterday for so many days.
fn validity(params: &mut CertificateParams, days: i32) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let day = |offset: i32| {
        let date = today.saturating_add(jiff::Span::new().days(offset));
        date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(-1);
    params.not_after = day(days);
}

impl Authority {
    /// Makes a new one, valid for ten years.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new(name: &str) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(refuse(name))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        validity(&mut params, 3650);
        let cert = params.self_signed(&key).map_err(refuse(name))?;
        let identity = Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() };
        Ok(Self { issuer: Issuer::new(params, key), identity })
    }

    /// Reads one back that was kept as PEM.
    ///
    /// # Errors
    /// The PEM is not a CA certificate and its key.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key_pem).map_err(refuse("the authority"))?;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).map_err(refuse("the authority"))?;
        Ok(Self { issuer, identity: Identity { cert_pem: cert_pem.into(), key_pem: key_pem.into() } })
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.identity.cert_pem
    }

    /// The authority's own certificate and key, to be kept.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A certificate for a listener: DNS names and addresses. Valid for a year.
    ///
    /// # Errors
    /// A name that is neither.
    pub fn server(&self, names: &[&str]) -> Result<Identity, Error> {
        let subject = names.first().copied().unwrap_or("server");
        let mut params = CertificateParams::default();
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().map_err(refuse(name))?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, subject, &[])
    }

    /// A certificate for a user: the name and the groups. Valid for a year.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn user(&self, name: &str, groups: &[&str]) -> Result<Identity, Error> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, name, groups)
    }

    fn issue(&self, mut params: CertificateParams, name: &str, groups: &[&str]) -> Result<Identity, Error> {
        params.distinguished_name = DistinguishedName::new();
        // DistinguishedName keeps one value per type, so each further group gets its own form of the same type.
        for (index, group) in groups.iter().enumerate() {
            let kind = if index == 0 { DnType::OrganizationName } else { DnType::CustomDnType(vec![2, 5, 4, 10]) };
            if index > 1 {
                let why = "at most two groups fit into one certificate".into();
                return Err(Error::Certificate { subject: name.into(), why });
            }
            params.distinguished_name.push(kind, *group);
        }
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        validity(&mut params, 365);
        let key = KeyPair::generate().map_err(refuse(name))?;
        let cert = params.signed_by(&key, &self.issuer).map_err(refuse(name))?;
        Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// TLS for a listener under these names: HTTP/1.1 and HTTP/2, client certificates of this authority asked for but
    /// not demanded (who has none may still bring a token). The process needs a default crypto provider.
    ///
    /// # Errors
    /// A name that is neither DNS name nor address.
    pub fn tls(&self, names: &[&str]) -> Result<Arc<ServerConfig>, Error> {
        let identity = self.server(names)?;
        let refuse = |why: String| Error::Certificate { subject: names.join(", "), why };
        let ca = CertificateDer::from_pem_slice(self.ca_pem().as_bytes()).map_err(|e| refuse(e.to_string()))?;
        let cert = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).map_err(|e| refuse(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|e| refuse(e.to_string()))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).map_err(|e| refuse(e.to_string()))?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated();
        let verifier = verifier.build().map_err(|e| refuse(e.to_string()))?;
        let config = ServerConfig::builder().with_client_cert_verifier(verifier);
        let mut config = config.with_single_cert(vec![cert, ca], key).map_err(|e| refuse(e.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// One context of a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context<'a> {
    /// The context's name.
    pub name: &'a str,
    /// The user's name.
    pub user: &'a str,
    /// Who the user is.
    pub identity: &'a Identity,
}

/// A kubeconfig with one context.
pub fn kubeconfig(server_url: &str, ca_pem: &str, cert_pem: &str, key_pem: &str, user: &str, context: &str) -> String {
    let identity = Identity { cert_pem: cert_pem.into(), key_pem: key_pem.into() };
    kubeconfig_of(server_url, ca_pem, &[Context { name: context, user, identity: &identity }])
}

/// A kubeconfig with several contexts of one cluster; the first is current. It is JSON, which is YAML too.
pub fn kubeconfig_of(server_url: &str, ca_pem: &str, contexts: &[Context<'_>]) -> String {
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let cluster = contexts.first().map_or("atoll", |context| context.name);
    let users: Vec<Value> = contexts
        .iter()
        .map(|context| {
            json!({"name": context.user, "user": {
                "client-certificate-data": base64(&context.identity.cert_pem),
                "client-key-data": base64(&context.identity.key_pem)}})
        })
        .collect();
    let entries: Vec<Value> = contexts
        .iter()
        .map(|context| json!({"name": context.name, "context": {"cluster": cluster, "user": context.user}}))
        .collect();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": contexts.first().map(|context| context.name),
        "clusters": [{"name": cluster, "cluster": {"server": server_url, "certificate-authority-data": base64(ca_pem)}}],
        "users": users, "contexts": entries,
    });
    format!("{config:#}\n")
}

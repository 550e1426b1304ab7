//! A cluster's certificates and kubeconfigs. In: names and addresses. Out: files in one folder.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::json;

use crate::error::{Error, Result};
use crate::home::write;
use crate::plan::API_PORT;

/// A cluster's certificate authority and where its files lie.
pub(crate) struct Authority {
    dir: PathBuf,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

fn made<T>(what: &str, result: Result<T, rcgen::Error>) -> Result<T> {
    result.map_err(|error| Error::Refused(format!("certificate of {what}: {error}")))
}

impl Authority {
    /// A new authority for a cluster; writes ca.crt, ca.key and the key pair of service accounts.
    pub(crate) fn new(dir: &Path, cluster: &str) -> Result<Self> {
        let mut params = made(cluster, CertificateParams::new(Vec::new()))?;
        params.distinguished_name.push(DnType::CommonName, format!("{cluster} testbed CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = made(cluster, KeyPair::generate())?;
        let pem = made(cluster, params.self_signed(&key))?.pem();
        write(&dir.join("ca.crt"), &pem)?;
        write(&dir.join("ca.key"), key.serialize_pem())?;
        let accounts = made(cluster, KeyPair::generate())?;
        write(&dir.join("sa.key"), accounts.serialize_pem())?;
        write(&dir.join("sa.pub"), accounts.public_key_pem())?;
        Ok(Self { dir: dir.to_owned(), pem, issuer: Issuer::new(params, key) })
    }

    /// The authority whose files lie in a folder.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(Error::on(&path))
        };
        let (pem, key) = (read("ca.crt")?, read("ca.key")?);
        let key = made("the authority", KeyPair::from_pem(&key))?;
        let issuer = made("the authority", Issuer::from_ca_cert_pem(&pem, key))?;
        Ok(Self { dir: dir.to_owned(), pem, issuer })
    }

    /// A certificate for a server at these names and addresses; writes NAME.crt and NAME.key.
    pub(crate) fn server(&self, name: &str, names: &[&str], addresses: &[Ipv4Addr]) -> Result<()> {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = made(name, CertificateParams::new(names))?;
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress((*address).into())));
        self.sign(params, name, None).map(drop)
    }

    /// A certificate for a user; writes NAME.crt, NAME.key and NAME.kubeconfig for the API server at `server`.
    pub(crate) fn user(
        &self,
        name: &str,
        user: &str,
        group: Option<&str>,
        cluster: &str,
        server: Ipv4Addr,
    ) -> Result<()> {
        let mut params = made(name, CertificateParams::new(Vec::new()))?;
        params.distinguished_name.push(DnType::CommonName, user);
        let leaf = self.sign(params, name, group)?;
        let config = kubeconfig(cluster, server, &self.pem, &leaf);
        write(&self.dir.join(format!("{name}.kubeconfig")), config)
    }

    fn sign(&self, mut params: CertificateParams, name: &str, group: Option<&str>) -> Result<Leaf> {
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let key = made(name, KeyPair::generate())?;
        let certificate = made(name, params.signed_by(&key, &self.issuer))?.pem();
        let leaf = Leaf { certificate, key: key.serialize_pem() };
        write(&self.dir.join(format!("{name}.crt")), &leaf.certificate)?;
        write(&self.dir.join(format!("{name}.key")), &leaf.key)?;
        Ok(leaf)
    }
}

/// A kubeconfig of one context, named as its cluster. JSON is YAML.
fn kubeconfig(cluster: &str, server: Ipv4Addr, authority: &str, leaf: &Leaf) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": cluster,
        "clusters": [{"name": cluster, "cluster": {
            "server": format!("https://{server}:{API_PORT}"),
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{"name": cluster, "user": {
            "client-certificate-data": STANDARD.encode(&leaf.certificate),
            "client-key-data": STANDARD.encode(&leaf.key),
        }}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
    })
    .to_string()
}

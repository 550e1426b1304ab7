//! Certificates of the data planes, each in Secret `atoll-system/atoll-site-<name>`, made new at half of their life.

use std::time::Duration;

use atoll_api::kinds::{FIELD_MANAGER, SYSTEM_NAMESPACE};
use atoll_reach::{Peer, Role};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use super::{Authority, Issued, store};
use crate::error::Error;

/// How often certificates are looked at.
const EVERY: Duration = Duration::from_secs(3600);
const AGAIN: Duration = Duration::from_secs(10);

/// Keeps the Secrets of `sites` filled until cancelled. The first round is done when `first` hears of it.
pub(crate) async fn keep_sites(
    authority: &Authority,
    client: &Client,
    sites: &[String],
    first: tokio::sync::oneshot::Sender<()>,
) {
    let mut first = Some(first);
    loop {
        let mut pause = EVERY;
        for site in sites {
            if let Err(error) = keep(authority, client, site, Timestamp::now()).await {
                tracing::warn!(site, %error, "site certificate not renewed");
                pause = AGAIN;
            }
        }
        if let Some(first) = first.take() {
            let _ = first.send(());
        }
        tokio::time::sleep(pause).await;
    }
}

async fn keep(authority: &Authority, client: &Client, site: &str, now: Timestamp) -> Result<(), Error> {
    let name = format!("atoll-site-{site}");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let held = secrets.get_opt(&name).await.map_err(Error::api(format!("read secret {name}")))?;
    if held.is_some_and(|secret| serves(&secret, authority, site, now)) {
        return Ok(());
    }
    let names = [site.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    let issued = authority.issue(&Role::Site(site.to_owned()), &names, now)?;
    write(&secrets, &name, authority, issued).await
}

async fn write(secrets: &Api<Secret>, name: &str, authority: &Authority, issued: Issued) -> Result<(), Error> {
    let key = issued.key_pem.unwrap_or_default();
    let fields = [("tls.crt", issued.chain_pem.as_str()), ("tls.key", &key), ("ca.crt", authority.ca_pem())];
    let mut secret =
        Secret { data: Some(store::bytes(fields)), type_: Some("kubernetes.io/tls".into()), ..Secret::default() };
    secret.metadata.name = Some(name.to_owned());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    secrets.patch(name, &params, &Patch::Apply(&secret)).await.map_err(Error::api(format!("write secret {name}")))?;
    Ok(())
}

/// Whether what the Secret holds is of this authority, for this site, and in the first half of its life.
fn serves(secret: &Secret, authority: &Authority, site: &str, now: Timestamp) -> bool {
    let field = |name: &str| secret.data.as_ref().and_then(|d| d.get(name)).map(|v| v.0.as_slice());
    if field("ca.crt") != Some(authority.ca_pem().as_bytes()) || field("tls.key").is_none() {
        return false;
    }
    let Some(chain) = field("tls.crt") else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(chain) else { return false };
    let Ok(peer) = Peer::from_der(&pem.contents) else { return false };
    peer.role == Role::Site(site.to_owned()) && std::time::SystemTime::from(now) < peer.half_life()
}

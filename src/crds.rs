//! Brings the kinds that a hub needs into its API server: ours, and the standard ones that we use.
//!
//! In: a client. Out: served kinds, or an error that says how to bring them by hand. A kind that somebody else brought (another version
//! of the Gateway API, for example) is left as it is.

use std::time::Duration;

use anyhow::{Context as _, bail};
use atoll_api::kinds::{Channel, FIELD_MANAGER, GROUP, standard_crds_of};
use futures::future::try_join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition as Definition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::time::{Instant, sleep};

use crate::error::Exit;

/// Until the API server serves a kind that it has.
const SERVED_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Our CRDs, and with a `channel` of the Gateway API also those of others that we use.
pub(crate) fn crds(channel: Option<Channel>) -> Vec<Definition> {
    let mut crds = atoll_api::kinds::crds();
    crds.extend(channel.map(standard_crds_of).into_iter().flatten());
    crds
}

/// Applies every kind that is missing or, if ours, of another version; waits until all are served.
///
/// # Errors
/// When the API server can't be asked; when kinds are missing and this account may not bring them.
pub(crate) async fn apply(client: &Client) -> anyhow::Result<()> {
    let api: Api<Definition> = Api::all(client.clone());
    let held = match api.list(&ListParams::default()).await {
        Ok(held) => held.items,
        // An account that may not look at them: whoever set it up brought the kinds, or the first watch will say so.
        Err(kube::Error::Api(status)) if status.code == 403 => return Ok(()),
        Err(error) => return Err(error).context("list the kinds of the hub's API server"),
    };
    let find = |name: &str| held.iter().find(|d| d.name_any() == name);
    let wanted = crds(Some(Channel::default()));
    try_join_all(wanted.iter().map(|crd| bring(&api, crd, find(&crd.name_any())))).await?;
    try_join_all(wanted.iter().map(|crd| served(&api, crd, find(&crd.name_any())))).await?;
    Ok(())
}

async fn bring(api: &Api<Definition>, crd: &Definition, held: Option<&Definition>) -> anyhow::Result<()> {
    let name = crd.name_any();
    let done = match held {
        None => {
            api.create(&PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }, crd).await
        }
        Some(_) if crd.spec.group == GROUP => {
            api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(crd)).await
        }
        Some(_) => return Ok(()),
    };
    match (done, held) {
        (Ok(_), _) => Ok(()),
        // Another hub was quicker.
        (Err(kube::Error::Api(status)), None) if status.code == 409 => Ok(()),
        // The chart `atoll-crds` has brought them, and this account only uses them.
        (Err(kube::Error::Api(status)), Some(_)) if status.code == 403 => Ok(()),
        (Err(kube::Error::Api(status)), None) if status.code == 403 => Err(Exit::Refused(format!(
            "kind {name} is missing and this account may not bring it: install the chart atoll-crds, or apply what `atoll crds --standard` prints"
        ))
        .into()),
        (Err(error), _) => Err(error).with_context(|| format!("bring kind {name}")),
    }
}

async fn served(api: &Api<Definition>, crd: &Definition, held: Option<&Definition>) -> anyhow::Result<()> {
    let name = crd.name_any();
    let until = Instant::now() + SERVED_MAX;
    let mut seen = held.cloned();
    loop {
        let conditions = seen.and_then(|d| d.status).and_then(|s| s.conditions).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == "Established" && c.status == "True") {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("kind {name}: the API server does not serve it: see `kubectl describe crd {name}`");
        }
        seen = Some(api.get(&name).await.with_context(|| format!("read kind {name}"))?);
        sleep(PAUSE).await;
    }
}

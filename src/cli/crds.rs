//! `atoll crds`: the definitions of our kinds, as YAML documents for `kubectl apply -f -`. The chart `atoll-crds` is made of it.
//!
//! Needs no API server. Where one is named (`--kubeconfig`, `--context`), what it would refuse is not printed: the Gateway API's own
//! policy forbids to put the experimental channel over the standard one.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::Globals;
use super::failure::{Failure, Outcome};
use super::output::{Output, print, yaml};

/// The Gateway API's policy on changes of its definitions.
const SAFE_UPGRADES: &str = "safe-upgrades.gateway.networking.k8s.io";
/// By which a definition says what channel it is of.
const CHANNEL: &str = "gateway.networking.k8s.io/channel";

/// Print the definitions of our kinds.
#[derive(Debug, clap::Args)]
pub(crate) struct Crds {
    /// Also the standard ones that we use: Gateway API, MCS, DNSEndpoint, ClusterProfile
    #[arg(long)]
    standard: bool,
    /// Of the Gateway API: with the fields that may still change (retries, session persistence, external authorisation), or without
    #[arg(long, value_enum, default_value_t, requires = "standard")]
    channel: Channel,
}

/// Which set of the Gateway API.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Channel {
    Standard,
    #[default]
    Experimental,
}

impl From<Channel> for atoll_api::kinds::Channel {
    fn from(channel: Channel) -> Self {
        match channel {
            Channel::Standard => Self::Standard,
            Channel::Experimental => Self::Experimental,
        }
    }
}

impl Crds {
    /// Runs it.
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let named =
            globals.kubeconfig.is_some() || globals.context.is_some() || std::env::var_os("KUBECONFIG").is_some();
        if self.standard && named && matches!(self.channel, Channel::Experimental) {
            allowed(globals).await?;
        }
        let all = crate::run::crds(self.standard.then(|| self.channel.into()));
        let mut items = Vec::with_capacity(all.len());
        for crd in &all {
            items.push(sorted(serde_json::to_value(crd).map_err(Failure::on("print a definition"))?));
        }
        match globals.output {
            Output::Json => {
                let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
                globals.output.show(&list, String::new)?;
            }
            Output::Name => {
                for item in &items {
                    print(format!(
                        "customresourcedefinition/{}",
                        item["metadata"]["name"].as_str().unwrap_or_default()
                    ));
                }
            }
            Output::Text | Output::Wide | Output::Yaml => {
                for item in &items {
                    print(format!("---\n{}", yaml(item)?.trim_end()));
                }
            }
        }
        Ok(())
    }
}

/// The same with its keys in order: the same text from every build.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<(String, Value)> = map.into_iter().collect();
            pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(pairs.into_iter().map(|(k, v)| (k, sorted(v))).collect())
        }
        Value::Array(list) => list.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// Whether the API server would take the experimental channel.
async fn allowed(globals: &Globals) -> Outcome {
    let client = globals.hub().await?.client;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let policy = policies.get_opt(SAFE_UPGRADES).await.map_err(Failure::api("read the policies of the API server"))?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let held = definitions.get_opt("httproutes.gateway.networking.k8s.io").await;
    let held = held.map_err(Failure::api("read the definitions of the API server"))?;
    let channel = held.as_ref().and_then(|d| d.annotations().get(CHANNEL)).map(String::as_str);
    if policy.is_some() && channel == Some("standard") {
        return Err(Failure::refused(format!(
            "the standard channel of the Gateway API is installed there, and its policy {SAFE_UPGRADES} forbids to put the experimental \
             one over it: take `--channel standard` (everything works but retries, session persistence and external authorisation), or \
             delete that policy first"
        )));
    }
    Ok(())
}

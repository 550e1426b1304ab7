//! `atoll crds`: the definitions of our kinds, as YAML documents for `kubectl apply -f -`. The chart `atoll-crds` is made of it.

use serde_json::{Value, json};

use super::Globals;
use super::failure::{Failure, Outcome};
use super::output::{Output, print, yaml};

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
    /// Runs it. Needs no API server.
    pub(crate) fn run(&self, globals: &Globals) -> Outcome {
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

//! `atoll token create|list|revoke`: lets one cluster in, once, for a while.
//!
//! `create` prints exactly one line that is run beside the member. Tokens are Secrets in `atoll-system` that hold a hash only.

use std::collections::BTreeMap;

use atoll_api::kinds::SYSTEM_NAMESPACE;
use atoll_api::names::ClusterName;
use atoll_federation::HubFacts;
use atoll_federation::tokens::{TOKEN_LABEL, TTL_MAX, TokenError, TokenRequest, create_token};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use serde_json::json;

use super::Globals;
use super::failure::{Failure, Outcome};
use super::output::{Output, columns, note, print};

/// Let a cluster in.
#[derive(Debug, clap::Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print the one command that lets CLUSTER in; the token in it works once
    Create(Create),
    /// List tokens: for whom, until when, whether used (never the token itself)
    List,
    /// Make the unused tokens of CLUSTER worthless
    Revoke {
        /// The member's name
        #[arg(value_parser = cluster_name)]
        cluster: ClusterName,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The name that the member is to have: one DNS label, for example prod-eu
    #[arg(value_parser = cluster_name)]
    cluster: ClusterName,
    /// dev, test, prod, dr or another word; default: what the name begins with
    #[arg(long, value_name = "E")]
    environment: Option<String>,
    /// Region, for example eu-central
    #[arg(long, value_name = "R")]
    region: Option<String>,
    /// Zone, for example eu-central-1a
    #[arg(long, value_name = "Z")]
    zone: Option<String>,
    /// Who shares services with it; default: prod and dr together, others alone
    #[arg(long, value_name = "S")]
    cluster_set: Option<String>,
    /// How long the token is good for, at most 24h
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = atoll_api::duration::parse)]
    ttl: std::time::Duration,
}

pub(crate) fn cluster_name(text: &str) -> Result<ClusterName, String> {
    text.parse().map_err(|e: atoll_api::names::BadName| e.to_string())
}

impl Token {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let client = globals.hub().await?.client;
        match self.verb {
            Verb::Create(create) => create.run(&client, globals.output).await,
            Verb::List => list(&client, globals.output).await,
            Verb::Revoke { cluster } => revoke(&client, &cluster, globals.output).await,
        }
    }
}

impl Create {
    async fn run(self, client: &Client, output: Output) -> Outcome {
        let cluster = self.cluster.clone();
        if self.ttl.is_zero() || self.ttl > TTL_MAX {
            return Err(Failure::usage(format!("token for cluster `{cluster}`: --ttl must be between 1s and 24h")));
        }
        hub_was_here(client, &cluster).await?;
        let request = TokenRequest {
            cluster: self.cluster,
            ttl: self.ttl,
            environment: self.environment,
            region: self.region,
            zone: self.zone,
            cluster_set: self.cluster_set,
        };
        let expires = Timestamp::now().saturating_add(self.ttl).map_err(Failure::on("token"))?;
        let made = create_token(client, &request).await.map_err(|error| match error {
            TokenError::Api(cluster, error) => Failure::of_api(format!("token for cluster `{cluster}`"), &error),
            other => Failure::failed(other.to_string()),
        })?;
        let document = json!({
            "cluster": cluster, "hub": made.hub, "token": made.token.to_string(), "expires": expires.to_string(),
            "command": made.to_string(),
        });
        output.show(&document, || made.to_string())
    }
}

/// Says in time that nobody answers, that one may not, or that no hub has run here.
async fn hub_was_here(client: &Client, cluster: &ClusterName) -> Outcome {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let what = format!("token for cluster `{cluster}`");
    match maps.get_opt("atoll-hub").await.map_err(Failure::api(&what))? {
        Some(_) => HubFacts::read(client).await.map(drop).map_err(|e| Failure::failed(format!("{what}: {e}"))),
        None => Err(Failure::failed(format!(
            "{what}: ConfigMap atoll-system/atoll-hub is not there: has a hub run on this API server? Start `atoll hub` or `atoll up`"
        ))),
    }
}

struct Listed {
    name: String,
    cluster: String,
    expires: Option<Timestamp>,
    used: Option<String>,
}

impl Listed {
    fn of(secret: Secret) -> Self {
        let data = secret.data.unwrap_or_default();
        let text = |field: &str| data.get(field).and_then(|v| String::from_utf8(v.0.clone()).ok());
        Self {
            name: secret.metadata.name.unwrap_or_default(),
            cluster: text("cluster").unwrap_or_default(),
            expires: text("expires").and_then(|t| t.parse().ok()),
            used: text("used"),
        }
    }

    fn state(&self, now: Timestamp) -> &'static str {
        match (&self.used, self.expires) {
            (Some(_), _) => "used",
            (None, Some(end)) if end > now => "good",
            _ => "expired",
        }
    }
}

async fn tokens(client: &Client, labels: &str) -> Outcome<Vec<Listed>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let list = secrets.list(&ListParams::default().labels(labels)).await.map_err(Failure::api("list tokens"))?;
    Ok(list.items.into_iter().map(Listed::of).collect())
}

async fn list(client: &Client, output: Output) -> Outcome {
    let now = Timestamp::now();
    let mut all = tokens(client, TOKEN_LABEL).await?;
    all.sort_by(|a, b| (&a.cluster, a.expires).cmp(&(&b.cluster, b.expires)));
    let documents: Vec<_> = all
        .iter()
        .map(|t| {
            let expires = t.expires.map(|e| e.to_string());
            json!({"name": t.name, "cluster": t.cluster, "expires": expires, "used": t.used, "state": t.state(now)})
        })
        .collect();
    output.show(&documents, || {
        let rows = all.iter().map(|t| {
            let expires = t.expires.map(|e| e.strftime("%Y-%m-%d %H:%M:%SZ").to_string()).unwrap_or_default();
            vec![t.cluster.clone(), t.state(now).to_owned(), expires, t.name.clone()]
        });
        if all.is_empty() { "no tokens".into() } else { columns(&["Cluster", "State", "Expires", "Name"], rows) }
    })
}

async fn revoke(client: &Client, cluster: &ClusterName, output: Output) -> Outcome {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let mut revoked = Vec::new();
    for token in tokens(client, &format!("{TOKEN_LABEL}={cluster}")).await?.into_iter().filter(|t| t.used.is_none()) {
        let what = format!("revoke token {} of cluster `{cluster}`", token.name);
        secrets.delete(&token.name, &DeleteParams::default()).await.map_err(Failure::api(what))?;
        revoked.push(token.name);
    }
    if output == Output::Text {
        match revoked.len() {
            0 => note(format!("cluster `{cluster}` has no unused token")),
            n => print(format!("{n} revoked")),
        }
        return Ok(());
    }
    output.show(&BTreeMap::from([("revoked", &revoked)]), || revoked.join("\n"))
}

//! The demo members: what each is to be, and its agent.

use std::sync::Arc;

use atoll_api::kinds::ClusterSpec;
use atoll_api::names::ClusterName;
use atoll_api::topology::Standing;
use atoll_demo::{INDEX_MAX, Member, MemberSpec};
use atoll_federation::tokens::{TokenRequest, create_token, guess_environment};
use atoll_reach::host_and_port;
use atoll_registry::Credentials;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Exit;
use crate::run::{Part, engine};
use crate::telemetry::Metrics;

/// Where the five stand: name, region, zone, latitude, longitude.
const PLACES: [(&str, &str, &str, &str, &str); 5] = [
    ("dev", "eu-central", "eu-central-1a", "50.11", "8.68"),
    ("test", "eu-central", "eu-central-1b", "50.11", "8.68"),
    ("prod-eu", "eu-central", "eu-central-1c", "50.11", "8.68"),
    ("prod-us", "us-east", "us-east-1a", "39.04", "-77.49"),
    ("dr", "eu-north", "eu-north-1a", "59.33", "18.07"),
];
/// As whose neighbours loopback clients count.
const HERE: &str = "prod-eu";
/// Whose routes lead nowhere, as most real clusters' do.
const RELAYED: &str = "dr";
/// The registry that asks who comes.
const LOCKED: &str = "prod-eu";

/// A demo member to be.
pub(super) struct Spec {
    pub(super) name: ClusterName,
    pub(super) member: MemberSpec,
    /// The spec of its Cluster object.
    pub(super) cluster: Value,
}

/// What was typed, checked; and where, and in which set, that makes loopback clients stand, unless the file says.
pub(super) fn specs(names: Option<Vec<String>>, config: &mut Config) -> anyhow::Result<Vec<Spec>> {
    let names = names.unwrap_or_else(|| PLACES.map(|place| place.0.to_owned()).into());
    if names.len() > usize::from(INDEX_MAX) + 1 {
        return Err(Exit::Usage(format!("--members: at most {} fit into 127.0.0.0/8", INDEX_MAX + 1)).into());
    }
    let mut specs: Vec<Spec> = Vec::new();
    for (index, said) in (0u8..).zip(&names) {
        let name: ClusterName = said.parse().map_err(|e| Exit::Usage(format!("--members: {e}")))?;
        if specs.iter().any(|s| s.name == name) {
            return Err(Exit::Usage(format!("--members: `{name}` is named twice")).into());
        }
        specs.push(spec(name, index));
    }
    let here = PLACES.iter().find(|place| place.0 == HERE && names.iter().any(|n| n == HERE));
    if let (Some(place), true) = (here, config.standing == Standing::default()) {
        config.standing.region = Some(place.1.to_owned());
    }
    // Whoever asks from here stands in the hub's own set; without a member of it nothing would be served to them.
    let sets: Vec<String> = specs.iter().map(set).collect::<Result<_, _>>()?;
    if let (Some(first), false) = (sets.first(), sets.contains(&config.default_set)) {
        config.default_set.clone_from(first);
    }
    Ok(specs)
}

/// The cluster set that a member belongs to.
fn set(spec: &Spec) -> serde_json::Result<String> {
    let cluster: ClusterSpec = serde_json::from_value(spec.cluster.clone())?;
    Ok(cluster.set().to_owned())
}

fn spec(name: ClusterName, index: u8) -> Spec {
    let mut member = MemberSpec::new(name.as_str(), index);
    let mut cluster = json!({"environment": guess_environment(name.as_str()), "provider": "demo"});
    if let Some((_, region, zone, latitude, longitude)) = PLACES.iter().find(|place| place.0 == name.as_str()) {
        cluster["region"] = json!(region);
        cluster["zone"] = json!(zone);
        cluster["location"] = json!({"latitude": latitude, "longitude": longitude});
        let labels = [("topology.kubernetes.io/region", region), ("topology.kubernetes.io/zone", zone)];
        member.node_labels = labels.map(|(key, value)| (key.to_owned(), (*value).to_owned())).into();
    }
    match name.as_str() {
        RELAYED => cluster["reach"] = json!("Relay"),
        "dev" => member.images.push(("shop/web".into(), "2".into())),
        _ => {}
    }
    if name.as_str() == LOCKED {
        let password = rcgen::KeyPair::generate().map(|key| short(key.public_key_raw())).unwrap_or_default();
        member.registry_credentials = Some(Credentials { username: "prod-eu".into(), password });
    }
    Spec { name, member, cluster }
}

/// A word that nobody guesses, out of something random.
fn short(random: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(random).iter().take(12).map(|b| format!("{b:02x}")).collect()
}

/// Joins a member as anybody would: a token, then its agent.
pub(super) async fn join(
    hub: &kube::Client,
    address: &str,
    name: ClusterName,
    member: &Member,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> anyhow::Result<Part> {
    let token = create_token(hub, &TokenRequest::new(name)).await?.token.to_string();
    let config = atoll_agents::Config {
        hub: address.to_owned(),
        token: Some(token),
        names: true,
        ..atoll_agents::Config::default()
    };
    let connect = member.connect();
    let cluster = member.name().to_owned();
    let (client, metrics) = (member.client(), metrics.of(&format!("agent-{}", member.name())));
    let api = member.api_url();
    let api_server = host_and_port(api.trim_start_matches("https://")).map(|(host, port)| (host.to_owned(), port));
    Ok(Part::start("agent", shutdown, |end| async move {
        let copy = engine(&connect, &end);
        let resources = atoll_agents::Resources { client, api_server, connect, copy: Arc::clone(&copy) as _, metrics };
        let ended = atoll_agents::run(config, resources, end).await;
        copy.closed().await;
        if let Err(error) = &ended {
            tracing::error!(%error, cluster, "an agent ended");
        }
        Ok(ended?)
    }))
}

/// The running members, in the order in which they were named.
#[derive(Default)]
pub(super) struct Members(Vec<(ClusterName, Arc<Member>)>);

impl Members {
    pub(super) fn add(&mut self, name: ClusterName, member: Arc<Member>) {
        self.0.push((name, member));
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Member>> {
        self.iter().find(|(known, _)| known.as_str() == name).map(|(_, member)| member)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ClusterName, &Arc<Member>)> {
        self.0.iter().map(|(name, member)| (name, member))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &ClusterName> + Clone {
        self.0.iter().map(|(name, _)| name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

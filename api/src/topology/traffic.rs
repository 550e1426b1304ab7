//! Clusters and endpoints that people took out of gateways' hands: labels of the Cluster object.

use std::net::IpAddr;

use super::ClusterFacts;

/// The label that says so of a whole cluster: `drain` or `disable`.
pub const CLUSTER_TRAFFIC: &str = "gateway.atoll.dev/traffic";
/// Before an address in the label that says so of one endpoint.
const ENDPOINT_TRAFFIC: &str = "endpoint.gateway.atoll.dev/";

/// What gateways do with a cluster or endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Traffic {
    /// They use it.
    #[default]
    On,
    /// Nothing new is sent there; what is under way ends in its time.
    Drained,
    /// Nothing is sent there, and what is under way is ended.
    Disabled,
}

impl Traffic {
    /// As a label has it. What is written otherwise is no harm.
    pub fn parse(word: &str) -> Self {
        match word {
            "drain" => Self::Drained,
            "disable" => Self::Disabled,
            _ => Self::On,
        }
    }
}

/// The label of an endpoint: colons of IPv6 are no part of labels.
pub fn endpoint_label(ip: IpAddr) -> String {
    format!("{ENDPOINT_TRAFFIC}ip-{}", ip.to_canonical().to_string().replace(':', "_")).trim_end_matches('_').to_owned()
}

impl ClusterFacts {
    /// What gateways do with the endpoint at `ip`: what its label says, unless that of the cluster says more.
    pub fn traffic(&self, ip: IpAddr) -> Traffic {
        let of = |label: &str| self.labels.get(label).map_or(Traffic::On, |word| Traffic::parse(word));
        if self.labels.is_empty() {
            return Traffic::On;
        }
        match (of(CLUSTER_TRAFFIC), of(&endpoint_label(ip))) {
            (Traffic::Disabled, _) | (_, Traffic::Disabled) => Traffic::Disabled,
            (Traffic::Drained, _) | (_, Traffic::Drained) => Traffic::Drained,
            _ => Traffic::On,
        }
    }

    /// What people took out, for people: `cluster` or an address, and the word of its label.
    pub fn taken_out(&self) -> impl Iterator<Item = (String, &str)> {
        self.labels.iter().filter(|(_, word)| Traffic::parse(word) != Traffic::On).filter_map(|(label, word)| {
            let whose = match label.strip_prefix(ENDPOINT_TRAFFIC) {
                Some(endpoint) => endpoint.strip_prefix("ip-")?.replace('_', ":"),
                None if label == CLUSTER_TRAFFIC => "cluster".to_owned(),
                None => return None,
            };
            Some((whose, word.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_take_clusters_and_endpoints_out() {
        for (label, word, four, six) in [
            ("gateway.atoll.dev/traffic", "drain", Traffic::Drained, Traffic::Drained),
            ("gateway.atoll.dev/traffic", "disable", Traffic::Disabled, Traffic::Disabled),
            ("gateway.atoll.dev/traffic", "on", Traffic::On, Traffic::On),
            ("endpoint.gateway.atoll.dev/ip-10.0.0.1", "drain", Traffic::Drained, Traffic::On),
            ("endpoint.gateway.atoll.dev/ip-fd00__1", "disable", Traffic::On, Traffic::Disabled),
        ] {
            let facts = serde_json::json!({"name": "eu", "spec": {"environment": "prod"}, "labels": {label: word}});
            let facts: ClusterFacts = serde_json::from_value(facts).unwrap();
            let of = |ip: &str| facts.traffic(ip.parse().unwrap());
            assert_eq!((of("10.0.0.1"), of("fd00::1")), (four, six), "{label}={word}");
        }
        assert_eq!(endpoint_label("::ffff:10.0.0.1".parse().unwrap()), endpoint_label("10.0.0.1".parse().unwrap()));
    }
}

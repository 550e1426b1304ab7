//! What the console shows of DNS server and gateway: their ports, and what they answer now.

use std::sync::Arc;

use async_trait::async_trait;
use atoll_federation::{Answer, DataPlaneView};
use serde_json::Value;

use super::ports::At;
use crate::admin::Slot;
use crate::config::Config;

/// The service and the host of the demo.
pub(super) const SERVICE: &str = "web.shop.svc";
pub(super) const HOST: &str = "shop.example.com";

/// Asks the parts that run in this process.
pub(super) struct View {
    /// Whether there are demo members, which alone have the service and the host.
    demo: bool,
    apex: String,
    ports: Vec<(String, String)>,
    dns: Slot<atoll_dns::Server>,
    gateway: Slot<atoll_gateway::Server>,
}

impl View {
    pub(super) fn new(
        demo: bool,
        config: &Config,
        at: At,
        dns: &Slot<atoll_dns::Server>,
        gateway: &Slot<atoll_gateway::Server>,
    ) -> Self {
        Self {
            demo,
            apex: config.apex.clone(),
            ports: rows(config, &at),
            dns: Arc::clone(dns),
            gateway: Arc::clone(gateway),
        }
    }
}

/// What listens where, for people.
pub(super) fn rows(config: &Config, at: &At) -> Vec<(String, String)> {
    let (said, advertised) = (&config.advertise, Config::advertised);
    let rows = [
        ("DNS", format!("{} (UDP and TCP)", advertised(&said.dns, at.dns))),
        ("HTTP", advertised(&said.http, at.http)),
        ("HTTPS", advertised(&said.https, at.https)),
        ("API", format!("https://{}", advertised(&said.api, at.api))),
        ("console", format!("http://{}/", at.console)),
        ("agents", advertised(&said.hub, at.hub)),
        ("relay to DNS", advertised(&said.dns_relay, at.dns_relay)),
        ("relay to gateway", advertised(&said.gateway_relay, at.gateway_relay)),
        ("metrics, health", format!("http://{}/", at.admin)),
    ];
    rows.map(|(what, at)| (what.to_owned(), at)).into()
}

#[async_trait]
impl DataPlaneView for View {
    fn ports(&self) -> Vec<(String, String)> {
        self.ports.clone()
    }

    async fn answers(&self) -> Vec<Answer> {
        if !self.demo {
            return Vec::new();
        }
        let name = format!("{SERVICE}.{}", self.apex);
        let dns = match self.dns.load_full() {
            Some(server) => {
                let ask = atoll_dns::Ask { name: name.clone(), qtype: "A".into(), from: None, ecs: None };
                Some(server.explain(ask).await)
            }
            None => None,
        };
        let gateway = match self.gateway.load_full() {
            Some(server) => Some(server.explain(HOST, "/", None).await),
            None => None,
        };
        vec![answer("DNS", name, dns), answer("gateway", format!("http://{HOST}/"), gateway)]
    }
}

fn answer(from: &str, asked: String, said: Option<Value>) -> Answer {
    let (answer, ok) = match said {
        None => ("is stopped".to_owned(), false),
        Some(said) => short(&said),
    };
    Answer { from: from.to_owned(), asked, answer, ok }
}

/// The words of an explanation that fit into a line: the records, or the cluster that gets the request.
fn short(said: &Value) -> (String, bool) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(records) = said["answer"].as_array().filter(|records| !records.is_empty()) {
        let data: Vec<String> = records.iter().filter_map(|record| text(&record["data"])).collect();
        return (data.join(", "), true);
    }
    if let Some(taker) = taker(said) {
        let usable = taker["endpoints"].as_array().into_iter().flatten().filter(|e| e["usable"] == true).count();
        let (cluster, reach) = (text(&taker["cluster"]).unwrap_or_default(), text(&taker["reach"]).unwrap_or_default());
        return (format!("{cluster}: {usable} endpoints, {reach}"), true);
    }
    let why = ["error", "message", "rcode"].iter().find_map(|key| text(&said[*key]));
    (why.unwrap_or_else(|| "no cluster takes it".into()), false)
}

/// The first cluster of the first backend that would take a request.
fn taker(said: &Value) -> Option<&Value> {
    let listeners = said["listeners"].as_array()?.iter();
    let backends = listeners.flat_map(|l| l["backends"].as_array().into_iter().flatten());
    let tiers = backends.flat_map(|b| b["tiers"].as_array().into_iter().flatten());
    let clusters = tiers.flat_map(|t| t.as_array().into_iter().flatten());
    let mut clusters = clusters;
    clusters
        .find(|c| c["out"] == false && c["endpoints"].as_array().is_some_and(|e| e.iter().any(|e| e["usable"] == true)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_explanation_is_said_in_a_line() {
        let up = json!([{"usable": false}, {"usable": true}]);
        let tiers = json!([[{"cluster": "eu", "out": true, "endpoints": up}], [{"cluster": "us", "out": false, "reach": "Relay", "endpoints": up}]]);
        for (said, line, ok) in [
            (
                json!({"answer": [{"data": "10.0.0.1"}, {"data": "10.0.0.2"}], "rcode": "NOERROR"}),
                "10.0.0.1, 10.0.0.2",
                true,
            ),
            (json!({"answer": [], "rcode": "SERVFAIL"}), "SERVFAIL", false),
            (json!({"listeners": [{"backends": [{"tiers": tiers}]}]}), "us: 1 endpoints, Relay", true),
            (json!({"listeners": []}), "no cluster takes it", false),
            (json!({"error": "`x` is no host"}), "`x` is no host", false),
        ] {
            assert_eq!(short(&said), (line.to_owned(), ok), "{said}");
        }
    }
}

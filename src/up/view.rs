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
    apex: String,
    ports: Vec<(String, String)>,
    dns: Slot<atoll_dns::Server>,
    gateway: Slot<atoll_gateway::Server>,
}

impl View {
    pub(super) fn new(
        config: &Config,
        at: At,
        dns: &Slot<atoll_dns::Server>,
        gateway: &Slot<atoll_gateway::Server>,
    ) -> Self {
        Self { apex: config.apex.clone(), ports: rows(config, &at), dns: Arc::clone(dns), gateway: Arc::clone(gateway) }
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

/// The words of an explanation that fit into a line: the records or the endpoint, and what decided.
fn short(said: &Value) -> (String, bool) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(records) = said["answer"].as_array().filter(|records| !records.is_empty()) {
        let data: Vec<String> = records.iter().filter_map(|record| text(&record["data"])).collect();
        return (data.join(", "), true);
    }
    let why = text(&said["error"]).or_else(|| text(&said["rcode"])).unwrap_or_else(|| said.to_string());
    (why.chars().take(200).collect(), false)
}

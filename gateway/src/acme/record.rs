//! A challenge as a record: a DNSEndpoint with TXT values, which the hub's DNS servers answer with, or whoever else writes DNSEndpoints into a
//! zone. The CA may look once every DNS server of the hub that can be asked gives it. Source: RFC 8555 §8.4.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use atoll_api::kinds::{DNSEndpoint, DNSEndpointSpec, DnsEndpointRecord, FIELD_MANAGER, SYSTEM_NAMESPACE};
use atoll_api::topology::Topology;
use atoll_reach::host_and_port;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use kube::Api;
use kube::api::{Patch, PatchParams};
use tokio::time::{Instant, sleep, timeout};

use super::failure::Failure;
use super::leader::Acme;
use super::object::labels;
use super::{FLEET_LABEL, ORDER_LABEL};
use crate::names::by_tcp;

/// What the label says of one.
pub(super) const RECORD: &str = "record";
/// So short-lived is what a resolver may keep.
const TTL: i64 = 1;
/// So long is waited until every DNS server gives it, and so long for one that can't be asked.
const GIVEN_MAX: Duration = Duration::from_secs(60);
const DEAF_MAX: Duration = Duration::from_secs(10);
/// One question takes no longer, and the next comes after.
const WITHIN: Duration = Duration::from_secs(2);
const ASK_EVERY: Duration = Duration::from_millis(200);

/// What is to be found of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    /// As the order has it, a wildcard or not.
    pub(super) host: String,
    pub(super) value: String,
}

/// Values by name: a host and its wildcard share one.
fn by_name(proofs: &[Proof]) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Proof { host, value } in proofs {
        let base = host.strip_prefix("*.").unwrap_or(host);
        all.entry(format!("_acme-challenge.{base}")).or_default().insert(value.clone());
    }
    all
}

fn object(proofs: &[Proof], fleet: &str, order: &str) -> DNSEndpoint {
    let records = by_name(proofs).into_iter().map(|(dns_name, values)| DnsEndpointRecord {
        dns_name,
        record_type: "TXT".to_owned(),
        record_ttl: Some(TTL),
        targets: values.into_iter().collect(),
        ..DnsEndpointRecord::default()
    });
    let mut object = DNSEndpoint::new(order, DNSEndpointSpec { endpoints: records.collect() });
    object.metadata.labels = Some(labels(RECORD, &[(FLEET_LABEL, fleet), (ORDER_LABEL, order)]));
    object
}

/// Puts the records of an order where DNS servers find them.
pub(super) async fn show(acme: &Acme, order: &str, proofs: &[Proof]) -> Result<(), Failure> {
    if proofs.is_empty() {
        return Ok(());
    }
    let api: Api<DNSEndpoint> = Api::namespaced(acme.client.clone(), SYSTEM_NAMESPACE);
    let object = object(proofs, &acme.fleet.lease(), order);
    match api.patch(order, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(Failure::Refused(
            "dns-01 needs the kind DNSEndpoint (externaldns.k8s.io/v1alpha1), which the hub's API does not have"
                .to_owned(),
        )),
        Err(error) => Err(Failure::hub(&format!("DNSEndpoint `{SYSTEM_NAMESPACE}/{order}`"), &error)),
    }
}

/// Waits until every DNS server of the hub gives them, and then as long as others take to hear of it.
pub(super) async fn until_given(acme: &Acme, proofs: &[Proof], spreads: Duration) -> Result<(), Failure> {
    if proofs.is_empty() {
        return Ok(());
    }
    let began = Instant::now();
    let wanted = by_name(proofs);
    loop {
        let mut behind = Vec::new();
        let servers = servers(&acme.topology.borrow().topology);
        for server in servers {
            match lacks(acme, &server, &wanted).await {
                Ok(None) => {}
                Ok(Some(name)) => behind.push(format!("{server} does not give {name} yet")),
                Err(error) if began.elapsed() < DEAF_MAX => behind.push(format!("{server}: {error}")),
                Err(error) => tracing::debug!(server, %error, "a DNS server can't be asked for a record"),
            }
        }
        if behind.is_empty() {
            break;
        }
        if began.elapsed() > GIVEN_MAX {
            return Err(Failure::Hub(format!("DNS: {}", behind.join("; "))));
        }
        sleep(ASK_EVERY).await;
    }
    sleep(spreads).await;
    Ok(())
}

/// The DNS servers that are alive.
fn servers(topology: &Topology) -> BTreeSet<String> {
    let alive = topology.sites.values().filter(|site| site.kind == "dns" && !site.silent);
    alive.flat_map(|site| site.addresses.iter().cloned()).collect()
}

/// The first name that a server lacks a value of.
async fn lacks(acme: &Acme, server: &str, wanted: &BTreeMap<String, BTreeSet<String>>) -> io::Result<Option<String>> {
    for (name, values) in wanted {
        let given =
            timeout(WITHIN, ask(acme, server, name)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        if !values.is_subset(&given?) {
            return Ok(Some(name.clone()));
        }
    }
    Ok(None)
}

/// The TXT values of a name, by TCP.
async fn ask(acme: &Acme, server: &str, name: &str) -> io::Result<BTreeSet<String>> {
    let (host, port) = host_and_port(server).unwrap_or((server, 53));
    let owner = Name::from_ascii(format!("{name}.")).map_err(io::Error::other)?;
    let mut query = Message::query();
    query.add_query(Query::query(owner, RecordType::TXT));
    let octets = query.to_vec().map_err(io::Error::other)?;
    let answer = by_tcp(&*acme.plane.pool.connect, host, port, &octets).await?;
    let answer = Message::from_vec(&answer).map_err(io::Error::other)?;
    let texts = answer.answers.iter().filter_map(|record| match &record.data {
        RData::TXT(txt) => Some(txt.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect::<String>()),
        _ => None,
    });
    Ok(texts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_its_wildcard_share_a_name() {
        let proof = |host: &str, value: &str| Proof { host: host.into(), value: value.into() };
        let proofs = [proof("a.test", "1"), proof("*.a.test", "2"), proof("b.test", "3")];
        let object = object(&proofs, "lease", "order");
        let said: Vec<String> =
            object.spec.endpoints.iter().map(|r| format!("{} {}", r.dns_name, r.targets.join(","))).collect();
        assert_eq!(said, ["_acme-challenge.a.test 1,2", "_acme-challenge.b.test 3"]);
    }
}

//! A challenge as an object: a ConfigMap that every replica answers from, which the CA may look for once all of them do.
//!
//! What stands in it is no secret: the CA asks for it in the clear. Source: RFC 8555 §8.1, §8.3.

use std::collections::BTreeSet;
use std::time::Duration;

use atoll_api::kinds::{FIELD_MANAGER, SYSTEM_NAMESPACE};
use atoll_api::topology::{Site, Topology};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::failure::Failure;
use super::leader::Acme;
use super::object::labels;
use super::{FLEET_LABEL, ORDER_LABEL};
use crate::ingress::mark;

/// What the label says of one.
pub(super) const CHALLENGE: &str = "challenge";
/// So long is waited until every replica answers.
const ANSWERED_MAX: Duration = Duration::from_secs(60);
/// Tokens are no longer (RFC 8555 §8.3: base64url of at least 128 bits).
const TOKEN_MAX: usize = 256;

/// What a CA looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) host: String,
    pub(super) token: String,
    /// The key authorization.
    pub(super) answer: String,
}

impl Challenge {
    /// As an object says it; nothing where it is none that could be asked for.
    pub(super) fn of(map: &ConfigMap) -> Option<Self> {
        let data = map.data.as_ref()?;
        let part = |key: &str| data.get(key).cloned();
        let challenge = Self { host: part("host")?, token: part("token")?, answer: part("answer")? };
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        let fits = !challenge.token.is_empty() && challenge.token.len() <= TOKEN_MAX;
        (fits && challenge.token.bytes().all(plain)).then_some(challenge)
    }

    fn object(&self, fleet: &str, order: &str) -> ConfigMap {
        let data = [("host", &self.host), ("token", &self.token), ("answer", &self.answer)];
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(format!("acme-challenge-{}", mark(&self.token))),
                labels: Some(labels(CHALLENGE, &[(FLEET_LABEL, fleet), (ORDER_LABEL, order)])),
                ..ObjectMeta::default()
            },
            data: Some(data.map(|(key, value)| (key.to_owned(), value.clone())).into()),
            ..ConfigMap::default()
        }
    }
}

/// Puts challenges of an order where every replica finds them.
pub(super) async fn show(acme: &Acme, order: &str, challenges: &[Challenge]) -> Result<(), Failure> {
    let api: Api<ConfigMap> = Api::namespaced(acme.client.clone(), SYSTEM_NAMESPACE);
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    for challenge in challenges {
        let object = challenge.object(&acme.fleet.lease(), order);
        match api.create(&parameters, &object).await {
            Ok(_) => {}
            // The leader before us put it there.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(Failure::hub("the challenge", &error)),
        }
    }
    Ok(())
}

/// Waits until every live replica answers these.
pub(super) async fn until_answered(acme: &Acme, challenges: &[Challenge]) -> Result<(), Failure> {
    let tokens: BTreeSet<String> = challenges.iter().map(|challenge| challenge.token.clone()).collect();
    let mut topology = acme.topology.clone();
    let answered = async {
        acme.plane.answers.until(&tokens).await;
        let _ = topology.wait_for(|seen| silent(acme, &seen.topology, &tokens).is_empty()).await;
    };
    if tokio::time::timeout(ANSWERED_MAX, answered).await.is_ok() {
        return Ok(());
    }
    let silent = silent(acme, &acme.topology.borrow().topology, &tokens).into_iter().collect::<Vec<_>>().join(", ");
    let who = if silent.is_empty() { acme.instance.clone() } else { silent };
    Err(Failure::Hub(format!("the challenge is not answered yet by {who} (does every replica have gateway.acme?)")))
}

/// The live replicas beside this one that do not answer them. One that serves nothing yet is sent nothing.
fn silent(acme: &Acme, topology: &Topology, tokens: &BTreeSet<String>) -> BTreeSet<String> {
    let lacks = |site: &&Site| {
        let serves = acme.fleet.has(site) && !site.silent && site.gateways.is_some();
        serves && site.instance != acme.instance && !tokens.is_subset(&site.challenges)
    };
    topology.sites.values().map(AsRef::as_ref).filter(lacks).map(|site| site.instance.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_nothing_else() {
        let challenge = Challenge { host: "a.test".into(), token: "tok_en-1".into(), answer: "tok_en-1.thumb".into() };
        let mut object = challenge.object("lease", "order");
        assert_eq!(Challenge::of(&object), Some(challenge));
        let long = "a".repeat(TOKEN_MAX + 1);
        for odd in ["", "../a", "a b", "ü", &long] {
            let mut data: BTreeMap<String, String> = object.data.clone().unwrap();
            data.insert("token".into(), odd.into());
            object.data = Some(data);
            assert_eq!(Challenge::of(&object), None, "{odd}");
        }
    }
}

//! What this replica answers to CAs that look: the challenges that are objects in the hub's API, as it follows them.
//!
//! In: ConfigMaps with our label in the system namespace. Out: what stands at `/.well-known/acme-challenge/`, and the statement of which
//! challenges that are. Source: RFC 8555 §8.3.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_api::kinds::SYSTEM_NAMESPACE;
use atoll_wire::follow::Report;
use bytes::Bytes;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use super::LABEL;
use super::challenge::{CHALLENGE, Challenge};
use crate::plane::Plane;
use crate::watch::Again;

/// Where answers stand.
pub(crate) const PATH: &str = "/.well-known/acme-challenge/";

/// What is answered, by token.
#[derive(Debug, Default)]
pub(crate) struct Answers(watch::Sender<BTreeMap<String, Bytes>>);

impl Answers {
    /// What stands at a path; nothing where it is for a route to say.
    pub(crate) fn at(&self, path: &str) -> Option<Bytes> {
        self.0.borrow().get(path.strip_prefix(PATH)?).cloned()
    }

    /// Waits until all of these are answered.
    pub(super) async fn until(&self, tokens: &BTreeSet<String>) {
        let _ = self.0.subscribe().wait_for(|all| tokens.iter().all(|token| all.contains_key(token))).await;
    }
}

/// Follows the challenges for ever, answers them, and then states so.
pub(crate) async fn follow(client: Client, plane: Arc<Plane>, report: watch::Sender<Report>) {
    let api: Api<ConfigMap> = Api::namespaced(client, SYSTEM_NAMESPACE);
    let (store, writer) = reflector::store::<ConfigMap>();
    let config = watcher::Config::default().labels(&format!("{LABEL}={CHALLENGE}"));
    let events = reflector(writer, watcher(api, config).backoff(Again::default()));
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => {
                let all: BTreeMap<String, Bytes> = store.state().iter().filter_map(|map| answer(map)).collect();
                let tokens = all.keys().cloned().collect();
                plane.answers.0.send_replace(all);
                report.send_if_modified(|report| {
                    let is_other = report.site.challenges != tokens;
                    report.site.challenges = tokens;
                    is_other
                });
            }
            Err(error) => tracing::warn!(kind = "challenges", %error, "watch interrupted, goes on"),
        }
    }
}

fn answer(map: &ConfigMap) -> Option<(String, Bytes)> {
    let Challenge { token, answer, .. } = Challenge::of(map)?;
    Some((token, Bytes::from(answer)))
}

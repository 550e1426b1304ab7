//! Labels of pods: those are kept that the hub asks for, which are few.
//!
//! In: the hub's word, a watch of pods. Out: their rows with the labels that are wanted. Where other keys are wanted the watch begins anew, and
//! the rows as they were stand until its list is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use tokio::sync::{Notify, watch};

use super::{Seen, follow, trim};
use crate::desired::Word;

/// So long pods are not looked at because the hub may be about to say which labels it wants: an agent that starts anew tells of endpoints
/// once, with their labels, and none of them leaves its subset meanwhile.
const WORD_MAX: Duration = Duration::from_secs(5);

/// Keys by `namespace/service`.
pub(super) type Wanted = BTreeMap<String, Arc<BTreeSet<String>>>;

/// What the hub wants now.
pub(super) fn wanted(word: &watch::Receiver<Word>) -> Wanted {
    word.borrow().desired.as_ref().map(|desired| desired.labels.clone()).unwrap_or_default()
}

fn keys(wanted: &Wanted) -> BTreeSet<String> {
    wanted.values().flat_map(|keys| keys.iter().cloned()).collect()
}

/// Follows pods for ever.
pub(super) async fn follow_pods(
    client: kube::Client,
    seen: Arc<Seen>,
    changed: Arc<Notify>,
    mut word: watch::Receiver<Word>,
) {
    let _ = tokio::time::timeout(WORD_MAX, word.wait_for(|word| word.desired.is_some() || word.left)).await;
    let mut asked = wanted(&word);
    loop {
        let keys = keys(&asked);
        let api: Api<Pod> = Api::all(client.clone());
        tokio::select! {
            () = follow(api, "", &seen.pods, &changed, |pod| trim::pod(pod, &keys)) => {}
            () = others(&keys, &mut asked, &mut word, &changed) => {}
        }
    }
}

/// Waits until other keys are wanted. Of other services with the same keys it is told that something is to be said otherwise.
async fn others(keys: &BTreeSet<String>, asked: &mut Wanted, word: &mut watch::Receiver<Word>, changed: &Notify) {
    while word.changed().await.is_ok() {
        let now = wanted(word);
        if now == *asked {
            continue;
        }
        *asked = now;
        changed.notify_one();
        if self::keys(asked) != *keys {
            return;
        }
    }
    // The link has ended, and so will we.
    pending().await
}

#[cfg(test)]
mod tests {
    use atoll_apiserver::{ApiServer, Storage};
    use kube::api::PostParams;
    use serde_json::json;

    use super::*;
    use crate::desired::Desired;

    fn saying(keys: &[&str]) -> Word {
        let keys: BTreeSet<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let labels = Wanted::from([("default/web".to_owned(), Arc::new(keys))]);
        Word { desired: Some(Arc::new(Desired { labels, ..Desired::default() })), ..Word::default() }
    }

    #[tokio::test]
    async fn pods_are_listed_once_the_hub_has_said_which_labels_it_wants() {
        let namespaces = ["default".to_owned()].into();
        let config = atoll_apiserver::Config { namespaces, ..Default::default() };
        let member = ApiServer::open(config, Storage::Memory).await.unwrap();
        let pods: Api<Pod> = Api::namespaced(member.client(), "default");
        let pod = json!({"metadata": {"name": "web-1", "labels": {"version": "1", "track": "stable"}},
            "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        let (say, word) = watch::channel(Word::default());
        let (seen, changed) = (Arc::new(Seen::default()), Arc::new(Notify::new()));
        tokio::time::pause();
        let following = tokio::spawn(follow_pods(member.client(), Arc::clone(&seen), Arc::clone(&changed), word));
        // Time stands still: what is not there now waits for the word and for nothing else.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(!seen.pods.is_synced());
        tokio::time::resume();
        for (keys, labels) in [(&["version"][..], "1"), (&["version", "track"], "stable 1"), (&["track"], "stable")] {
            say.send_replace(saying(keys));
            let told = || {
                let rows = seen.pods.rows();
                rows.get("default/web-1").map(|row| row.labels.values().cloned().collect::<Vec<_>>().join(" "))
            };
            let waiting = async {
                while told().as_deref() != Some(labels) {
                    assert!(
                        keys.len() > 1 || labels != "1" || told().is_none(),
                        "the first list has them: {:?}",
                        told()
                    );
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("never: {labels}"));
        }
        following.abort();
    }
}

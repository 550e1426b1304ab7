//! Watches: nothing missed, nothing twice, and a clear word when that can't be promised.

mod support;

use std::{pin::pin, time::Duration};

use anyhow::{Context as _, Result};
use atoll_apiserver::{Config, Storage};
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use support::*;

/// The events of a watch, as JSON.
async fn open(client: &Client, path: &str) -> Result<impl futures::Stream<Item = Result<Value>> + Unpin + use<>> {
    let request = http::Request::get(path).body(Vec::new())?;
    let lines = client.request_stream(request).await?.lines();
    Ok(Box::pin(lines.map_err(anyhow::Error::from).and_then(async |line| Ok(serde_json::from_str(&line)?))))
}

async fn next(stream: &mut (impl futures::Stream<Item = Result<Value>> + Unpin)) -> Result<(String, String, Value)> {
    let event = tokio::time::timeout(Duration::from_secs(5), stream.next()).await?.context("the watch ended")??;
    let name = event.pointer("/object/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((event["type"].as_str().unwrap_or_default().to_owned(), name, event["object"].clone()))
}

#[tokio::test]
async fn every_change_comes_once_and_in_order() -> Result<()> {
    let bed = Bed::up().await?;
    for (way, client) in bed.both().await? {
        let name = way.replace(' ', "-");
        let path = format!("{MAPS}/{name}");
        let (_, list) = get(&client, MAPS).await?;
        let from = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut watch = open(&client, &format!("{MAPS}?watch=true&resourceVersion={from}")).await?;
        post(&client, MAPS, &config_map(&name, json!({}))).await?;
        merge(&client, &path, &json!({"data": {"x": "1"}})).await?;
        delete(&client, &path, &Value::Null).await?;
        let mut last = 0;
        for want in ["ADDED", "MODIFIED", "DELETED"] {
            let (kind, seen, object) = next(&mut watch).await?;
            assert_eq!((&*kind, &*seen), (want, &*name), "{way}");
            let revision: u64 = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse()?;
            assert!(revision > last, "{way}");
            last = revision;
        }
    }
    bed.down().await
}

#[tokio::test]
async fn a_selector_sees_objects_come_and_go() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let label = |value: &str| json!({"metadata": {"labels": {"on": value}}});
    post(&client, MAPS, &config_map("a", json!({}))).await?;
    let mut watch = open(&client, &format!("{MAPS}?watch=1&labelSelector=on%3Dyes")).await?;
    for (value, want) in [("yes", "ADDED"), ("no", "DELETED"), ("yes", "ADDED")] {
        merge(&client, &format!("{MAPS}/a"), &label(value)).await?;
        assert_eq!(next(&mut watch).await?.0, want);
    }
    delete(&client, &format!("{MAPS}/a"), &Value::Null).await?;
    assert_eq!(next(&mut watch).await?.0, "DELETED");
    bed.down().await
}

#[tokio::test]
async fn a_revision_that_is_forgotten_is_gone() -> Result<()> {
    let bed = Bed::with(Config { history_len_max: 4, ..config() }, Storage::Memory).await?;
    let client = bed.server.client();
    post(&client, MAPS, &config_map("a", json!({}))).await?;
    let (_, list) = get(&client, &format!("{MAPS}?limit=1")).await?;
    let old = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    for round in 0..10 {
        merge(&client, &format!("{MAPS}/a"), &json!({"data": {"x": round.to_string()}})).await?;
    }
    for from in [old.clone(), "1".to_owned(), (bed.server.revision() + 100).to_string()] {
        // Said within the stream: clients list again at an event, not at a refusal.
        let (code, event) = get(&client, &format!("{MAPS}?watch=true&resourceVersion={from}")).await?;
        let (kind, said) = (event["type"].as_str(), &event["object"]);
        assert_eq!((code, kind, &said["code"], &said["reason"]), (200, Some("ERROR"), &json!(410), &json!("Expired")));
    }
    let (code, answer) = get(&client, &format!("{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")).await?;
    assert_eq!((code, answer["reason"].as_str()), (410, Some("Expired")));
    let (code, answer) = get(&client, &format!("{MAPS}?resourceVersion={}", bed.server.revision() + 100)).await?;
    assert_eq!((code, answer["reason"].as_str()), (504, Some("Timeout")));
    bed.down().await
}

#[tokio::test]
async fn a_list_can_be_streamed() -> Result<()> {
    let bed = Bed::with(Config { bookmark_every: Duration::from_millis(50), ..config() }, Storage::Memory).await?;
    let client = bed.server.client();
    post(&client, MAPS, &config_map("a", json!({}))).await?;
    post(&client, MAPS, &config_map("b", json!({}))).await?;
    let query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = open(&client, &format!("{MAPS}?{query}")).await?;
    assert_eq!(next(&mut watch).await?.1, "a");
    assert_eq!(next(&mut watch).await?.1, "b");
    let (kind, _, end) = next(&mut watch).await?;
    assert_eq!((&*kind, &end["metadata"]["annotations"]["k8s.io/initial-events-end"]), ("BOOKMARK", &json!("true")));
    post(
        &client,
        "/api/v1/namespaces/default/secrets",
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}),
    )
    .await?;
    // Bookmarks move on with the whole store, not with this resource alone.
    until("a bookmark is past the secret", async || {
        let mut watch = open(
            &client,
            &format!("{MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={}", bed.server.revision()),
        )
        .await?;
        let (kind, _, object) = next(&mut watch).await?;
        Ok(kind == "BOOKMARK"
            && object["metadata"]["resourceVersion"].as_str().is_some_and(|v| v.parse() == Ok(bed.server.revision())))
    })
    .await?;
    bed.down().await
}

#[tokio::test]
async fn a_watch_ends_when_it_said() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.over_https("admin", &["system:masters"]).await?;
    let mut watch = open(&client, &format!("{MAPS}?watch=true&timeoutSeconds=1")).await?;
    assert!(tokio::time::timeout(Duration::from_secs(5), watch.next()).await?.is_none());
    bed.down().await
}

#[tokio::test]
async fn a_watch_that_asks_for_an_age_is_served() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let mut watch = open(&client, &format!("{MAPS}?watch=true&timeoutSeconds={}", u64::MAX)).await?;
    post(&client, MAPS, &config_map("a", json!({}))).await?;
    let (kind, name, _) = next(&mut watch).await?;
    assert_eq!((kind.as_str(), name.as_str()), ("ADDED", "a"));
    bed.down().await
}

#[tokio::test]
async fn kubes_own_watchers_follow() -> Result<()> {
    for streaming in [false, true] {
        let bed = Bed::up().await?;
        for (way, client) in bed.both().await? {
            let name = format!("w-{}", way.replace(' ', "-"));
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
            post(&client, MAPS, &config_map(&format!("{name}-0"), json!({}))).await?;
            let config = watcher::Config::default();
            let config = if streaming { config.streaming_lists() } else { config };
            let mut seen = pin!(watcher(api, config).applied_objects());
            let mut names = std::collections::BTreeSet::new();
            let mut made = 0;
            while !names.contains(&format!("{name}-3")) {
                let object = tokio::time::timeout(Duration::from_secs(5), seen.next()).await?.context("ended")??;
                names.insert(object.metadata.name.unwrap_or_default());
                if made < 3 {
                    made += 1;
                    post(&client, MAPS, &config_map(&format!("{name}-{made}"), json!({}))).await?;
                }
            }
            assert!((0..=3).all(|n| names.contains(&format!("{name}-{n}"))), "{way}: {names:?}");
        }
        bed.down().await?;
    }
    Ok(())
}

#[tokio::test]
async fn metadata_alone_can_be_watched() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client.clone(), "default");
    let mut seen = pin!(watcher(api, watcher::Config::default()).applied_objects());
    post(&client, MAPS, &config_map("a", json!({"x": "1"}))).await?;
    let object = tokio::time::timeout(Duration::from_secs(5), seen.next()).await?.context("ended")??;
    assert_eq!(object.metadata.name.as_deref(), Some("a"));
    bed.down().await
}

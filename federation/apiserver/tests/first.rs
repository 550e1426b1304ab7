//! The straight line: open, create, change, watch, delete, over a client without a socket.

use atoll_apiserver::{ApiServer, Config, Storage};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

#[tokio::test]
async fn an_object_lives() -> anyhow::Result<()> {
    let server = ApiServer::open(Config::default(), Storage::Memory).await?;
    let api: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"x": "1"}}))?;
    let made = api.create(&PostParams::default(), &map).await?;
    assert!(made.metadata.uid.is_some());
    let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"y": "2"}});
    let patched = api.patch("a", &PatchParams::apply("me"), &Patch::Apply(&patch)).await?;
    assert_eq!(patched.data.unwrap_or_default().len(), 2);
    assert_eq!(api.list(&Default::default()).await?.items.len(), 1);
    api.delete("a", &Default::default()).await?;
    assert!(api.get_opt("a").await?.is_none());
    server.close().await;
    Ok(())
}

//! Survive: the hub is killed and starts again on the same store. Nobody is told anything new by that.

use atoll_api::kinds::{Assignment, ServiceImport};
use atoll_api::names::ServiceName;
use atoll_api::topology::Version;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::place::web;
use crate::world::{World, eventually, throughout};

#[tokio::test]
async fn a_hub_that_starts_again_has_a_newer_epoch_and_changes_nothing() {
    let mut world = World::start().await;
    let (eu, a) = world.joined("prod-eu", |_| ()).await;
    let (us, b) = world.joined("prod-us", |_| ()).await;
    let (_dev, c) = world.joined("dev", |_| ()).await;
    let both = json!({"clusters": {"environments": ["prod"]}, "division": {"mode": "Weighted", "weights": {"prod-eu": 2, "prod-us": 1}}});
    world.apply(web(3, "shop/web:1", both)).await;
    let service = ServiceName::new("shop", "web");
    world
        .topology("it runs", |t| {
            let ready = |c: &str| t.endpoints_in(c, &service).map_or(0, |e| e.ready());
            ((ready("prod-eu"), ready("prod-us")) == (2, 1)).then_some(())
        })
        .await;
    let imports: Api<ServiceImport> = Api::namespaced(world.client(), "shop");
    let exporters = async || {
        let found = imports.get_opt("web").await.unwrap().and_then(|i| i.status).unwrap_or_default();
        found.clusters.into_iter().map(|c| c.cluster).collect::<Vec<_>>()
    };
    let both = ["prod-eu".to_owned(), "prod-us".to_owned()];
    eventually("both export it", async || if exporters().await == both { Ok(()) } else { Err(exporters().await) })
        .await;
    let assignments: Api<Assignment> = Api::all(world.client());
    let told = async || {
        let all = assignments.list(&Default::default()).await.unwrap().items;
        let mut told: Vec<_> = all.iter().map(|a| (a.name_any(), a.namespace(), a.resource_version())).collect();
        told.sort();
        told
    };
    let generation = async || {
        let api: Api<Deployment> = Api::namespaced(us.client(), "shop");
        let found = api.get("web").await.unwrap().metadata;
        (found.uid, found.generation)
    };
    let (before, epoch, deployed) = (told().await, world.hub().epoch, generation().await);
    // prod-eu is cut off while the hub is away.
    world.stop_hub().await;
    eu.break_it();
    world.run_hub().await;
    assert!(world.hub().epoch > epoch);
    let version: Version =
        world.hub().topology.clone().wait_for(Option::is_some).await.unwrap().as_ref().unwrap().version;
    assert_eq!(version.epoch, epoch + 1);
    world.condition("prod-us", "Syncing", "True").await;
    world.condition("prod-us", "Ready", "True").await;
    let lost = world.condition("prod-eu", "Ready", "False").await;
    assert!(["HeartbeatsMissed", "Lost"].contains(&lost.reason.as_str()), "{lost:?}");
    // A member that has not reported since is away, not without services.
    throughout("nothing is taken back", std::time::Duration::from_secs(3), async || {
        let (now, exported) = (told().await, exporters().await);
        if now == before && exported == both { Ok(()) } else { Err((now, exported)) }
    })
    .await;
    assert_eq!(generation().await, deployed);
    world
        .topology("the service is known with both", |t| {
            let service = t.services.get("prod")?.get(&service)?;
            ["prod-eu", "prod-us"].iter().all(|c| service.clusters.iter().any(|s| s == c)).then_some(())
        })
        .await;
    eu.heal();
    world.condition("prod-eu", "Ready", "True").await;
    world
        .topology("its endpoints are back", |t| t.endpoints_in("prod-eu", &service).filter(|e| e.ready() == 2).cloned())
        .await;
    assert_eq!(told().await, before);
    world.end([a, b, c]).await;
}

//! Place: a Bundle lands where it should, moves and comes back without ever being gone, and goes without taking anything else.

use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::{Bundle, BundleStatus};
use atoll_demo::registry::images;
use atoll_demo::{Member, MemberSpec};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::world::{World, apply, eventually, throughout};

/// The Bundle `shop/web`: a Deployment and its Service, exported.
pub(crate) fn web(replicas: u32, image: &str, placement: Value) -> Value {
    let container = json!({"name": "web", "image": image, "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": "REGION", "value": "eu"}], "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}}});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}});
    json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Bundle", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"placement": placement, "exports": ["web"], "manifests": [deployment, service]}})
}

fn brisk(mut placement: Value) -> Value {
    // Long enough that a busy machine loses nobody who is there.
    placement["failover"] = json!({"after": "4s"});
    placement["failback"] = json!({"stabilise": "3s"});
    placement
}

fn deployments(member: &Member) -> Api<Deployment> {
    Api::namespaced(member.client(), "shop")
}

/// Replicas that are ready; `None` where there is no Deployment.
async fn ready_in(member: &Member) -> Option<i32> {
    let found = deployments(member).get_opt("web").await.unwrap()?;
    Some(found.status.and_then(|s| s.ready_replicas).unwrap_or(0))
}

/// Waits until each cluster has so many ready replicas (0: no Deployment at all).
async fn runs(what: &str, members: &[(&Arc<Member>, i32)]) {
    eventually(what, async || {
        let mut now = Vec::new();
        for (member, _) in members {
            now.push(ready_in(member).await);
        }
        let want = members.iter().map(|(_, n)| Some(*n).filter(|n| *n > 0));
        if want.eq(now.iter().copied()) { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Waits until the status is as wanted.
async fn status(world: &World, what: &str, want: impl Fn(&BundleStatus) -> bool) -> BundleStatus {
    let bundles: Api<Bundle> = Api::namespaced(world.client(), "shop");
    eventually(what, async || {
        let status = bundles.get("web").await.unwrap().status.unwrap_or_default();
        if want(&status) { Ok(status) } else { Err(status) }
    })
    .await
}

fn holds(status: &BundleStatus, kind: &str, value: &str) -> bool {
    status.conditions.iter().any(|c| c.type_ == kind && c.status == value)
}

#[tokio::test]
async fn a_bundle_is_divided_overridden_kept_and_removed_with_nothing_else() {
    let world = World::start().await;
    let (eu, a) = world.joined("prod-eu", |_| ()).await;
    let (us, b) = world.joined("prod-us", |_| ()).await;
    let (dr, c) = world.joined("dr", |_| ()).await;
    let placement = json!({"clusters": {"environments": ["prod", "dr"]}, "affinityGroups": [["prod-eu", "prod-us"], ["dr"]],
        "division": {"mode": "Weighted", "weights": {"prod-eu": 2, "prod-us": 1}}});
    let mut bundle = web(3, "shop/web:1", placement);
    let env = "/spec/template/spec/containers/0/env/0/value";
    bundle["spec"]["overrides"] = json!([{"clusters": {"names": ["prod-us"]}, "target": {"kind": "Deployment", "name": "web"},
        "patch": [{"op": "replace", "path": env, "value": "us"}]}]);
    world.apply(bundle).await;
    runs("divided", &[(&eu, 2), (&us, 1), (&dr, 0)]).await;
    let done = status(&world, "ready", |s| holds(s, "Ready", "True") && holds(s, "Placed", "True")).await;
    assert_eq!(done.summary, "prod-eu 2/2, prod-us 1/1");
    for (member, region) in [(&eu, "eu"), (&us, "us")] {
        let held = json!(deployments(member).get("web").await.unwrap());
        assert_eq!(held.pointer(env).unwrap(), region);
    }
    // Exported: there are endpoints of both.
    let of = |t: &atoll_api::topology::Topology| {
        let service = atoll_api::names::ServiceName::new("shop", "web");
        let ready = |c: &str| t.endpoints_in(c, &service).map_or(0, |e| e.ready());
        ((ready("prod-eu"), ready("prod-us")) == (2, 1)).then_some(())
    };
    world.topology("its endpoints are known", of).await;
    // Drift: changed and deleted by others.
    let scaled = json!({"spec": {"replicas": 7}});
    deployments(&eu).patch("web", &Default::default(), &kube::api::Patch::Merge(&scaled)).await.unwrap();
    let services: Api<Service> = Api::namespaced(eu.client(), "shop");
    services.delete("web", &DeleteParams::default()).await.unwrap();
    runs("put right", &[(&eu, 2), (&us, 1), (&dr, 0)]).await;
    eventually("made anew", async || services.get_opt("web").await.unwrap().map(drop).ok_or("gone")).await;
    // Deleted: what is ours goes, what is others' stays, and so does the namespace while something is in it.
    let others = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "others", "namespace": "shop"}, "data": {"a": "b"}});
    apply(&eu.client(), others).await;
    Api::<Bundle>::namespaced(world.client(), "shop").delete("web", &DeleteParams::default()).await.unwrap();
    runs("gone everywhere", &[(&eu, 0), (&us, 0), (&dr, 0)]).await;
    eventually("its service, too", async || match services.get_opt("web").await.unwrap() {
        None => Ok(()),
        Some(service) => Err(service.name_any()),
    })
    .await;
    let namespaces = |member: &Arc<Member>| Api::<Namespace>::all(member.client());
    eventually("an empty namespace that we brought goes", async || {
        match namespaces(&us).get_opt("shop").await.unwrap() {
            None => Ok(()),
            Some(namespace) => Err(namespace.status),
        }
    })
    .await;
    assert!(namespaces(&eu).get_opt("shop").await.unwrap().is_some());
    let kept: Api<ConfigMap> = Api::namespaced(eu.client(), "shop");
    assert_eq!(kept.get("others").await.unwrap().data.unwrap()["a"], "b");
    world.end([a, b, c]).await;
}

#[tokio::test]
async fn a_lost_clusters_share_moves_to_dr_and_comes_back_without_a_gap() {
    let world = World::start().await;
    let (eu, a) = world.joined("prod-eu", |_| ()).await;
    // Room for one replica, so that dr is needed.
    let small = |spec: &mut MemberSpec| (spec.nodes, spec.cpu) = (1, "900m".into());
    let (us, b) = world.joined("prod-us", small).await;
    let (dr, c) = world.joined("dr", |_| ()).await;
    let groups = json!({"affinityGroups": [["prod-eu", "prod-us"], ["dr"]],
        "division": {"mode": "Weighted", "weights": {"prod-eu": 2, "prod-us": 1}}});
    world.apply(web(3, "shop/web:1", brisk(groups))).await;
    runs("before", &[(&eu, 2), (&us, 1), (&dr, 0)]).await;
    let dr_has = async || if ready_in(&dr).await == Some(2) { Ok(()) } else { Err(ready_in(&dr).await) };
    let someone = async || {
        let n = ready_in(&us).await.unwrap_or(0) + ready_in(&dr).await.unwrap_or(0);
        if n > 0 { Ok(()) } else { Err("no ready copy at all") }
    };
    eu.break_it();
    eventually("dr runs the lost share", async || {
        someone().await.unwrap();
        dr_has().await
    })
    .await;
    status(&world, "the loss is shown", |s| s.summary == "dr 2/2, prod-eu Lost, prod-us 1/1").await;
    assert_eq!(ready_in(&eu).await, Some(2), "a member that is cut off changes nothing");
    eu.heal();
    world.condition("prod-eu", "Ready", "True").await;
    // It stays in dr for as long as prod-eu is watched, and goes only with prod-eu's copies ready.
    throughout("stabilising", Duration::from_secs(2), dr_has).await;
    eventually("home again", async || match (ready_in(&eu).await, ready_in(&us).await, ready_in(&dr).await) {
        (Some(2), Some(1), None) => Ok(()),
        (Some(2), _, _) | (_, _, Some(2)) => Err("on its way"),
        gap => panic!("neither prod-eu nor dr holds it: {gap:?}"),
    })
    .await;
    status(&world, "ready again", |s| s.summary == "prod-eu 2/2, prod-us 1/1" && holds(s, "Ready", "True")).await;
    world.end([a, b, c]).await;
}

#[tokio::test]
async fn the_last_ready_copy_stays_until_the_new_one_is_ready() {
    let world = World::start().await;
    let (eu, a) = world.joined("prod-eu", |spec| spec.images.push(("shop/web".into(), "2".into()))).await;
    let (dr, b) = world.joined("dr", |_| ()).await;
    world.apply(web(1, "shop/web:2", json!({"clusters": {"names": ["prod-eu"]}}))).await;
    runs("in prod-eu", &[(&eu, 1), (&dr, 0)]).await;
    // It is to move to dr, whose registry lacks the image.
    world.apply(web(1, "shop/web:2", json!({"clusters": {"names": ["dr"]}}))).await;
    let moving = |s: &BundleStatus| s.clusters.iter().any(|c| c.name == "prod-eu" && c.state == "Leaving");
    status(&world, "leaving", moving).await;
    eventually("dr tries", async || ready_in(&dr).await.ok_or("nothing there")).await;
    let stays = async || match (ready_in(&eu).await, ready_in(&dr).await) {
        (Some(1), Some(0)) => Ok(()),
        other => Err(other),
    };
    throughout("prod-eu keeps it", Duration::from_secs(3), stays).await;
    images::seed(dr.images(), "shop/web", "2");
    eventually("moved", async || match (ready_in(&eu).await, ready_in(&dr).await) {
        (None, Some(1)) => Ok(()),
        (Some(1), _) | (_, Some(1)) => Err("on its way"),
        gap => panic!("no ready copy: {gap:?}"),
    })
    .await;
    world.end([a, b]).await;
}

#[tokio::test]
async fn a_bad_bundle_is_refused_alone_and_what_runs_stays() {
    let world = World::start().await;
    let (dev, agent) = world.joined("dev", |_| ()).await;
    let everywhere = json!({"clusters": {"names": ["dev"]}});
    world.apply(web(1, "shop/web:1", everywhere.clone())).await;
    runs("well", &[(&dev, 1)]).await;
    let mut bad = web(1, "shop/web:1", everywhere.clone());
    bad["spec"]["overrides"] =
        json!([{"clusters": {}, "target": {"kind": "Job"}, "patch": [{"op": "remove", "path": "/x"}]}]);
    world.apply(bad).await;
    let refused = status(&world, "refused", |s| holds(s, "Accepted", "False")).await;
    let accepted = refused.conditions.iter().find(|c| c.type_ == "Accepted").unwrap();
    assert_eq!(accepted.message, "override 0: matches no manifest");
    // Others go on.
    let mut other = web(1, "shop/web:1", everywhere);
    other["metadata"]["name"] = "other".into();
    other["spec"]["exports"] = json!([]);
    let settings =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}});
    other["spec"]["manifests"] = json!([settings]);
    world.apply(other).await;
    let maps: Api<ConfigMap> = Api::namespaced(dev.client(), "shop");
    eventually("the other one is there", async || maps.get_opt("settings").await.unwrap().map(drop).ok_or("not yet"))
        .await;
    assert_eq!(ready_in(&dev).await, Some(1));
    world.end([agent]).await;
}

#[tokio::test]
async fn a_cluster_whose_assignment_cannot_be_written_does_not_hold_up_the_others() {
    let world = World::start().await;
    let (dev, a) = world.joined("dev", |_| ()).await;
    let (test, b) = world.joined("test", |_| ()).await;
    // The namespace of dev's Assignments is on its way out, and something keeps it there.
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "namespace": "atoll-cluster-dev", "finalizers": ["atoll.dev/test"]}});
    world.apply(held).await;
    let namespaces: Api<Namespace> = Api::all(world.client());
    namespaces.delete("atoll-cluster-dev", &DeleteParams::default()).await.unwrap();
    world.apply(web(1, "shop/web:1", json!({}))).await;
    runs("in test alone", &[(&test, 1), (&dev, 0)]).await;
    throughout("dev is told nothing", Duration::from_secs(2), async || match ready_in(&dev).await {
        None => Ok(()),
        there => Err(there),
    })
    .await;
    let maps: Api<ConfigMap> = Api::namespaced(world.client(), "atoll-cluster-dev");
    let release = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &Default::default(), &kube::api::Patch::Merge(&release)).await.unwrap();
    runs("and in dev when that is over", &[(&test, 1), (&dev, 1)]).await;
    world.end([a, b]).await;
}

//! RoutePolicies: what they attach to, which goes before, what is said of them, and that what is refused fails closed.

use serde_json::{Value, json};

use crate::backend::Pod;
use crate::client::get;
use crate::world::{Made, World, import, policy, route, topology};

fn mark(text: &str) -> Value {
    json!([{"filter": "headers", "response": {"set": [{"name": "x-mark", "value": text}]}}])
}

async fn world(ip: &str) -> (World, Pod) {
    let world = World::start().await;
    let web = Pod::start("web", ip).await;
    world.publish(topology(&[("eu", &[&web])]), true);
    let rules = json!([
        {"name": "first", "matches": [{"path": {"value": "/first"}}], "backendRefs": [import("web")]},
        {"matches": [{"path": {"value": "/"}}], "backendRefs": [import("web")]},
    ]);
    world.apply(route("web", &["shop.test"], rules)).await;
    world.until("shop.test", "/", |a| a.status == 200).await;
    (world, web)
}

#[tokio::test]
async fn the_most_specific_policy_gives_a_filter_and_explain_names_it() {
    let (world, _web) = world("127.13.0.1").await;
    let mut gateway = policy("everybody", ("Gateway", "main"), mark("gateway"));
    gateway["metadata"]["namespace"] = json!("infra");
    world.apply(gateway).await;
    world.until("shop.test", "/", |a| a.header("x-mark") == "gateway").await;
    world.apply(policy("web", ("HTTPRoute", "web"), mark("route"))).await;
    world.until("shop.test", "/", |a| a.header("x-mark") == "route").await;
    let mut rule = policy("rule", ("HTTPRoute", "web"), mark("rule"));
    rule["spec"]["targetRefs"][0]["sectionName"] = json!("first");
    world.apply(rule).await;
    world.until("shop.test", "/first", |a| a.header("x-mark") == "rule").await;
    assert_eq!(get(world.http, "shop.test", "/").await.header("x-mark"), "route", "another rule is another's");

    let said = world.server.explain("shop.test", "/first", None).await;
    assert_eq!(said["listeners"][0]["policies"], json!([{"filter": "headers", "policy": "shop/rule"}]));
    let accepted = |s: &Value| s["ancestors"][0]["conditions"][0]["status"] == "True";
    let status = world.until_status(policy("web", ("HTTPRoute", "web"), json!([])), accepted).await;
    let ancestor = &status["ancestors"][0];
    assert_eq!(ancestor["controllerName"], "atoll.dev/gateway");
    assert_eq!(
        (&ancestor["ancestorRef"]["kind"], &ancestor["ancestorRef"]["name"]),
        (&json!("Gateway"), &json!("main"))
    );

    world.delete(policy("web", ("HTTPRoute", "web"), json!([]))).await;
    world.until("shop.test", "/", |a| a.header("x-mark") == "gateway").await;
}

#[tokio::test]
async fn a_route_over_the_limit_of_its_namespace_keeps_out_whom_its_policy_keeps_out_and_both_say_so() {
    let mut made = Made::default();
    made.limits.namespace.routes = 1;
    let world = World::start_as(made).await;
    let web = Pod::start("web", "127.13.0.9").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    let to = |path: &str| json!([{"matches": [{"path": {"value": path}}], "backendRefs": [import("web")]}]);
    world.apply(route("web", &["shop.test"], to("/"))).await;
    world.until("shop.test", "/admin", |a| a.status == 200).await;
    let nobody = json!([{"filter": "deny", "cidrs": ["0.0.0.0/0", "::/0"]}]);
    world.apply(policy("nobody", ("HTTPRoute", "young"), nobody)).await;
    world.apply(route("young", &["shop.test"], to("/admin"))).await;
    let refused = world.until("shop.test", "/admin", |a| a.status != 200).await;
    assert_eq!((refused.status, refused.body.trim()), (503, "the route is over a limit of its namespace"));
    assert_eq!(get(world.http, "shop.test", "/").await.status, 200, "others are served");
    let said = world.server.explain("shop.test", "/admin", None).await;
    let why = said["listeners"][0]["error"].as_str().unwrap();
    assert!(why.starts_with("503: namespace `shop` may have 1 routes"), "{why}");
    let told = |s: &Value| s["ancestors"][0]["conditions"][0]["reason"] == "TargetNotServed";
    let status = world.until_status(policy("nobody", ("HTTPRoute", "young"), json!([])), told).await;
    let condition = &status["ancestors"][0]["conditions"][0];
    let why = condition["message"].as_str().unwrap();
    assert!(condition["status"] == "False" && why.contains("`young` is not served: namespace `shop`"), "{why}");
    // There is room.
    world.delete(route("web", &[], json!([]))).await;
    world.until("shop.test", "/admin", |a| a.status == 403).await;
    let accepted = |s: &Value| s["ancestors"][0]["conditions"][0]["message"] == "the policy is in force";
    world.until_status(policy("nobody", ("HTTPRoute", "young"), json!([])), accepted).await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_carried_out_closes_its_routes_and_says_why() {
    let (world, _web) = world("127.13.0.2").await;
    let basic = json!([{"filter": "basic", "secretRef": {"name": "gone"}}]);
    world.apply(policy("users", ("HTTPRoute", "web"), basic)).await;
    world.until("shop.test", "/", |a| a.status == 503).await;
    let of = |name: &str| policy(name, ("HTTPRoute", "web"), json!([]));
    let status = world.until_status(of("users"), |s| s["ancestors"][0]["conditions"][0]["status"] == "False").await;
    let condition = &status["ancestors"][0]["conditions"][0];
    assert_eq!(condition["reason"], "Invalid");
    assert!(condition["message"].as_str().unwrap().contains("Secret `gone` does not exist"), "{condition}");
    world.delete(of("users")).await;
    world.until("shop.test", "/", |a| a.status == 200).await;

    world.apply(policy("lost", ("HTTPRoute", "nowhere"), mark("x"))).await;
    let status = world.until_status(of("lost"), |s| s["ancestors"][0]["conditions"][0]["status"] == "False").await;
    assert_eq!(status["ancestors"][0]["conditions"][0]["reason"], "TargetNotFound");
    assert_eq!(get(world.http, "shop.test", "/").await.status, 200, "nobody else is touched");

    world.apply(policy("one", ("HTTPRoute", "web"), mark("one"))).await;
    world.until("shop.test", "/", |a| a.header("x-mark") == "one").await;
    // Of two of one second the name decides.
    world.apply(policy("two", ("HTTPRoute", "web"), mark("two"))).await;
    let status = world.until_status(of("two"), |s| s["ancestors"][0]["conditions"][0]["status"] == "False").await;
    let condition = &status["ancestors"][0]["conditions"][0];
    assert_eq!(condition["reason"], "Conflicted");
    assert!(condition["message"].as_str().unwrap().contains("shop/one"), "{condition}");
    assert_eq!(get(world.http, "shop.test", "/").await.header("x-mark"), "one");
}

#[tokio::test]
async fn the_api_server_refuses_a_wrong_filter_and_names_the_field() {
    use kube::api::{Api, DynamicObject, PostParams};
    let world = World::start().await;
    let resource = kube::core::ApiResource::erase::<atoll_api::kinds::RoutePolicy>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), "shop", &resource);
    for (filter, says) in [
        (json!({"filter": "unheard"}), "filter"),
        (json!({"filter": "rate"}), "requests: filter `rate` needs it"),
        (json!({"filter": "rate", "requests": 0}), "requests"),
        (json!({"filter": "rate", "requests": 5, "key": "header"}), "header: with key `header`"),
        (json!({"filter": "rate", "requests": 5, "key": "planet"}), "key"),
        (json!({"filter": "allow", "cidrs": []}), "cidrs"),
        (json!({"filter": "allow", "cidrs": ["10.0.0.0/8"], "requests": 5}), "requests: belongs to filter rate"),
        (json!({"filter": "jwt", "issuer": "x"}), "jwks or jwksUri: one of them"),
        (json!({"filter": "forwardAuth"}), "backendRef or url: one of them"),
        (json!({"filter": "sizes"}), "one at least"),
        (json!({"filter": "connections", "max": "many"}), "max"),
    ] {
        let object: DynamicObject =
            serde_json::from_value(policy("wrong", ("HTTPRoute", "web"), json!([filter]))).unwrap();
        let refused = api.create(&PostParams::default(), &object).await.expect_err(&filter.to_string()).to_string();
        assert!(refused.contains(says), "{filter}: {refused}");
    }
    let odd = policy("wrong", ("Service", "web"), mark("x"));
    let refused = api.create(&PostParams::default(), &serde_json::from_value(odd).unwrap()).await.unwrap_err();
    assert!(refused.to_string().contains("group and kind"), "{refused}");
}

//! Who may do what: users by certificate, roles and bindings, and what is said to those who may not.

mod support;

use anyhow::Result;
use serde_json::{Value, json};
use support::*;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn role(name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, role: &str, subject: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}, "subjects": [subject]})
}

fn group(name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name})
}

fn map(name: &str) -> Value {
    config_map(name, json!({"a": "b"}))
}

#[tokio::test]
async fn a_certificate_is_a_user_and_may_do_what_is_bound_to_it_and_nothing_else() -> Result<()> {
    let bed = Bed::up().await?;
    let admin = bed.server.client();
    let roles = format!("{RBAC}/namespaces/default/roles");
    let rules = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get"]},
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch", "get"]},
    ]);
    assert_eq!(post(&admin, &roles, &role("some", rules)).await?.0, 201);
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    assert_eq!(post(&admin, &bindings, &binding("some", "some", group("developers"))).await?.0, 201);
    let (dev, other) = (bed.over_https("dev", &["developers"]).await?, bed.over_https("other", &["guests"]).await?);
    let secret = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    for name in ["mine", "theirs"] {
        assert_eq!(post(&admin, "/api/v1/namespaces/default/secrets", &secret(name)).await?.0, 201);
    }
    for (who, client, method, path, code) in [
        ("dev", &dev, "GET", MAPS.to_owned(), 200),
        ("dev", &dev, "POST", MAPS.to_owned(), 201),
        ("dev", &dev, "DELETE", format!("{MAPS}/a"), 403),
        ("dev", &dev, "PUT", format!("{MAPS}/a"), 403),
        ("dev", &dev, "GET", "/api/v1/namespaces/kube-system/configmaps".into(), 403),
        ("dev", &dev, "GET", "/api/v1/configmaps".into(), 403),
        ("dev", &dev, "GET", "/api/v1/namespaces/default/secrets/mine".into(), 200),
        ("dev", &dev, "GET", "/api/v1/namespaces/default/secrets/theirs".into(), 403),
        ("dev", &dev, "GET", "/api/v1/namespaces/default/secrets".into(), 403),
        ("dev", &dev, "GET", "/apis/apps/v1/namespaces/default/deployments/none".into(), 403),
        ("dev", &dev, "GET", "/apis/apps/v1/namespaces/default/deployments/none/scale".into(), 404),
        ("dev", &dev, "GET", "/version".into(), 200),
        ("other", &other, "GET", MAPS.to_owned(), 403),
        ("other", &other, "GET", "/apis".into(), 200),
    ] {
        let (got, body) = ask(client, method, &path, "application/json", &map("a")).await?;
        assert_eq!(got, code, "{who} {method} {path}: {body}");
    }
    let (_, said) = delete(&dev, &format!("{MAPS}/a"), &Value::Null).await?;
    let message = "configmaps \"a\" is forbidden: User \"dev\" cannot delete resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    assert_eq!((said["reason"].as_str(), said["message"].as_str()), (Some("Forbidden"), Some(message)));
    // A binding that goes takes the right along at once.
    assert_eq!(delete(&admin, &format!("{bindings}/some"), &Value::Null).await?.0, 200);
    assert_eq!(get(&dev, MAPS).await?.0, 403);
    bed.down().await
}

#[tokio::test]
async fn a_review_is_one_object_at_its_own_path_and_a_right_of_its_namespace() -> Result<()> {
    let bed = Bed::up().await?;
    let admin = bed.server.client();
    let access = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    for (path, body, code) in [
        (access, json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/healthz"}}}), 201),
        (access, json!({}), 201),
        (access, json!({"spec": [1]}), 201),
        (access, json!([1]), 400),
        (access, json!("x"), 400),
        (whoami, json!({}), 201),
        (whoami, json!(7), 400),
        ("/apis/authorization.k8s.io/v1/selfsubjectreviews", json!({}), 404),
        ("/apis/authorization.k8s.io/v1/x/subjectaccessreviews", json!({}), 404),
        ("/apis/example.dev/v1/tokenreviews", json!({}), 404),
    ] {
        let (got, said) = post(&admin, path, &body).await?;
        assert_eq!(got, code, "{path} {body}: {said}");
        assert!(code != 400 || said["message"] == "the body of a review must be one object", "{said}");
    }
    let rules = json!([{"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]}]);
    post(&admin, &format!("{RBAC}/namespaces/default/roles"), &role("asks", rules)).await?;
    post(&admin, &format!("{RBAC}/namespaces/default/rolebindings"), &binding("asks", "asks", group("askers"))).await?;
    let asker = bed.over_https("asker", &["askers"]).await?;
    for (namespace, code) in [("default", 201), ("kube-system", 403)] {
        let path = format!("/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews");
        let (got, said) = post(&asker, &path, &json!({"spec": {"user": "asker"}})).await?;
        assert_eq!(got, code, "{namespace}: {said}");
    }
    bed.down().await
}

#[tokio::test]
async fn nobody_gives_out_more_than_they_have() -> Result<()> {
    let bed = Bed::up().await?;
    let admin = bed.server.client();
    let (roles, bindings) =
        (format!("{RBAC}/namespaces/default/roles"), format!("{RBAC}/namespaces/default/rolebindings"));
    let rules = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
    ]);
    post(&admin, &roles, &role("lead", rules)).await?;
    post(&admin, &bindings, &binding("lead", "lead", group("leads"))).await?;
    let lead = bed.server.client_as("lead", &["leads"]);
    let rule = |resource: &str| json!([{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]);
    assert_eq!(post(&lead, &roles, &role("less", rule("configmaps"))).await?.0, 201);
    let (code, said) = post(&lead, &roles, &role("more", rule("secrets"))).await?;
    assert_eq!(code, 403, "{said}");
    assert!(said["message"].as_str().unwrap_or_default().contains("secrets"), "{said}");
    post(&admin, &roles, &role("more", rule("secrets"))).await?;
    assert_eq!(post(&lead, &bindings, &binding("more", "more", group("leads"))).await?.0, 403);
    assert_eq!(post(&lead, &bindings, &binding("less", "less", group("guests"))).await?.0, 201);
    bed.down().await
}

#[tokio::test]
async fn whoever_is_nobody_is_told_so_and_anybody_may_ask_what_they_may() -> Result<()> {
    let bed = Bed::up().await?;
    // Another authority's certificate, and none at all.
    let stranger = atoll_apiserver::Authority::new("elsewhere")?.user("admin", &["system:masters"])?;
    let text = atoll_apiserver::kubeconfig(
        &bed.url,
        bed.authority.ca_pem(),
        &stranger.cert_pem,
        &stranger.key_pem,
        "admin",
        "x",
    );
    let config = kube::config::Kubeconfig::from_yaml(&text)?;
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await?;
    assert!(
        kube::Client::try_from(config)?.apiserver_version().await.is_err(),
        "a certificate of somebody else's opens nothing"
    );
    let mut config = kube::Config::new(bed.url.parse()?);
    config.accept_invalid_certs = true;
    config.auth_info.token = Some("wrong".to_owned().into());
    let (code, said) = get(&kube::Client::try_from(config)?, MAPS).await?;
    assert_eq!((code, said["reason"].as_str()), (401, Some("Unauthorized")), "{said}");
    // What one may do.
    let dev = bed.over_https("dev", &["developers"]).await?;
    let review = |verb: &str| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": "default", "verb": verb, "resource": "configmaps"}}})
    };
    let (code, said) = post(&dev, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review("list")).await?;
    assert_eq!((code, said["status"]["allowed"].as_bool()), (201, Some(false)), "{said}");
    bed.down().await
}

#[tokio::test]
async fn tables_and_documents_are_what_kubectl_asks_for() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    post(
        &client,
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        &things(json!({"type": "object", "properties": {"size": {"type": "integer"}}})),
    )
    .await?;
    let thing =
        json!({"apiVersion": "example.dev/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"size": 7}});
    assert_eq!(post(&client, "/apis/example.dev/v1/namespaces/default/things", &thing).await?.0, 201);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let request = http::Request::get("/apis/example.dev/v1/namespaces/default/things").header("accept", accept);
    let table: Value = client.request(request.body(Vec::new())?).await?;
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!((table["kind"].as_str(), names), (Some("Table"), vec!["Name", "Size"]));
    assert_eq!(table["rows"][0]["cells"], json!(["a", 7]));
    let (code, paths) = get(&client, "/openapi/v3").await?;
    assert_eq!(code, 200);
    assert!(paths["paths"]["apis/example.dev/v1"]["serverRelativeURL"].is_string(), "{paths}");
    assert_eq!(get(&client, "/openapi/v2").await?.1["swagger"], "2.0");
    let request = http::Request::get("/openapi/v2")
        .header("accept", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    let text = client.request_text(request.body(Vec::new())?).await?;
    assert!(text.contains("2.0") && text.contains("Atoll"), "{text:?}");
    bed.down().await
}

#[tokio::test]
async fn a_comma_in_the_name_of_a_group_makes_no_second_group() -> Result<()> {
    let bed = Bed::up().await?;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    post(&bed.server.client(), definitions, &things(json!({"type": "object"}))).await?;
    let thing = json!({"apiVersion": "example.dev/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": {}});
    let eve = bed.server.client_as("eve", &["system:masters", "visitors,approvers"]);
    let (code, made) = post(&eve, "/apis/example.dev/v1/namespaces/default/things", &thing).await?;
    assert_eq!(code, 201, "{made}");
    let stamped = made["metadata"]["annotations"]["example.dev/requester-groups"].as_str().unwrap_or_default();
    let groups: Vec<&str> = stamped.split(',').collect();
    assert!(groups.contains(&"visitors%2Capprovers") && !groups.contains(&"approvers"), "{stamped}");
    bed.down().await
}

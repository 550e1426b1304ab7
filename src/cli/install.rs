//! The agent as a pod of its member: what is applied, and how it is watched until it has joined.
//!
//! Everything is applied by server-side apply, so that the same command again changes nothing, or brings a newer image. What the
//! agent may do is read out of the chart (`helm/atoll/values.yaml`, `agent.rules`): both ways grant the same.

mod watch;

use std::time::Duration;

use atoll_api::kinds::{FIELD_MANAGER, SYSTEM_NAMESPACE};
use atoll_api::token::JoinToken;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::connect::Connection;
use super::failure::{Failure, Outcome};
use super::output::{Output, note};

const NAME: &str = "atoll-agent";
/// The agent's own Secret holds its credentials once it has joined.
const CREDENTIALS: &str = "atoll-agent";
const TOKEN: &str = "atoll-token";
const CHART_VALUES: &str = include_str!("../../helm/atoll/values.yaml");
/// Says which configuration and token a pod was made for.
const MADE_FOR: &str = "atoll.dev/config";

/// What is to be installed.
pub(crate) struct Agent {
    /// host:port of the hub.
    pub(crate) hub: String,
    /// Needed the first time.
    pub(crate) token: Option<JoinToken>,
    /// The member's name.
    pub(crate) name: String,
    /// The image that is run.
    pub(crate) image: String,
    /// How long it may take to join.
    pub(crate) timeout: Duration,
}

/// As whom the cluster is joined already, if it is.
pub(crate) async fn joined_as(client: &Client) -> Outcome<Option<String>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let found = secrets.get_opt(CREDENTIALS).await.map_err(Failure::api("read Secret atoll-system/atoll-agent"))?;
    let data = found.and_then(|secret| secret.data).unwrap_or_default();
    let name = data.get("cluster").and_then(|name| String::from_utf8(name.0.clone()).ok());
    Ok(name.filter(|_| data.contains_key("tls.key")))
}

/// What the agent may do in its member: the chart's words.
fn rules() -> Outcome<Value> {
    let values: Value =
        serde_saphyr::from_str(CHART_VALUES).map_err(|e| Failure::failed(format!("the chart's values: {e}")))?;
    Ok(values["agent"]["rules"].clone())
}

impl Agent {
    /// Applies it and waits until it has joined.
    pub(crate) async fn install(self, member: &Connection, output: Output) -> Outcome {
        note(format!("cluster `{}` at {}: installing the agent, image {}", self.name, member.url, self.image));
        for object in self.objects()? {
            apply(&member.client, object).await?;
        }
        let document = json!({"cluster": self.name, "joined": true, "image": self.image});
        self.watch(&member.client).await?;
        output.show(&document, || format!("{} has joined; at the hub: kubectl get cluster {}", self.name, self.name))
    }

    fn objects(&self) -> Outcome<Vec<Value>> {
        let labels = json!({
            "app.kubernetes.io/name": "atoll", "app.kubernetes.io/component": "agent", "app.kubernetes.io/part-of": "atoll",
        });
        let meta = |name: &str| json!({"name": name, "namespace": SYSTEM_NAMESPACE, "labels": labels});
        let cluster_meta = json!({"name": NAME, "labels": labels});
        let rbac = "rbac.authorization.k8s.io";
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(NAME)}),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": cluster_meta, "rules": rules()?}),
            json!({
                "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": cluster_meta,
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME},
                "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": SYSTEM_NAMESPACE}],
            }),
            // JSON is YAML.
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(NAME), "data": {"config.yaml": self.config().to_string()}}),
        ];
        if let Some(token) = &self.token {
            objects.push(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": meta(TOKEN), "stringData": {"token": token.to_string()},
            }));
        }
        objects.push(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(NAME),
            "spec": {
                "replicas": 1, "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": {"app.kubernetes.io/name": "atoll", "app.kubernetes.io/component": "agent"}},
                "template": {
                    "metadata": {"labels": labels, "annotations": {MADE_FOR: self.fingerprint()}},
                    "spec": self.pod(),
                },
            },
        }));
        Ok(objects)
    }

    fn pod(&self) -> Value {
        json!({
            "serviceAccountName": NAME,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "agent", "image": self.image, "imagePullPolicy": "IfNotPresent",
                "args": ["agent", "--config", "/etc/atoll/config.yaml"],
                "ports": [{"name": "admin", "containerPort": 7071}],
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": "admin"}, "periodSeconds": 2},
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "config", "mountPath": "/etc/atoll", "readOnly": true},
                    {"name": "data", "mountPath": "/var/lib/atoll"},
                    {"name": "token", "mountPath": "/etc/atoll-token", "readOnly": true},
                ],
            }],
            "volumes": [
                {"name": "config", "configMap": {"name": NAME}},
                {"name": "data", "emptyDir": {"sizeLimit": "256Mi"}},
                {"name": "token", "secret": {"secretName": TOKEN, "optional": true}},
            ],
        })
    }

    fn config(&self) -> Value {
        let mut agent = json!({"cluster": self.name});
        if self.token.is_some() {
            agent["tokenFile"] = json!("/etc/atoll-token/token");
        }
        json!({"hub": self.hub, "dataDir": "/var/lib/atoll", "listen": {"admin": "0.0.0.0:7071"}, "agent": agent})
    }

    /// Another configuration or token is another pod: one that failed with the old ones is not waited for.
    fn fingerprint(&self) -> String {
        use sha2::Digest as _;
        let token = self.token.as_ref().map(ToString::to_string).unwrap_or_default();
        let digest = sha2::Sha256::digest(format!("{}{token}", self.config()));
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

async fn apply(client: &Client, object: Value) -> Outcome {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("/kind").to_owned(), text("/metadata/name").to_owned());
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match object.pointer("/metadata/namespace").and_then(Value::as_str) {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let what = format!("apply {kind} {name}");
    let done = api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object)).await;
    done.map(drop).map_err(Failure::api(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(token: Option<JoinToken>) -> Agent {
        let (hub, image) = ("hub:7443".into(), "atoll:1".into());
        Agent { hub, token, name: "prod-eu".into(), image, timeout: Duration::from_secs(1) }
    }

    #[test]
    fn what_is_granted_is_what_the_chart_grants() {
        let objects = agent(None).objects().unwrap();
        let role = objects.iter().find(|o| o["kind"] == "ClusterRole").unwrap();
        let rules = role["rules"].as_array().unwrap();
        assert!(rules.len() > 5 && rules.iter().all(|rule| rule["verbs"].is_array()), "{rules:?}");
    }

    #[test]
    fn the_token_is_in_its_secret_alone_and_a_new_one_makes_a_new_pod() {
        let token =
            |word: &str| JoinToken { cluster: "prod-eu".parse().unwrap(), ca_pin: [1; 32], secret: word.repeat(24) };
        let objects = |t: Option<JoinToken>| agent(t).objects().unwrap();
        let secret = token("s").secret;
        for object in objects(Some(token("s"))) {
            assert_eq!(object.to_string().contains(&secret), object["kind"] == "Secret", "{}", object["kind"]);
        }
        let annotation = |t: Option<JoinToken>| {
            let all = objects(t);
            let deployment = all.into_iter().find(|o| o["kind"] == "Deployment").unwrap();
            deployment["spec"]["template"]["metadata"]["annotations"].to_string()
        };
        assert_ne!(annotation(Some(token("s"))), annotation(Some(token("t"))));
        assert_eq!(objects(None).iter().filter(|o| o["kind"] == "Secret").count(), 0);
    }
}

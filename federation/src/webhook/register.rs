//! What the hub registers at a real API server so that requests and votes are stamped, and checked by the API server itself.

use atoll_api::kinds::{FIELD_MANAGER, GROUP, JOIN_GROUPS_CEL};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::api::{Patch, PatchParams};
use kube::core::ClusterResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::PATH;
use super::review::STAMPED;
use crate::config::WebhookTarget;
use crate::error::Error;

const NAME: &str = "atoll-stamps";

/// Makes everything as it is to be. What is right already is not changed.
pub(super) async fn apply(client: &Client, target: &WebhookTarget, ca_pem: &str) -> Result<(), Error> {
    // The guard first: until the webhook is there nothing passes it.
    put::<ValidatingAdmissionPolicy>(client, &policy()).await?;
    put::<ValidatingAdmissionPolicyBinding>(client, &binding()).await?;
    put::<MutatingWebhookConfiguration>(client, &webhook(target, ca_pem)).await
}

async fn put<K>(client: &Client, object: &Value) -> Result<(), Error>
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let what = format!("register {} {NAME}", K::kind(&()));
    api.patch(NAME, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object))
        .await
        .map_err(Error::api(what))?;
    Ok(())
}

fn rules() -> Value {
    let resources: Vec<&str> = STAMPED.iter().map(|(plural, _)| *plural).collect();
    json!([{"apiGroups": [GROUP], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": resources, "scope": "*"}])
}

fn webhook(target: &WebhookTarget, ca_pem: &str) -> Value {
    use base64::Engine as _;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    let found = match target {
        WebhookTarget::Url(base) => json!({"caBundle": ca, "url": format!("{}{PATH}", base.trim_end_matches('/'))}),
        WebhookTarget::Service(namespace, name, port) => {
            json!({"caBundle": ca, "service": {"namespace": namespace, "name": name, "port": port, "path": PATH}})
        }
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": NAME},
        "webhooks": [{
            "name": "stamps.atoll.dev", "clientConfig": found, "rules": rules(),
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail", "matchPolicy": "Equivalent",
            "timeoutSeconds": 5, "reinvocationPolicy": "IfNeeded",
        }],
    })
}

/// Who created it stands in the annotations, and nobody changes them.
fn policy() -> Value {
    let validations = STAMPED.iter().flat_map(|(plural, annotation)| {
        let groups = format!("{annotation}-groups");
        let check = |annotation: &str, user: &str| {
            let of = |object: &str| format!("{object}.metadata.?annotations[?'{annotation}'].orValue('')");
            let created = format!("request.operation == 'CREATE' ? {} == {user} : {} == {}", of("object"), of("object"), of("oldObject"));
            json!({
                "expression": format!("request.resource.resource != '{plural}' || ({created})"),
                "message": format!("annotation {annotation} must name the authenticated user, as the webhook of Atoll's hub stamps it"),
                "reason": "Forbidden",
            })
        };
        [check(annotation, "request.userInfo.username"), check(&groups, JOIN_GROUPS_CEL)]
    });
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": NAME},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": rules()},
            "validations": validations.collect::<Vec<_>>(),
        },
    })
}

fn binding() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": NAME},
        "spec": {"policyName": NAME, "validationActions": ["Deny"]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_registered_is_what_the_kinds_hold() {
        let targets = [
            WebhookTarget::Url("https://10.0.0.1:9443/".into()),
            WebhookTarget::Service("atoll-system".into(), "atoll-hub".into(), 9443),
        ];
        for target in targets {
            let object = webhook(&target, "PEM");
            let typed: MutatingWebhookConfiguration = serde_json::from_value(object.clone()).unwrap();
            assert_eq!(serde_json::to_value(typed).unwrap(), object);
        }
        assert_eq!(
            webhook(&WebhookTarget::Url("https://h/".into()), "")["webhooks"][0]["clientConfig"]["url"],
            "https://h/stamp"
        );
        let typed: ValidatingAdmissionPolicy = serde_json::from_value(policy()).unwrap();
        assert_eq!(serde_json::to_value(typed).unwrap(), policy());
        let typed: ValidatingAdmissionPolicyBinding = serde_json::from_value(binding()).unwrap();
        assert_eq!(serde_json::to_value(typed).unwrap(), binding());
        let validations = policy()["spec"]["validations"].clone();
        assert_eq!(validations.as_array().unwrap().len(), 4);
        for stamps_groups in [1, 3] {
            let expression = validations[stamps_groups]["expression"].as_str().unwrap();
            assert!(
                expression.contains(".replace(',', '%2C')"),
                "commas are escaped as the webhook does: {expression}"
            );
        }
    }
}

//! Our account at the CA: a Secret in the system namespace, one for each CA, which every fleet and every leader uses.
//!
//! It is made where there is none; one that the CA does not know any more is made anew. Source: RFC 8555 §7.3.

use atoll_api::kinds::{FIELD_MANAGER, SYSTEM_NAMESPACE};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::DIRECTORY;
use super::client::Way;
use super::failure::Failure;
use super::leader::Acme;
use super::object::labels;
use super::settings::BindingKey;
use crate::ingress::mark;

/// What the label says of one, and its type.
const ACCOUNT: &str = "account";
const TYPE: &str = "atoll.dev/acme-account";
const CREDENTIALS: &str = "account.json";
const CONTACT: &str = "atoll.dev/acme-contact";
/// Under which a Secret has the key of a binding.
const BINDING_KEY: &str = "key";

/// Opens our account, and makes it where there is none.
pub(super) async fn open(acme: &Acme, way: &Way) -> Result<Account, Failure> {
    let (api, name) = (secrets(acme), name(acme));
    let read = api.get_opt(&name).await.map_err(|error| unread(&name, &error))?;
    let Some(secret) = read else { return make(acme, way, &api, &name).await };
    let credentials = secret.data.as_ref().and_then(|data| data.get(CREDENTIALS));
    let credentials = credentials.and_then(|json| serde_json::from_slice::<AccountCredentials>(&json.0).ok());
    let credentials = credentials.ok_or_else(|| {
        Failure::Authority(format!("Secret `{SYSTEM_NAMESPACE}/{name}` holds no account: delete it to have one made"))
    })?;
    let account = Account::builder_with_http(Box::new(way.clone())).from_credentials(credentials).await?;
    let contact = acme.settings.contact.join(",");
    if secret.annotations().get(CONTACT).is_none_or(|said| *said != contact) {
        let addresses: Vec<&str> = acme.settings.contact.iter().map(String::as_str).collect();
        account.update_contacts(&addresses).await?;
        let patch = Patch::Merge(json!({"metadata": {"annotations": {CONTACT: contact}}}));
        let told = api.patch(&name, &PatchParams::apply(FIELD_MANAGER), &patch).await;
        told.map_err(|error| Failure::hub("the account", &error))?;
    }
    Ok(account)
}

/// Forgets an account that the CA does not know any more.
pub(super) async fn forget(acme: &Acme) {
    if let Err(error) = secrets(acme).delete(&name(acme), &DeleteParams::default()).await {
        tracing::debug!(%error, "an account that the CA does not know stays for now");
    }
}

async fn make(acme: &Acme, way: &Way, api: &Api<Secret>, name: &str) -> Result<Account, Failure> {
    let settings = &acme.settings;
    let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let binding = binding(acme).await?;
    let builder = Account::builder_with_http(Box::new(way.clone()));
    let made = builder.create(&new, settings.directory.clone(), binding.as_ref()).await;
    // Without an account nothing is ordered, whoever it is for.
    let (account, credentials) = made.map_err(|error| match Failure::from(error) {
        Failure::Refused(why) => Failure::Authority(format!("no account is given: {why}")),
        other => other,
    })?;
    let json = serde_json::to_vec(&credentials).map_err(|error| Failure::Hub(error.to_string()))?;
    let annotations = [(DIRECTORY, settings.directory.clone()), (CONTACT, settings.contact.join(","))];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels(ACCOUNT, &[])),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        data: Some([(CREDENTIALS.to_owned(), ByteString(json))].into()),
        ..Secret::default()
    };
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&parameters, &secret).await {
        Ok(_) => {
            tracing::info!(directory = settings.directory, account = account.id(), "ACME account made");
            Ok(account)
        }
        // Another fleet was faster: its account is used next time.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            Err(Failure::Again("the account was made meanwhile".to_owned()))
        }
        Err(error) => Err(Failure::hub(&format!("Secret `{SYSTEM_NAMESPACE}/{name}`"), &error)),
    }
}

/// The account elsewhere that ours is bound to.
async fn binding(acme: &Acme) -> Result<Option<ExternalAccountKey>, Failure> {
    let Some(binding) = &acme.settings.binding else { return Ok(None) };
    let key = match &binding.key {
        BindingKey::Here(key) => key.clone(),
        BindingKey::Secret(namespace, name) => {
            let api: Api<Secret> = Api::namespaced(acme.client.clone(), namespace);
            let lacks = |why: &str| {
                Failure::Authority(format!("gateway.acme.externalAccount: Secret `{namespace}/{name}`: {why}"))
            };
            let secret = api.get_opt(name).await.map_err(|error| unread(name, &error))?;
            let data = secret.ok_or_else(|| lacks("does not exist"))?.data.unwrap_or_default();
            let text = data.get(BINDING_KEY).ok_or_else(|| lacks("has no `key`"))?;
            decode(&text.0).ok_or_else(|| lacks("`key` is no base64url"))?
        }
    };
    Ok(Some(ExternalAccountKey::new(binding.key_id.clone(), &key)))
}

/// A key as CAs hand it out.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |at| at + 1);
    BASE64_URL_SAFE_NO_PAD.decode(&text[..end]).ok().filter(|key| !key.is_empty())
}

fn secrets(acme: &Acme) -> Api<Secret> {
    Api::namespaced(acme.client.clone(), SYSTEM_NAMESPACE)
}

fn name(acme: &Acme) -> String {
    format!("acme-account-{}", mark(&acme.settings.directory))
}

fn unread(name: &str, error: &kube::Error) -> Failure {
    Failure::Hub(format!("Secret `{name}`: not read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_bindings_are_taken_as_cas_hand_them_out() {
        for (text, expected) in
            [("emtm-_Y=", Some(5)), ("emtm-_Y\n", Some(5)), ("", None), ("===", None), ("not base64!", None)]
        {
            assert_eq!(decode(text.as_bytes()).map(|key| key.len()), expected, "{text:?}");
        }
    }
}

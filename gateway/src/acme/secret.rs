//! A certificate as a Secret of type kubernetes.io/tls, which is written only where there is none, or where it was made here.

use std::collections::BTreeMap;

use atoll_api::kinds::FIELD_MANAGER;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};

use super::failure::Failure;
use super::object::labels;
use super::{DIRECTORY, LABEL};
use crate::objects::Name;

/// What the label says of one.
const CERTIFICATE: &str = "certificate";
const TYPE: &str = "kubernetes.io/tls";
/// Somebody else may write it meanwhile so often.
const TRIES: usize = 3;

/// What is said of one that is somebody else's.
pub(super) const FOREIGN: &str = "it was not made by ACME, so it is left as it is, and not renewed: delete it to have one ordered, or take the annotation away";

/// Whether it was made here.
pub(super) fn is_ours(secret: &Secret) -> bool {
    secret.labels().get(LABEL).is_some_and(|what| what == CERTIFICATE)
}

/// What is there now; nothing: nothing.
pub(super) async fn read(client: &Client, name: &Name) -> Result<Option<Secret>, Failure> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &name.0);
    let read = api.get_opt(&name.1).await;
    read.map_err(|error| Failure::Hub(format!("Secret `{}/{}`: not read: {error}", name.0, name.1)))
}

/// Writes a certificate.
pub(super) async fn write(
    client: &Client,
    name: &Name,
    directory: &str,
    chain: &str,
    key: &str,
) -> Result<Secret, Failure> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &name.0);
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let object = format!("Secret `{}/{}`", name.0, name.1);
    let pair = [("tls.crt", chain), ("tls.key", key)];
    let data: BTreeMap<_, _> =
        pair.into_iter().map(|(part, pem)| (part.to_owned(), ByteString(pem.as_bytes().to_vec()))).collect();
    let mut last = None;
    for _ in 0..TRIES {
        let written = match read(client, name).await? {
            Some(there) if !is_ours(&there) => return Err(Failure::Taken(FOREIGN.to_owned())),
            Some(mut there) => {
                there.data = Some(data.clone());
                there.annotations_mut().insert(DIRECTORY.to_owned(), directory.to_owned());
                there.metadata.managed_fields = None;
                api.replace(&name.1, &parameters, &there).await
            }
            None => api.create(&parameters, &fresh(name, directory, data.clone())).await,
        };
        match written {
            Ok(secret) => return Ok(secret),
            // Whoever was faster is looked at.
            Err(kube::Error::Api(status)) if status.code == 409 => last = Some(kube::Error::Api(status)),
            Err(error) => return Err(Failure::hub(&object, &error)),
        }
    }
    Err(last.map_or_else(|| Failure::Hub(format!("{object}: not written")), |error| Failure::hub(&object, &error)))
}

fn fresh(name: &Name, directory: &str, data: BTreeMap<String, ByteString>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            namespace: Some(name.0.clone()),
            name: Some(name.1.clone()),
            labels: Some(labels(CERTIFICATE, &[])),
            annotations: Some([(DIRECTORY.to_owned(), directory.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

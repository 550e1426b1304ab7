//! What the member lacks: brought once, before the first Bundle, and marked as brought.
//!
//! In: a client. Out: namespace `atoll-system` and the MCS definitions are there. What exists already is left as it is.

use atoll_api::kinds::{FIELD_MANAGER, SYSTEM_NAMESPACE, member_crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};

use crate::error::AgentError;
use crate::namespace::{self, BROUGHT};

/// Brings what is missing.
pub(crate) async fn prepare(client: &kube::Client) -> Result<(), AgentError> {
    namespace::bring(client, SYSTEM_NAMESPACE).await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for mut definition in member_crds() {
        let name = definition.name_any();
        let failed = || AgentError::member(format!("bringing definition {name}"));
        if definitions.get_metadata_opt(&name).await.map_err(failed())?.is_some() {
            continue;
        }
        definition.annotations_mut().insert(BROUGHT.to_owned(), "agent".to_owned());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match definitions.create(&params, &definition).await {
            Ok(_) => tracing::info!(name, "brought a definition"),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(failed()(error)),
        }
    }
    Ok(())
}

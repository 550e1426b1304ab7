//! The agent of a member that the hub dials (Push): the same agent, inside the hub, with credentials that the hub issued itself.

use tokio_util::sync::CancellationToken;

use crate::config::{Config, Resources};
use crate::credentials::Credentials;
use crate::error::AgentError;
use crate::run::run;

/// Runs the agent of one member with `issued` credentials until `shutdown`. The epoch that the member obeyed before stays.
///
/// # Errors
/// When the member's API does not answer or refuses (a kubeconfig that does not work), when the member is joined under another name,
/// and as [`run`].
pub async fn push(
    issued: Credentials,
    config: Config,
    resources: Resources,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let mut credentials = issued;
    if let Some(stored) = Credentials::load(&resources.client).await? {
        let same_hub = stored.hub_id == credentials.hub_id;
        if same_hub && stored.cluster != credentials.cluster {
            return Err(AgentError::OtherName {
                joined: stored.cluster.to_string(),
                token: credentials.cluster.to_string(),
            });
        }
        if same_hub {
            (credentials.epoch, credentials.sites) = (stored.epoch, stored.sites);
        }
    }
    credentials.save(&resources.client).await?;
    let config = Config { hub: String::new(), token: None, ..config };
    run(config, resources, shutdown).await
}

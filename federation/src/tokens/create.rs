//! Making a token, on the side of `atoll token create`.

use std::fmt;
use std::time::Duration;

use atoll_api::kinds::SYSTEM_NAMESPACE;
use atoll_api::token::JoinToken;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};

use super::{Stored, TOKEN_LABEL, TTL_MAX, TokenError, TokenRequest, hash, object_name};
use crate::epoch::HubFacts;

/// Tokens are forgotten so long after their end.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
const SWEPT_MAX: u32 = 100;

/// A token and where it is to be used.
#[derive(Debug, Clone)]
pub struct Created {
    /// The hub's advertised address.
    pub hub: String,
    /// The token, with its secret.
    pub token: JoinToken,
}

/// The one line that people paste: `atoll join HUB --token T`.
impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "atoll join {} --token {}", self.hub, self.token)
    }
}

/// Makes a token and stores what the hub needs to check it.
///
/// # Errors
/// When no hub has run on this API server, the life is out of bounds, or the API server refuses (RBAC included).
pub async fn create_token(client: &Client, request: &TokenRequest) -> Result<Created, TokenError> {
    if request.ttl < Duration::from_secs(1) || request.ttl > TTL_MAX {
        return Err(TokenError::Ttl(request.cluster.clone()));
    }
    let hub = HubFacts::read(client).await.map_err(|e| TokenError::NoHub(e.to_string()))?;
    let now = Timestamp::now();
    let word = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>());
    let stored = Stored {
        hash: hash(&word),
        cluster: request.cluster.to_string(),
        expires: now + SignedDuration::try_from(request.ttl).unwrap_or(KEPT),
        used: None,
        spec: request.spec(),
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let mut secret = Secret { data: Some(stored.data()), type_: Some("atoll.dev/token".into()), ..Secret::default() };
    secret.metadata.name = Some(object_name(&stored.hash));
    secret.metadata.labels = Some([(TOKEN_LABEL.to_owned(), stored.cluster.clone())].into());
    let refused = |e| TokenError::Api(request.cluster.clone(), Box::new(e));
    secrets.create(&PostParams::default(), &secret).await.map_err(refused)?;
    sweep(&secrets, now).await;
    let token = JoinToken { cluster: request.cluster.clone(), ca_pin: hub.pin, secret: word };
    Ok(Created { hub: hub.advertise, token })
}

/// Removes tokens that ended long ago. Best effort: what stays does no harm.
async fn sweep(secrets: &Api<Secret>, now: Timestamp) {
    let Ok(list) = secrets.list(&ListParams::default().labels(TOKEN_LABEL).limit(SWEPT_MAX)).await else { return };
    for secret in list {
        let over = Stored::read(&secret).is_some_and(|stored| stored.expires + KEPT < now);
        if let (true, Some(name)) = (over, secret.metadata.name) {
            let _ = secrets.delete(&name, &DeleteParams::default()).await;
        }
    }
}

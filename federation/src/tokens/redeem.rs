//! Taking a token, on the hub's side: exactly one of two racers wins.

use atoll_api::kinds::{ClusterSpec, SYSTEM_NAMESPACE};
use atoll_api::token::JoinToken;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};

use super::{Stored, TokenError, hash, object_name};
use crate::error::is_conflict;

/// Checks `token` and marks it used. Returns what the Cluster is to look like.
pub(crate) async fn redeem(client: &Client, token: &JoinToken, now: Timestamp) -> Result<ClusterSpec, TokenError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let hash = hash(&token.secret);
    let name = object_name(&hash);
    let refused = |e| TokenError::Api(token.cluster.clone(), Box::new(e));
    let unknown = || TokenError::Unknown(token.cluster.clone());
    let mut secret = secrets.get_opt(&name).await.map_err(refused)?.ok_or_else(unknown)?;
    let mut stored = Stored::read(&secret).ok_or_else(unknown)?;
    check(&stored, &hash, token, now)?;
    stored.used = Some(now.to_string());
    secret.data = Some(stored.data());
    // The resource version that was read travels with the object: whoever writes second is told so.
    match secrets.replace(&name, &PostParams::default(), &secret).await {
        Ok(_) => Ok(stored.spec),
        Err(e) if is_conflict(&e) => Err(TokenError::Used(token.cluster.clone(), now.to_string())),
        Err(e) => Err(refused(e)),
    }
}

fn check(stored: &Stored, hash: &str, token: &JoinToken, now: Timestamp) -> Result<(), TokenError> {
    if stored.hash != hash {
        return Err(TokenError::Unknown(token.cluster.clone()));
    }
    if stored.cluster != token.cluster.as_str() {
        return Err(TokenError::OtherName { made: stored.cluster.clone(), asked: token.cluster.clone() });
    }
    if let Some(used) = &stored.used {
        return Err(TokenError::Used(token.cluster.clone(), used.clone()));
    }
    if stored.expires <= now {
        return Err(TokenError::Expired(token.cluster.clone(), stored.expires));
    }
    Ok(())
}

//! `extAuthz` of policies: an authorisation server of Envoy's protocol (`envoy.service.auth.v3.Authorization`), or of HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::{AuthProtocol, ExtAuthz};
use bytes::Bytes;
use http::Response;
use serde_json::{Map, Value};

use super::forward_auth::ANSWER_MAX;
use super::{Guard, Guarded, Making, parameters, time};
use crate::policy::Asked;
use crate::policy::asking::{Told, names};
use crate::policy::authorize::{Protocol, Question};
use crate::policy::peer::Peer;

#[derive(Debug)]
struct Server {
    peer: Arc<Peer>,
    question: Question,
}

#[async_trait]
impl Guard for Server {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        self.question.ask(&self.peer, asked).await
    }
}

pub(super) fn make(written: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let settings: ExtAuthz = parameters(written)?;
    let backend = settings.backend_ref.as_ref().ok_or("backendRef: it is absent")?;
    let grpc = settings.protocol.unwrap_or_default() == AuthProtocol::GRPC;
    let back = names("allowedResponseHeaders", &settings.allowed_response_headers)?;
    let prefix = settings.auth_path.clone().unwrap_or_default();
    if grpc && (!back.is_empty() || !prefix.is_empty()) {
        return Err("authPath and allowedResponseHeaders are for protocol HTTP".to_owned());
    }
    let max = settings.body_bytes_max.filter(|max| *max > 0).map(|max| usize::try_from(max).unwrap_or(usize::MAX));
    let question = Question {
        protocol: if grpc { Protocol::Grpc } else { Protocol::Http { prefix, back } },
        told: Told::new(&settings.allowed_headers, grpc)?,
        body_bytes_max: max,
        within: time("timeout", settings.timeout.as_ref(), ANSWER_MAX)?,
    };
    Ok(Arc::new(Server { peer: (making.peer)(backend, grpc)?, question }))
}

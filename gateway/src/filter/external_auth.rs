//! `ExternalAuth` of routes (Gateway API, experimental channel): an authorisation server of HTTP or gRPC. Its backend is resolved as those of
//! rules are, BackendTLSPolicy and grants included; where it leads nowhere nobody passes.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use atoll_api::kinds::gateway::HTTPRouteFilter;
use bytes::Bytes;
use http::{Response, StatusCode};

use super::forward_auth::ANSWER_MAX;
use super::{Filter, Guard, Made, Resolve, absent, refused, said};
use crate::plane::Snapshot;
use crate::policy::Asked;
use crate::policy::asking::{Told, names};
use crate::policy::authorize::{Protocol, Question};
use crate::policy::peer::{At, Peer};

#[derive(Debug)]
struct Server {
    /// Its upstream, where there is one.
    upstream: Option<usize>,
    question: Question,
    /// The server as it was reached last.
    peer: Mutex<Option<(Vec<At>, Arc<Peer>)>>,
}

impl Server {
    fn peer(&self, snapshot: &Snapshot) -> Option<Arc<Peer>> {
        let upstream = snapshot.table.upstreams.get(self.upstream?)?;
        let mut at = Vec::new();
        for part in &upstream.clusters {
            let cluster = part.name().map(|name| name.as_str());
            at.extend(part.endpoints.iter().map(|e| At::ip(cluster, e.address, e.port)));
        }
        let mut known = self.peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, peer)) = known.as_ref().filter(|(before, _)| *before == at) {
            return Some(Arc::clone(peer));
        }
        let h2 = upstream.h2 || matches!(self.question.protocol, Protocol::Grpc);
        let (name, host) = (upstream.id.to_string(), upstream.id.authority());
        let peer = Arc::new(Peer::backend(name, host, at.clone(), h2).secured(upstream.tls.as_ref()));
        *known = Some((at, Arc::clone(&peer)));
        Some(peer)
    }
}

impl Filter for Server {
    fn guard(&self) -> Option<&dyn Guard> {
        Some(self)
    }
}

#[async_trait]
impl Guard for Server {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        match self.peer(asked.snapshot) {
            Some(peer) => self.question.ask(&peer, asked).await,
            None => Some(said(StatusCode::INTERNAL_SERVER_ERROR, "the authorisation server of this route is missing")),
        }
    }
}

pub(super) fn make(written: &HTTPRouteFilter, _: bool, resolve: &mut dyn Resolve) -> Made {
    let settings = written.external_auth.as_ref().ok_or_else(|| absent("ExternalAuth"))?;
    let (allowed, protocol) = match (settings.protocol.as_str(), &settings.grpc, &settings.http) {
        ("GRPC", grpc, None) => (grpc.as_ref().map(|g| g.allowed_headers.clone()).unwrap_or_default(), Protocol::Grpc),
        ("HTTP", None, http) => {
            let http = http.clone().unwrap_or_default();
            let back = names("allowedResponseHeaders", &http.allowed_response_headers).map_err(refused)?;
            let prefix = http.path.map(|p| format!("/{}", p.trim_matches('/'))).unwrap_or_default();
            (http.allowed_headers, Protocol::Http { prefix: prefix.trim_end_matches('/').to_owned(), back })
        }
        (other, ..) => return Err(refused(format!("ExternalAuth: protocol `{other}` and its settings do not fit"))),
    };
    let all = matches!(protocol, Protocol::Grpc);
    let max = settings.forward_body.as_ref().map(|b| usize::from(b.max_size)).filter(|max| *max > 0);
    let question = Question {
        protocol,
        told: Told::new(&allowed, all).map_err(|why| refused(format!("ExternalAuth: {why}")))?,
        body_bytes_max: max,
        within: ANSWER_MAX,
    };
    let upstream = resolve.resolve(&settings.backend_ref);
    Ok(Some(Box::new(Server { upstream, question, peer: Mutex::default() })))
}

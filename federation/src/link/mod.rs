//! The hub's link port: one TLS port for enrolment, agents' links, data planes' feeds and agents' relay connections.
//!
//! ```text
//!   accept → TLS (client certificate optional) → ALPN h2           → tonic: Enrolment, Link, Feed, Zones
//!                                              → ALPN atoll-relay/1 → relay table (agents only)
//! ```
//! Identity is the certificate of the connection; each call asks [`who`] for it. Never trusts a field of a message.

mod agent;
mod feed;
mod names;
mod port;
mod session;

pub(crate) use agent::{EnrolmentService, LinkService};
use atoll_api::names::ClusterName;
use atoll_reach::{Peer, Role};
pub(crate) use feed::FeedService;
use names::Views;
pub(crate) use port::{Port, serve, server};
use tonic::{Request, Status};

/// What a connection shows of its peer; in the extensions of every request.
#[derive(Debug, Clone)]
pub(crate) struct PeerInfo(pub(crate) Option<Peer>);

/// Who is calling, by certificate.
pub(crate) fn who<T>(request: &Request<T>) -> Result<Peer, Status> {
    let info = request.extensions().get::<PeerInfo>();
    info.and_then(|p| p.0.clone()).ok_or_else(|| Status::unauthenticated("no client certificate was shown"))
}

/// The member that is calling.
pub(crate) fn member<T>(request: &Request<T>) -> Result<(ClusterName, Peer), Status> {
    let peer = who(request)?;
    let Role::Cluster(name) = &peer.role else {
        return Err(Status::permission_denied(format!("only a member's agent may call this, not {}", peer.role)));
    };
    let name = name.parse().map_err(|e| Status::permission_denied(format!("certificate: {e}")))?;
    Ok((name, peer))
}

/// Who follows the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Follower {
    /// A DNS server or gateway.
    Site(String),
    /// A node-local DNS of this member.
    Names(ClusterName),
}

/// The follower that is calling.
pub(crate) fn follower<T>(request: &Request<T>) -> Result<Follower, Status> {
    match who(request)?.role {
        Role::Names(name) => {
            let name = name.parse().map_err(|e| Status::permission_denied(format!("certificate: {e}")))?;
            Ok(Follower::Names(name))
        }
        _ => site(request).map(Follower::Site),
    }
}

/// The site that is calling.
pub(crate) fn site<T>(request: &Request<T>) -> Result<String, Status> {
    match who(request)?.role {
        Role::Site(name) => Ok(name),
        other => Err(Status::permission_denied(format!("only a DNS server or gateway may call this, not {other}"))),
    }
}

//! What can go wrong while a demo member starts.

/// Why a demo member did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that no cluster can have.
    #[error("demo member `{member}`: {why}")]
    Spec {
        /// The member.
        member: String,
        /// What is wrong with its specification.
        why: String,
    },
    /// No free port for one of its servers.
    #[error("demo member `{member}`: no free port for its {what} from {from} on: {source}")]
    Port {
        /// The member.
        member: String,
        /// Which server.
        what: &'static str,
        /// Where the search began.
        from: std::net::SocketAddr,
        /// What the last try said.
        source: std::io::Error,
    },
    /// Its API server did not open.
    #[error("demo member `{member}`: its API server")]
    Api {
        /// The member.
        member: String,
        /// Why.
        #[source]
        source: atoll_apiserver::Error,
    },
    /// An object that every member has could not be made.
    #[error("demo member `{member}`: making {object}")]
    Object {
        /// The member.
        member: String,
        /// Kind and name.
        object: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Its registry's address is none.
    #[error("demo member `{member}`: its registry")]
    Registry {
        /// The member.
        member: String,
        /// Why.
        #[source]
        source: atoll_registry::Error,
    },
}

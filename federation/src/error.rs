//! Why the hub ends or refuses.

/// What ends a hub, or keeps it from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or was not reached.
    #[error("{what}: {source}")]
    Api {
        /// What was attempted, with the object's name.
        what: String,
        /// The API server's word.
        #[source]
        source: Box<kube::Error>,
    },
    /// The hub's CA can't be used.
    #[error("secret atoll-system/atoll-hub-ca: {0}")]
    Ca(String),
    /// What the hub says of itself, or its epoch, can't be read.
    #[error("configmap atoll-system/atoll-hub: {0}")]
    Facts(String),
    /// The API server did not answer in time.
    #[error("{0}: the API server does not answer")]
    Silent(&'static str),
    /// A certificate could not be made.
    #[error("certificate for {0}: {1}")]
    Certificate(String, String),
    /// Another hub leads now; start again to stand in line.
    #[error("leadership lost to `{0}`")]
    LeadershipLost(String),
    /// The link port's listener failed.
    #[error("listener {0}: {1}")]
    Listener(String, #[source] std::io::Error),
    /// A controller panicked: a bug.
    #[error("a controller of the hub broke: {0}")]
    Broken(String),
    /// The webhook can't be served.
    #[error("webhook: {0}")]
    Webhook(&'static str),
    /// Metrics that are registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Error {
    pub(crate) fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source: Box::new(source) }
    }
}

/// Whether the API server says that the object is not there.
pub(crate) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API server says that somebody else was faster.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

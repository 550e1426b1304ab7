//! What ends the gateway. Everything else is said in a status, an answer or a log line, and it goes on.

/// Why the gateway could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A metric of ours was there already: two gateways on one registry, a mistake of the caller.
    #[error("gateway metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The TLS provider refuses our settings, a bug.
    #[error("gateway TLS: {0}")]
    Tls(#[from] rustls::Error),
}

//! What can go wrong when the DNS server starts. Once it runs, what goes wrong is an answer's code or a metric, never an error.

/// Why the DNS server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listening socket can't be used. The caller's configuration or machine is at fault.
    #[error("{transport} socket: can't be used")]
    Socket {
        /// The transport's row.
        transport: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Two servers share one registry. The caller is at fault.
    #[error("metrics: can't be registered")]
    Metrics(#[from] prometheus::Error),
}

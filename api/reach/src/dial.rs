//! The dialer: the one way into a member, directly or by way of its agent.
//!
//! In: cluster, host, port; the routes found; the relay table. Out: a stream. Never remembers what flowed through it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::probe::{Route, Routes};
use crate::relay::{RelayError, RelayTable};
use crate::stream::{BoxStream, Connect};

/// A direct connect that takes longer falls back to the relay, or fails.
const DIRECT_MAX: Duration = Duration::from_secs(3);
/// While nothing is known yet, the relay should get its turn soon.
const UNKNOWN_MAX: Duration = Duration::from_secs(1);

/// Why a member's address could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The direct connect failed, and the relay was no way out.
    #[error("cluster `{cluster}`: connect to {host} port {port} failed")]
    Direct {
        /// The member.
        cluster: String,
        /// What was dialed.
        host: String,
        /// What was dialed.
        port: u16,
        /// What the connect said.
        #[source]
        source: io::Error,
    },
    /// The relay failed.
    #[error(transparent)]
    Relay(#[from] RelayError),
}

impl DialError {
    /// As an I/O error, for those who know only streams.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Direct { source, .. } => source,
            Self::Relay(relay) => relay.into_io(),
        }
    }
}

/// Dials into members. Clones share everything.
#[derive(Clone)]
pub struct Dialer {
    connect: Arc<dyn Connect>,
    relays: RelayTable,
    routes: Routes,
}

impl Dialer {
    /// Puts a connector, the relay connections and the routes together.
    #[must_use]
    pub fn new(connect: Arc<dyn Connect>, relays: RelayTable, routes: Routes) -> Self {
        Self { connect, relays, routes }
    }

    /// How this cluster is dialed now: UDP, for example, goes where the route is direct only.
    #[must_use]
    pub fn route(&self, cluster: &str) -> Route {
        self.routes.of(cluster)
    }

    /// The relay connections behind it.
    #[must_use]
    pub fn relays(&self) -> &RelayTable {
        &self.relays
    }

    /// Opens a stream to `host:port` of a cluster. Takes at most 11 s. Cancel safe.
    ///
    /// A direct connect that gets no answer (time-out, no route) goes on through the relay if an agent is connected; a
    /// refused one does not: the member has answered.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn dial(&self, cluster: &str, host: &str, port: u16) -> Result<BoxStream, DialError> {
        let bound = match self.routes.of(cluster) {
            Route::Relay => return Ok(self.relays.open(cluster, host, port).await?),
            Route::Direct => DIRECT_MAX,
            Route::Unknown => UNKNOWN_MAX,
        };
        let error = match tokio::time::timeout(bound, self.connect.connect(host, port)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        let answered = matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset);
        if !answered && self.relays.is_live(cluster) {
            return Ok(self.relays.open(cluster, host, port).await?);
        }
        Err(DialError::Direct { cluster: cluster.to_owned(), host: host.to_owned(), port, source: error })
    }
}

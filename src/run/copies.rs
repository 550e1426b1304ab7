//! The copy engine as an agent gets it: registries are dialed from where the agent stands.

use std::sync::Arc;

use atoll_reach::Connect;
use atoll_registry::{Engine, Limits};
use tokio_util::sync::CancellationToken;

/// An engine that dials with `connect` and ends with `shutdown`.
pub(crate) fn engine(connect: &Arc<dyn Connect>, shutdown: &CancellationToken) -> Arc<Engine> {
    let connect = Arc::clone(connect);
    Arc::new(Engine::new(Arc::new(move |_| Arc::clone(&connect)), Limits::default(), shutdown.clone()))
}

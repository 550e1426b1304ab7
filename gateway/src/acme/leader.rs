//! Orders only while this replica leads: the holder of the fleet's Lease, as the writer of statuses has it.
//!
//! In: until when it leads. Out: a session, which is dropped as it stands once that is over.

use std::sync::Arc;

use atoll_wire::follow::Snapshot as Followed;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::client::Way;
use super::session::lead;
use super::settings::Settings;
use super::standing::Standing;
use super::wanted::Ordered;
use crate::fleet::Fleet;
use crate::plane::Plane;
use crate::tls;

/// What ordering needs.
pub(crate) struct Acme {
    pub(crate) settings: Settings,
    pub(crate) client: Client,
    pub(crate) plane: Arc<Plane>,
    pub(crate) fleet: Fleet,
    /// This replica's name.
    pub(crate) instance: String,
    pub(crate) topology: watch::Receiver<Followed>,
    pub(crate) wanted: watch::Receiver<Ordered>,
    /// Until when this replica leads.
    pub(crate) leading: watch::Receiver<Option<Instant>>,
    pub(crate) standing: watch::Sender<Standing>,
}

/// Orders whenever this replica leads, until `shutdown`.
pub(crate) async fn run(acme: Acme, shutdown: CancellationToken) {
    let tls = match &acme.settings.roots {
        Some(roots) => tls::outside(roots),
        None => Ok(Arc::clone(&acme.plane.outside)),
    };
    let Ok(tls) = tls else { return tracing::error!("no TLS towards the CA: no certificate is ordered") };
    let way = Way::new(Arc::clone(&acme.plane.pool.connect), tls, acme.plane.end.clone());
    let acme = Arc::new(acme);
    let leads = async {
        loop {
            let mut leading = acme.leading.clone();
            if leading.wait_for(|until| until.is_some_and(|until| until > Instant::now())).await.is_err() {
                return;
            }
            tokio::select! {
                () = lead(&acme, &way) => {}
                () = until_lost(&mut leading) => {}
            }
            acme.standing.send_replace(Standing::default());
            acme.plane.metrics.acme_failing.reset();
        }
    };
    shutdown.run_until_cancelled(leads).await;
}

/// Returns once this replica leads no more.
async fn until_lost(leading: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let until = *leading.borrow_and_update();
        let Some(until) = until.filter(|until| *until > Instant::now()) else { return };
        tokio::select! {
            changed = leading.changed() => if changed.is_err() { return },
            () = sleep_until(until) => {}
        }
    }
}

//! Keeps what files say current: parsed first, swapped whole; what is bad is said once and the one before stays.
//!
//! In: the octets of files whenever they change, read by `src/`. Out: a [`Geo`] in a watch.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Geo, Map, Mmdb};

/// A file as it is now; `None` before it was read first.
pub type Octets = watch::Receiver<Option<Bytes>>;

/// Where files come from; absent where none is configured.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// The map of address ranges, `dns.cidrMap`.
    pub map: Option<Octets>,
    /// The MaxMind database, `dns.mmdb`.
    pub mmdb: Option<Octets>,
}

/// Follows the files until `shutdown`, or until whoever reads them has gone.
pub(crate) async fn follow(files: Files, geo: watch::Sender<Geo>, shutdown: CancellationToken) {
    let Files { map, mmdb } = files;
    let maps = each(
        map,
        "dns.cidrMap",
        |octets| Map::parse(&octets).map(Arc::new),
        |new| {
            geo.send_modify(|geo| geo.map = new);
        },
    );
    let databases = each(
        mmdb,
        "dns.mmdb",
        |octets| Mmdb::read(octets).map(Arc::new),
        |new| {
            geo.send_modify(|geo| geo.mmdb = Some(new));
        },
    );
    shutdown.run_until_cancelled(async { tokio::join!(maps, databases) }).await;
}

/// Parses each version of one file on a thread of its own, so that no query waits for it.
async fn each<T: Send + 'static>(
    file: Option<Octets>,
    key: &'static str,
    parse: fn(Bytes) -> Result<T, String>,
    take: impl Fn(T),
) {
    let Some(mut file) = file else { return };
    loop {
        let octets = file.borrow_and_update().clone();
        if let Some(octets) = octets {
            let len = octets.len();
            match tokio::task::spawn_blocking(move || parse(octets)).await {
                Ok(Ok(new)) => {
                    tracing::info!(key, octets = len, "file read, it counts from now on");
                    take(new);
                }
                Ok(Err(why)) => tracing::warn!(key, why, "file is bad and does not count: what was there before stays"),
                Err(error) => tracing::warn!(key, %error, "file was not read"),
            }
        }
        if file.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mmdb::write;
    use super::*;

    #[tokio::test]
    async fn a_bad_file_leaves_the_one_before_in_place() {
        let (maps, map) = watch::channel(None);
        let (databases, mmdb) = watch::channel(None);
        let (geo, mut seen) = watch::channel(Geo::default());
        let shutdown = CancellationToken::new();
        let following = tokio::spawn(follow(Files { map: Some(map), mmdb: Some(mmdb) }, geo, shutdown.clone()));
        let good = write::database("Atoll", &[("10.0.0.0/8", serde_json::json!({"region": "eu"}))]);
        databases.send_replace(Some(good.clone().into()));
        maps.send_replace(Some("10.1.0.0/16 eu\n".into()));
        let both = |geo: &Geo| geo.mmdb.is_some() && geo.map.ranges.len() == 1;
        let first = seen.wait_for(both).await.unwrap().clone();
        databases.send_replace(Some(good[..good.len() / 2].to_vec().into()));
        maps.send_replace(Some("10.1.0.0/16 eu\n10.2.0.0/99 us\n".into()));
        // Bad ones change nothing: what comes after them is the next that is seen.
        maps.send_replace(Some("10.1.0.0/16 eu\n10.2.0.0/16 us\n".into()));
        let second = seen.wait_for(|geo| geo.map.ranges.len() == 2).await.unwrap().clone();
        assert!(Arc::ptr_eq(first.mmdb.as_ref().unwrap(), second.mmdb.as_ref().unwrap()));
        shutdown.cancel();
        following.await.unwrap();
    }
}

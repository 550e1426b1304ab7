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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::mmdb::write;
    use super::*;

    /// How many versions of a file were parsed so far.
    static READ: AtomicUsize = AtomicUsize::new(0);

    fn counted(octets: Bytes) -> Result<Arc<Map>, String> {
        let parsed = Map::parse(&octets).map(Arc::new);
        READ.fetch_add(1, Ordering::SeqCst);
        parsed
    }

    #[tokio::test]
    async fn a_bad_file_leaves_the_one_before_in_place() {
        let (file, octets) = watch::channel(None);
        let (taken, mut seen) = watch::channel(Arc::new(Map::default()));
        let following =
            tokio::spawn(each(Some(octets), "dns.cidrMap", counted, move |map| drop(taken.send_replace(map))));
        let version = async |text: &'static str| {
            let before = READ.load(Ordering::SeqCst);
            file.send_replace(Some(text.into()));
            while READ.load(Ordering::SeqCst) == before {
                tokio::task::yield_now().await;
            }
        };
        version("10.1.0.0/16 eu\n").await;
        let first = seen.wait_for(|map| map.ranges.len() == 1).await.unwrap().clone();
        version("10.1.0.0/16 eu\n10.2.0.0/99 us\n").await;
        // What was made of a bad one would be seen before what comes next.
        version("10.1.0.0/16 eu\n10.2.0.0/16 us\n10.3.0.0/16 us\n").await;
        seen.changed().await.unwrap();
        assert_eq!((first.ranges.len(), seen.borrow().ranges.len()), (1, 3));
        drop(file);
        following.await.unwrap();
    }

    #[tokio::test]
    async fn both_files_are_followed_until_the_end() {
        let (maps, map) = watch::channel(None);
        let (databases, mmdb) = watch::channel(None);
        let (geo, mut seen) = watch::channel(Geo::default());
        let shutdown = CancellationToken::new();
        let following = tokio::spawn(follow(Files { map: Some(map), mmdb: Some(mmdb) }, geo, shutdown.clone()));
        databases.send_replace(Some(
            write::database("Atoll", &[("10.0.0.0/8", serde_json::json!({"region": "eu"}))]).into(),
        ));
        maps.send_replace(Some("10.1.0.0/16 eu\n".into()));
        seen.wait_for(|geo| geo.mmdb.is_some() && geo.map.ranges.len() == 1).await.unwrap();
        shutdown.cancel();
        following.await.unwrap();
    }
}

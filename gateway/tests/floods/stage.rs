//! A gateway with short times before a pod, one test at a time, and what is measured of it.

use std::time::Duration;

use atoll_gateway::Limits;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::backend::Pod;
use crate::client::get;
use crate::world::{Made, World, import, route, topology};

/// How long a client may stand still here.
pub(crate) const SHORT: Duration = Duration::from_secs(1);
/// Whatever ends, ends within this time.
pub(crate) const LONG: Duration = Duration::from_secs(30);

static ONE: Mutex<()> = Mutex::const_new(());

/// What a test has to itself.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) pod: Pod,
    name: &'static str,
    began: Instant,
    memory: usize,
    _one: MutexGuard<'static, ()>,
}

impl Stage {
    /// A gateway and a pod on `ip`.
    pub(crate) async fn set(name: &'static str, ip: &str) -> Self {
        let one = ONE.lock().await;
        let pod = Pod::start("web", ip).await;
        let made = Made::default();
        let limits = Limits {
            header_timeout: SHORT,
            body_timeout: SHORT,
            write_timeout: SHORT,
            idle_timeout: SHORT,
            ..made.limits
        };
        let world = World::start_as(Made { limits, ..made }).await;
        world.publish(topology(&[("eu", &[&pod])]), true);
        world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
        world.until("a", "/", |answer| answer.status == 200).await;
        Self { world, pod, name, began: Instant::now(), memory: resident(), _one: one }
    }

    /// Others are served, and soon; the flood took no more than `kib_max` of memory. Says what was measured.
    pub(crate) async fn holds(&self, what: &str, kib_max: usize) {
        let (time, grown) = (self.began.elapsed(), resident().saturating_sub(self.memory));
        println!("{}: {what}; {} KiB more memory, {} ms", self.name, grown, time.as_millis());
        assert!(grown <= kib_max, "{grown} KiB more, {kib_max} at most");
        assert_eq!(get(self.world.http, "a", "/").await.status, 200, "others are served");
    }
}

/// KiB of memory that this process has.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

//! Which endpoint clients of Services with `sessionAffinity: ClientIP` were sent to, by Service and address: all ports of a Service lead a client
//! to one pod.
//!
//! Each replica remembers for itself; whoever it knows nothing of goes where the ring of the client's address leads, which is the same at every
//! replica.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Clients that are remembered; of more those that were quiet for longest are forgotten, an eighth at a time.
const CLIENTS_MAX: usize = 65_536;

/// Where clients were sent.
#[derive(Default)]
pub(crate) struct Affinities(Mutex<HashMap<Whose, Kept>>);

/// A Service and its client.
type Whose = (Arc<str>, IpAddr);
/// An endpoint, and until when.
type Kept = (IpAddr, Instant);

impl Affinities {
    /// The endpoint that a client was sent to, if that was within `timeout`.
    pub(crate) fn of(&self, service: &Arc<str>, client: IpAddr, timeout: Duration, now: Instant) -> Option<IpAddr> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (endpoint, at) = known.get(&(Arc::clone(service), client.to_canonical()))?;
        (now.saturating_duration_since(*at) < timeout).then_some(*endpoint)
    }

    /// A client was sent there now.
    pub(crate) fn keep(&self, service: &Arc<str>, client: IpAddr, endpoint: IpAddr, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(service), client.to_canonical());
        if known.len() >= CLIENTS_MAX && !known.contains_key(&key) {
            let mut ages: Vec<Instant> = known.values().map(|(_, at)| *at).collect();
            let (_, oldest, _) = ages.select_nth_unstable(CLIENTS_MAX / 8);
            let oldest = *oldest;
            known.retain(|_, (_, at)| *at > oldest);
        }
        known.insert(key, (endpoint, now));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_client_comes_back_within_the_time_and_memory_is_bounded() {
        let (affinities, start) = (Affinities::default(), Instant::now());
        let (service, hour): (Arc<str>, _) = ("/shop/web".into(), Duration::from_secs(3600));
        let ip = |n: usize| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + u32::try_from(n).unwrap()));
        affinities.keep(&service, ip(1), ip(100), start);
        for (after, found) in [(0, true), (3599, true), (3600, false)] {
            let now = start + Duration::from_secs(after);
            assert_eq!(affinities.of(&service, ip(1), hour, now).is_some(), found, "after {after} s");
        }
        assert_eq!(affinities.of(&"/shop/other".into(), ip(1), hour, start), None);
        for n in 0..CLIENTS_MAX + 10 {
            affinities.keep(&service, ip(n), ip(100), start + Duration::from_millis(u64::try_from(n).unwrap()));
        }
        let now = start + Duration::from_secs(70);
        assert_eq!(affinities.of(&service, ip(5), hour, now), None, "it was quiet for longest");
        assert!(affinities.of(&service, ip(CLIENTS_MAX), hour, now).is_some());
        assert!(affinities.0.lock().unwrap().len() <= CLIENTS_MAX);
    }
}

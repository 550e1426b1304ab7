//! What protects the server and others from it: cookies, response rates, and what counts as stress. Pure.
//!
//! ```text
//!   query ── Guard::cookie ──► worth ── answered ── Guard::judge ──► send, slip, drop
//! ```
//!
//! In: addresses, options, replies, the time. Out: verdicts. All threads share one guard; it never waits for a lock, never allocates for
//! a packet, and its memory is fixed at the start. Whom it spares (loopback, members, those who may recurse) is the client table's word.

mod cookie;
mod rate;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

pub(crate) use cookie::{COOKIE_BYTES, Cookie};
pub use cookie::{Secret, Secrets};
pub use rate::Rate;
pub(crate) use rate::{Kind, Limiter, Verdict};

/// Replies over their rate within a second that make it stress.
const STRESS: u64 = 100;
/// Stress lasts at least as long.
const STRESS_LASTS: Duration = Duration::from_secs(10);

/// The time, read once for each packet or batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Now {
    /// Since the guard was made; never goes back.
    pub(crate) since: Duration,
    /// The wall clock, in seconds of the era (RFC 9018 §4.3).
    pub(crate) unix: u32,
}

/// The guard.
pub(crate) struct Guard {
    limiter: Limiter,
    secrets: ArcSwap<Secrets>,
    /// The second (upper half) and the replies over their rate in it.
    over: AtomicU64,
    /// Stress until then, in ms.
    stress_until: AtomicU64,
}

impl Guard {
    /// With a rate, the secret of cookies, and a key of its own for the table.
    pub(crate) fn new(rate: Rate, secrets: Secrets, key: Secret) -> Self {
        Self {
            limiter: Limiter::new(rate, key),
            secrets: ArcSwap::from_pointee(secrets),
            over: AtomicU64::new(0),
            stress_until: AtomicU64::new(0),
        }
    }

    /// What a reply to a stranger comes to. Not asked for those whom the client table spares, nor for who showed a valid cookie.
    pub(crate) fn judge(&self, now: Now, ip: IpAddr, kind: Kind) -> Verdict {
        let verdict = self.limiter.judge(now.since, ip, kind);
        if verdict != Verdict::Send {
            self.press(now.since);
        }
        verdict
    }

    /// What a query's cookie is worth.
    pub(crate) fn cookie(&self, now: Now, ip: IpAddr, option: Option<&[u8]>) -> Cookie {
        if option.is_none() { Cookie::Absent } else { self.secrets.load().check(now.unix, ip, option) }
    }

    /// The cookie to give back with a reply.
    pub(crate) fn cookie_for(&self, now: Now, ip: IpAddr, cookie: Cookie) -> Option<[u8; COOKIE_BYTES]> {
        let client = cookie.client()?;
        Some(self.secrets.load().make(now.unix, ip, client))
    }

    /// Whether strangers must prove their address first, where they can (RFC 7873 §5.2.3).
    pub(crate) fn is_stressed(&self, now: Now) -> bool {
        millis(now.since) < self.stress_until.load(Ordering::Relaxed)
    }

    /// Makes cookies with `next` from now on; those made before count for another turn.
    pub(crate) fn roll(&self, next: Secret) {
        self.secrets.rcu(|secrets| secrets.rolled(next));
    }

    /// Takes these secrets, which others share.
    pub(crate) fn share(&self, secrets: Secrets) {
        self.secrets.store(std::sync::Arc::new(secrets));
    }

    fn press(&self, since: Duration) {
        let second = since.as_secs() << 32;
        let seen = self.over.load(Ordering::Relaxed);
        let count = if seen & !0xffff_ffff == second { (seen & 0xffff_ffff) + 1 } else { 1 };
        // Counts lost to another thread only delay it.
        self.over.store(second | count.min(0xffff_ffff), Ordering::Relaxed);
        if count >= STRESS {
            self.stress_until.fetch_max(millis(since + STRESS_LASTS), Ordering::Relaxed);
        }
    }
}

fn millis(since: Duration) -> u64 {
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { since: Duration::from_secs(seconds), unix: 1_700_000_000 + u32::try_from(seconds).unwrap() }
    }

    fn guard() -> Guard {
        Guard::new(Rate { per_second: 10, slip: 2 }, Secrets { current: [1; 16], previous: None }, [2; 16])
    }

    #[test]
    fn replies_over_their_rate_are_stress_for_a_while() {
        let (guard, ip) = (guard(), "192.0.2.1".parse().unwrap());
        for _ in 0..50 {
            guard.judge(at(0), ip, Kind::Answer);
        }
        assert!(!guard.is_stressed(at(0)), "a client that asks too much is no attack");
        for _ in 0..200 {
            guard.judge(at(1), ip, Kind::Answer);
        }
        for (second, stressed) in [(1, true), (10, true), (11, false), (60, false)] {
            assert_eq!(guard.is_stressed(at(second)), stressed, "at {second} s");
        }
    }

    #[test]
    fn a_cookie_given_is_valid_until_the_secret_was_rolled_twice() {
        let (guard, ip) = (guard(), "192.0.2.1".parse().unwrap());
        let first = guard.cookie(at(0), ip, Some(&[5; 8]));
        assert_eq!((first, guard.cookie_for(at(0), ip, Cookie::Absent)), (Cookie::Unproven([5; 8]), None));
        let given = guard.cookie_for(at(0), ip, first).unwrap();
        guard.roll([3; 16]);
        assert_eq!(guard.cookie(at(60), ip, Some(&given)), Cookie::Valid([5; 8]));
        guard.roll([4; 16]);
        assert_eq!(guard.cookie(at(60), ip, Some(&given)), Cookie::Unproven([5; 8]));
        guard.share(Secrets { current: [1; 16], previous: None });
        assert_eq!(guard.cookie(at(60), ip, Some(&given)), Cookie::Valid([5; 8]));
    }
}

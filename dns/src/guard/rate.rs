//! Response rate limiting: a stranger's address gets so many replies a second and no more, since it may not be the asker's. Pure.
//!
//! In: whom a reply would go to, what kind it is, the time. Out: send it, send a truncated one, or send nothing. Replies are counted for
//! each network of clients (/24, /56) and each kind of reply, in a table of fixed size that all threads share without a lock. A full
//! table sheds the newest: its reply goes out truncated, nobody's count is thrown away for it. Never allocates after the start.
//! Source: Vixie and Schryver, "DNS Response Rate Limiting" (ISC-TN-2012-1).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use siphasher::sip::SipHasher24;

use super::cookie::Secret;
use crate::prefixes::client_net;

/// Counted networks and kinds: 512 KiB.
const SLOTS: usize = 64 * 1024;
/// Slots in which one network and kind may stand.
const WAYS: usize = 4;
/// Tries against other threads; then the reply goes out uncounted.
const TRIES_MAX: usize = 3;
/// How far ahead of its rate a network may be: a second's worth, at once.
const WINDOW: u64 = TICKS_PER_SECOND;
/// And how far what it goes on asking may push it: after a flood it waits a second, too.
const DEBT_MAX: u64 = 2 * WINDOW;
/// A tick is 16 µs, so that 44 bits last longer than any process.
const TICKS_PER_SECOND: u64 = 62_500;
const DUE_BITS: u32 = 44;
const DUE_MASK: u64 = (1 << DUE_BITS) - 1;
const SLIP_BITS: u32 = 4;

/// Replies that are counted apart: an attacker uses up one of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With records.
    Answer,
    /// No records of the type.
    NoData,
    /// No such name.
    NoName,
    /// To the servers below.
    Referral,
    /// Everything else.
    Error,
}

impl Kind {
    /// Of a reply as it would go out.
    pub(crate) fn of(reply: &[u8]) -> Self {
        let Some(head) = reply.first_chunk::<12>() else { return Self::Error };
        let (authoritative, rcode) = (head[2] & 0x04 != 0, head[3] & 0x0f);
        let [answers, authorities] = [&head[6..8], &head[8..10]].map(|count| count != [0, 0]);
        match rcode {
            0 if answers => Self::Answer,
            0 if authorities && !authoritative => Self::Referral,
            0 => Self::NoData,
            3 => Self::NoName,
            _ => Self::Error,
        }
    }
}

/// What becomes of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes out.
    Send,
    /// A truncated one goes out: no larger than the query, and whoever really asked comes back by TCP.
    Slip,
    /// Nothing goes out.
    Drop,
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Replies of one kind that a network of strangers gets each second, counted in steps of 16 µs: above some thousands it is a little
    /// less. 0: no limit.
    pub per_second: u32,
    /// Of those over it, each so-many-th goes out truncated, the others not at all; 0: none, 1: all.
    pub slip: u8,
}

impl Default for Rate {
    fn default() -> Self {
        Self { per_second: 200, slip: 2 }
    }
}

/// The table.
pub(crate) struct Limiter {
    rate: Rate,
    /// Unknown outside, so that nobody can aim at another's slot.
    key: Secret,
    /// Each: a fingerprint (16 bits), replies over the rate (4), when the next one is due (44).
    slots: Box<[AtomicU64]>,
}

impl Limiter {
    pub(crate) fn new(rate: Rate, key: Secret) -> Self {
        Self { rate, key, slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// What becomes of a reply of `kind` to `ip`, `now` after the start.
    pub(crate) fn judge(&self, now: Duration, ip: IpAddr, kind: Kind) -> Verdict {
        if self.rate.per_second == 0 {
            return Verdict::Send;
        }
        let now = ticks(now);
        let hash = SipHasher24::new_with_key(&self.key).hash(&network(ip, kind));
        let (print, set) = (hash >> 48, (hash as usize % (SLOTS / WAYS)) * WAYS);
        let slots = &self.slots[set..set + WAYS];
        for _ in 0..TRIES_MAX {
            let Some((slot, seen)) = find(slots, print, now) else { return Verdict::Slip };
            let (next, verdict) = self.step(if seen >> 48 == print { seen } else { 0 }, print, now);
            if slot.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return verdict;
            }
        }
        Verdict::Send
    }

    /// The count after one more reply (a leaky bucket kept as the time at which it is empty).
    fn step(&self, seen: u64, print: u64, now: u64) -> (u64, Verdict) {
        let each = TICKS_PER_SECOND.div_ceil(u64::from(self.rate.per_second));
        let due = (seen & DUE_MASK).max(now) + each;
        let over = seen >> DUE_BITS & ((1 << SLIP_BITS) - 1);
        let pack = |over: u64, due: u64| print << 48 | over << DUE_BITS | due.min(DUE_MASK);
        if due <= now + WINDOW {
            return (pack(over, due), Verdict::Send);
        }
        let slip = u64::from(self.rate.slip.min(15));
        let over = over + 1;
        let (over, verdict) = if over == slip { (0, Verdict::Slip) } else { (over.min(15), Verdict::Drop) };
        (pack(over, due.min(now + DEBT_MAX)), verdict)
    }
}

/// The slot of `print`, else one that nobody uses at the moment; `None` when all are in use.
fn find(slots: &[AtomicU64], print: u64, now: u64) -> Option<(&AtomicU64, u64)> {
    let mut free = None;
    for slot in slots {
        let seen = slot.load(Ordering::Relaxed);
        if seen >> 48 == print {
            return Some((slot, seen));
        }
        if seen & DUE_MASK <= now {
            free = Some((slot, seen));
        }
    }
    free
}

fn ticks(now: Duration) -> u64 {
    u64::try_from(now.as_micros() / 16).unwrap_or(DUE_MASK).min(DUE_MASK - DEBT_MAX)
}

/// The network that an address is counted with, and the kind.
fn network(ip: IpAddr, kind: Kind) -> [u8; 9] {
    let mut key = [kind as u8; 9];
    key[1..].copy_from_slice(&client_net(ip).to_le_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: u32, slip: u8) -> Limiter {
        Limiter::new(Rate { per_second, slip }, [9; 16])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `count` replies at `now` are sent, slipped, dropped.
    fn count(limiter: &Limiter, now: u64, from: &str, kind: Kind, count: usize) -> [usize; 3] {
        let mut seen = [0; 3];
        for _ in 0..count {
            seen[limiter.judge(Duration::from_millis(now), ip(from), kind) as usize] += 1;
        }
        seen
    }

    #[test]
    fn a_network_gets_its_rate_and_the_rest_slips_or_is_dropped() {
        let limiter = limiter(100, 2);
        for (case, now, from, kind, asked, want) in [
            ("a second's worth at once", 0, "192.0.2.1", Kind::Answer, 100, [100, 0, 0]),
            ("its neighbour is counted with it", 0, "192.0.2.200", Kind::Answer, 10, [0, 5, 5]),
            ("another kind is not", 0, "192.0.2.1", Kind::NoName, 10, [10, 0, 0]),
            ("another network is not", 0, "192.0.3.1", Kind::Answer, 10, [10, 0, 0]),
            ("what it went on asking counts", 60, "192.0.2.1", Kind::Answer, 2, [0, 1, 1]),
            ("it recovers", 3000, "192.0.2.1", Kind::Answer, 100, [100, 0, 0]),
            ("IPv6 by /56", 0, "2001:db8:0:100::1", Kind::Answer, 100, [100, 0, 0]),
            ("of the same /56", 0, "2001:db8:0:1ff::2", Kind::Answer, 2, [0, 1, 1]),
            ("of the next /56", 0, "2001:db8:0:200::2", Kind::Answer, 2, [2, 0, 0]),
        ] {
            assert_eq!(count(&limiter, now, from, kind, asked), want, "{case}");
        }
    }

    #[test]
    fn slip_says_how_many_go_out_truncated() {
        for (slip, want) in [(0, [10, 0, 60]), (1, [10, 60, 0]), (3, [10, 20, 40])] {
            assert_eq!(count(&limiter(10, slip), 0, "192.0.2.1", Kind::Error, 70), want, "slip {slip}");
        }
        assert_eq!(count(&limiter(0, 2), 0, "192.0.2.1", Kind::Error, 70), [70, 0, 0], "no limit");
    }

    #[test]
    fn over_time_a_flood_gets_at_most_the_rate() {
        let limiter = limiter(50, 0);
        // 2000 a second for 20 s: one second's worth, then nothing until it lets go.
        let sent: usize = (0..40_000).map(|i| count(&limiter, i / 2, "192.0.2.1", Kind::Answer, 1)[0]).sum();
        assert!((50..=50 * 21).contains(&sent), "{sent}");
        // Half the rate passes whole.
        let sent: usize = (0..100).map(|i| count(&limiter, 30_000 + i * 40, "192.0.2.1", Kind::Answer, 1)[0]).sum();
        assert_eq!(sent, 100);
    }

    #[test]
    fn a_full_table_sheds_the_newest_and_forgets_nobody() {
        let limiter = limiter(1, 2);
        let known = "192.0.2.1";
        assert_eq!(count(&limiter, 0, known, Kind::Answer, 2), [1, 0, 1]);
        let mut slipped = 0;
        for i in 0..400_000_u32 {
            let from = IpAddr::from((0x0a00_0000 + (i << 8)).to_be_bytes());
            slipped += usize::from(limiter.judge(Duration::ZERO, from, Kind::Answer) == Verdict::Slip);
        }
        assert!(slipped > 300_000, "{slipped}");
        assert_eq!(count(&limiter, 0, known, Kind::Answer, 1)[0], 0, "its count is kept");
        assert_eq!(count(&limiter, 5000, "203.0.113.1", Kind::Answer, 1), [1, 0, 0], "slots are free again");
    }

    #[test]
    fn threads_share_one_count() {
        let limiter = limiter(1000, 0);
        let sent: usize = std::thread::scope(|scope| {
            let ask = || count(&limiter, 0, "192.0.2.1", Kind::Answer, 5000)[0];
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        // A tick is a little coarse for such a rate; what was lost to another thread went out uncounted.
        assert!((990..1500).contains(&sent), "{sent}");
    }

    #[test]
    fn the_kind_is_read_from_the_reply() {
        let reply = |flags: [u8; 2], answers: u8, authorities: u8| {
            let mut head = [0; 12];
            head[2..4].copy_from_slice(&flags);
            (head[7], head[9]) = (answers, authorities);
            head
        };
        for (head, want) in [
            (reply([0x84, 0], 2, 0), Kind::Answer),
            (reply([0x84, 0], 0, 1), Kind::NoData),
            (reply([0x80, 0], 0, 2), Kind::Referral),
            (reply([0x84, 3], 0, 1), Kind::NoName),
            (reply([0x80, 5], 0, 0), Kind::Error),
        ] {
            assert_eq!(Kind::of(&head), want);
        }
        assert_eq!(Kind::of(&[1, 2, 3]), Kind::Error);
    }
}

//! Where the clients stand that one thread heard lately: one look-up instead of several, nothing allocated.
//!
//! In: an address, where it stands and under which generation that was found. Out: the same, while that generation holds. Clients that
//! displace one another cost a look-up each, nothing else.

use std::net::IpAddr;

use crate::client::Asker;

const CLIENTS: usize = 2048;

/// Where a client stands, and how it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stands {
    pub(crate) place: u32,
    pub(crate) barred: bool,
    pub(crate) spared: bool,
    pub(crate) recursion: bool,
}

impl Stands {
    pub(crate) fn of(asker: &Asker) -> Self {
        Self { place: asker.id, barred: asker.barred, spared: asker.spared, recursion: asker.recursion }
    }
}

#[derive(Debug, Clone, Copy)]
struct Client {
    ip: IpAddr,
    generation: u64,
    stands: Stands,
}

/// Clients by their addresses.
#[derive(Debug)]
pub(crate) struct Places(Box<[Option<Client>]>);

impl Default for Places {
    fn default() -> Self {
        Self(vec![None; CLIENTS].into())
    }
}

impl Places {
    /// Where `ip` stands, when that was looked up under a generation which still holds.
    pub(crate) fn find(&self, ip: IpAddr, holds: impl FnOnce(u64) -> bool) -> Option<Stands> {
        let client = self.0[slot(ip)].as_ref()?;
        (client.ip == ip && holds(client.generation)).then_some(client.stands)
    }

    /// Remembers where `ip` stands.
    pub(crate) fn keep(&mut self, ip: IpAddr, stands: Stands, generation: u64) {
        self.0[slot(ip)] = Some(Client { ip, generation, stands });
    }
}

/// Any hash will do.
fn slot(ip: IpAddr) -> usize {
    let bits = match ip {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() ^ (v6.to_bits() >> 64)) as u64,
    };
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % CLIENTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_stands_where_it_was_found_while_that_holds_and_nobody_stands_in_its_place() {
        let mut places = Places::default();
        let stands = |place| Stands { place, barred: false, spared: true, recursion: false };
        let ips: Vec<IpAddr> = (0..10_000_u32).map(|i| IpAddr::from(i.to_be_bytes())).collect();
        for (place, ip) in (0..).zip(&ips) {
            places.keep(*ip, stands(place), 7);
            assert_eq!(places.find(*ip, |generation| generation == 7), Some(stands(place)));
            assert_eq!(places.find(*ip, |generation| generation > 7), None, "it holds no more");
        }
        for (place, ip) in (0..).zip(&ips) {
            assert!(places.find(*ip, |_| true).is_none_or(|found| found == stands(place)), "{ip}");
        }
    }
}

//! Connections at once of one client: an IPv4 address or a /64 of IPv6. One more is closed at once, and the others stay.
//!
//! In: the address of a client, after a PROXY protocol header was read. Out: a place, given back when it is dropped. Proxies that speak for many
//! clients (`trustedProxies`) are not counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Who is connected, and how often; nobody who isn't.
#[derive(Debug, Default)]
pub(crate) struct PerClient {
    /// 0: as many as like.
    max: usize,
    open: Mutex<HashMap<u64, usize>>,
}

/// One connection of a client.
#[derive(Debug)]
pub(crate) struct Held(Option<(Arc<PerClient>, u64)>);

impl PerClient {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, open: Mutex::default() })
    }

    /// A place for one more; nothing where the client has all that it may have.
    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Held> {
        if self.max == 0 {
            return Some(Held(None));
        }
        let key = key(client);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(key).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Held(Some((Arc::clone(self), key))))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some((clients, key)) = self.0.take() else { return };
        let mut open = clients.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&key);
            }
        }
    }
}

/// Whoever has a /64 has all of its addresses. No /64 that is given to anybody begins with 32 bits of nothing, as addresses of IPv4 do here.
fn key(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_places_and_gets_them_back() {
        let clients = PerClient::new(2);
        let enter = |text: &str| clients.enter(text.parse().unwrap());
        let (first, second) = (enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap());
        assert!(enter("192.0.2.1").is_none(), "however it is written");
        assert!(enter("192.0.2.2").is_some(), "another one");
        drop(first);
        let third = enter("192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_none());
        let held = [enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap()];
        assert!(enter("2001:db8::3").is_none(), "of the same /64");
        assert!(enter("2001:db8:0:1::3").is_some());
        drop((second, third, held));
        assert!(clients.open.lock().unwrap().is_empty(), "who is gone is forgotten");
        let all = PerClient::new(0);
        assert!((0..1000).all(|_| all.enter("192.0.2.1".parse().unwrap()).is_some()), "no bound");
    }
}

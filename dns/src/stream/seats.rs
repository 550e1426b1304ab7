//! Who may hold connections open, and how many.
//!
//! In: addresses of clients. Out: seats, given back when they are dropped. Each transport has its own, so that a crowd on one of them does
//! not keep others out. The newest is turned away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_reach::neighbourhood;
use prometheus::IntGauge;

use crate::config::Limits;

/// The seats of one transport.
pub(crate) struct Seats {
    limits: Limits,
    /// How many are taken, for people.
    shown: IntGauge,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    clients: HashMap<IpAddr, usize>,
}

impl Seats {
    pub(crate) fn new(limits: Limits, shown: IntGauge) -> Arc<Self> {
        Arc::new(Self { limits, shown, taken: Mutex::default() })
    }

    /// A seat for whom nobody knows yet; `None` when all are taken.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (taken.all < self.limits.connections).then(|| {
            taken.all += 1;
            self.shown.inc();
            Seat { seats: Arc::clone(self), client: None }
        })
    }

    /// How long a connection may stay without a query: less when seats are scarce.
    pub(crate) fn idle(&self) -> Duration {
        if self.is_crowded() { self.limits.idle / 5 } else { self.limits.idle }
    }

    /// Whether three quarters of the seats are taken.
    pub(crate) fn is_crowded(&self) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all >= (self.limits.connections / 4 * 3).max(1)
    }
}

/// One seat, until it is dropped.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    client: Option<IpAddr>,
}

impl Seat {
    /// Counts it for a client; `false` when that client has all it may have.
    pub(crate) fn sit(&mut self, ip: IpAddr) -> bool {
        let client = neighbourhood(ip);
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.clients.get(&client).copied().unwrap_or_default();
        let may = count < self.seats.limits.client_connections;
        if may {
            taken.clients.insert(client, count + 1);
            self.client = Some(client);
        }
        may
    }

    /// As [`Seats::idle`].
    pub(crate) fn idle(&self) -> Duration {
        self.seats.idle()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        self.seats.shown.dec();
        let Some(client) = self.client else { return };
        if let Some(count) = taken.clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                taken.clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_for_all_and_for_each_and_given_back() {
        let limits = Limits { connections: 4, client_connections: 2, ..Limits::default() };
        let shown = IntGauge::new("connections", "Connections.").unwrap();
        let seats = Seats::new(limits, shown.clone());
        let sit = |ip: &str| {
            let mut seat = seats.enter()?;
            seat.sit(ip.parse().unwrap()).then_some(seat)
        };
        let first = sit("2001:db8::1").unwrap();
        assert!(!seats.is_crowded() && seats.idle() == limits.idle);
        let _second = sit("2001:db8::2").unwrap();
        assert!(sit("2001:db8::3").is_none(), "the third of one /64");
        let _third = sit("192.0.2.1").unwrap();
        assert!(seats.is_crowded() && seats.idle() == limits.idle / 5);
        let _fourth = sit("192.0.2.2").unwrap();
        assert!(sit("192.0.2.3").is_none(), "all are taken");
        assert_eq!(shown.get(), 4);
        drop(first);
        assert_eq!(shown.get(), 3);
        assert!(sit("2001:db8::3").is_some());
    }
}

//! What stands at the edge of the server and is the same for all transports: the guard, limits, proxies, the certificate, the clock.
//!
//! In: the configuration and what was handed in. Out: an [`Edge`] that transports and the responder share; [`keep_secrets`], which rolls
//! the secret of cookies or follows the one that servers share. Never looks at a name.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::server::ResolvesServerCert;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::{Config, Limits};
use crate::guard::{Guard, Now, Secrets};

/// RFC 7873 §7.1 asks for a new secret within 36 days, and at least as often as clients forget; a day is what most servers take.
const ROLL_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The edge.
pub(crate) struct Edge {
    pub(crate) guard: Guard,
    pub(crate) limits: Limits,
    /// What encrypted transports show.
    pub(crate) certificate: Option<Arc<dyn ResolvesServerCert>>,
    proxies: Vec<IpNet>,
    instance: String,
    start: Instant,
}

impl Edge {
    pub(crate) fn new(config: &Config, certificate: Option<Arc<dyn ResolvesServerCert>>) -> Self {
        let secrets = Secrets { current: rand::random(), previous: None };
        Self {
            guard: Guard::new(config.rate, secrets, rand::random()),
            limits: config.limits,
            certificate,
            proxies: config.proxies.clone(),
            instance: config.instance.clone(),
            start: Instant::now(),
        }
    }

    /// The time as the guard wants it.
    pub(crate) fn now(&self) -> Now {
        // Seconds of the era wrap in 2106, as the cookies' own do.
        Now { since: self.start.elapsed(), unix: jiff::Timestamp::now().as_second() as u32 }
    }

    /// What this server is called (RFC 5001).
    pub(crate) fn nsid(&self) -> &[u8] {
        self.instance.as_bytes()
    }

    /// Whether connections from `ip` begin with a PROXY header.
    pub(crate) fn is_proxy(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.proxies.iter().any(|net| net.contains(&ip))
    }
}

/// Keeps the secret of cookies: the shared one as it changes, else our own, rolled. Ends with whoever drops it.
pub(crate) async fn keep_secrets(edge: &Edge, mut shared: Option<watch::Receiver<Option<Secrets>>>) {
    let mut tick = interval(ROLL_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        let given = shared.as_mut().and_then(|shared| *shared.borrow_and_update());
        if let Some(secrets) = given {
            edge.guard.share(secrets);
        }
        let changed = async {
            match &mut shared {
                Some(shared) => shared.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            there = changed => if !there { shared = None },
            _ = tick.tick() => if given.is_none() { edge.guard.roll(rand::random()) },
        }
    }
}

#[cfg(test)]
mod tests;

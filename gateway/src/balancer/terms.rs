//! What a Service asks of whoever carries its streams and packets: who may come, whether clients come back to the same endpoint, how that is told
//! of them. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::proxy::Version;
use ipnet::IpNet;

use super::Balanced;

/// The terms of one Service, the same for all of its ports.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Which Service, for what is remembered of its clients.
    pub(crate) service: Arc<str>,
    /// Who may come; none: everybody.
    ranges: Vec<IpNet>,
    /// For so long a client comes back to the endpoint that it was sent to.
    pub(crate) affinity: Option<Duration>,
    /// How endpoints are told of clients.
    pub(crate) proxy: Option<Version>,
}

impl Terms {
    pub(crate) fn of(balanced: &Balanced) -> Self {
        let facts = &balanced.facts;
        Self {
            service: balanced.place().into(),
            ranges: facts.ranges.clone(),
            affinity: facts.affinity_s.map(|s| Duration::from_secs(s.into())),
            proxy: facts.proxy.map(|version| if version == 1 { Version::V1 } else { Version::V2 }),
        }
    }

    /// Whether a client may come.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(&self, client: IpAddr) -> Result<(), &'static str> {
        let client = client.to_canonical();
        let within = self.ranges.is_empty() || self.ranges.iter().any(|range| range.contains(&client));
        if within { Ok(()) } else { Err("no range of loadBalancerSourceRanges has its address") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_outside_of_all_ranges_may_not_come() {
        for (ranges, client, may) in [
            ("", "192.0.2.1", true),
            ("192.0.2.0/24", "192.0.2.1", true),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
            ("192.0.2.0/24", "198.51.100.1", false),
            ("192.0.2.0/24", "fd00::1", false),
            ("192.0.2.0/24 fd00::/8", "fd00::1", true),
        ] {
            let ranges = ranges.split_whitespace().map(|range| range.parse().unwrap()).collect();
            let terms = Terms { service: "".into(), ranges, affinity: None, proxy: None };
            assert_eq!(terms.admit(client.parse().unwrap()).is_ok(), may, "{client} {:?}", terms.ranges);
        }
    }
}

//! How a TrafficPolicy wants endpoints watched, and what they are spared. Pure.
//!
//! In: the policy as written. Out: [`Care`], read by whoever picks, probes and judges.

use std::sync::Arc;
use std::time::Duration;

use atoll_api::health::Check;
use atoll_api::kinds::{OutlierEjection, ProxyProtocol};
use atoll_api::topology::TrafficFacts;
use atoll_reach::proxy::Version;

use crate::retry::{self, Budget};

const FAILURES_TO_EJECT: u32 = 2;
const EJECTED_PERCENT_MAX: u8 = 50;

/// What is done for the endpoints of a service.
#[derive(Debug)]
pub(crate) struct Care {
    /// How they are probed; nothing: a connection is enough.
    pub(crate) check: Option<Arc<Check>>,
    pub(crate) outlier: Outlier,
    /// Requests at once at one of them.
    pub(crate) requests_max: usize,
    /// How long one that is new or back is given less.
    pub(crate) slow_start: Duration,
    /// A tier with fewer percent of them well is passed over.
    pub(crate) panic_percent: usize,
    /// The header that connections begin with.
    pub(crate) proxy: Option<Version>,
    /// How often requests are sent again; nothing: as all others are.
    pub(crate) budget: Option<Budget>,
}

/// When one that fails is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outlier {
    /// So many requests in a row without an answer.
    pub(crate) failures: u32,
    /// So many answers with errors.
    pub(crate) errors: Option<u32>,
    pub(crate) time: Duration,
    pub(crate) time_max: Duration,
    /// How many percent of a cluster's may be left out for errors.
    pub(crate) percent_max: usize,
}

impl Default for Outlier {
    fn default() -> Self {
        let ((time, time_max), percent_max) = (OutlierEjection::TIMES, usize::from(EJECTED_PERCENT_MAX));
        Self { failures: FAILURES_TO_EJECT, errors: None, time, time_max, percent_max }
    }
}

impl Default for Care {
    fn default() -> Self {
        let (outlier, slow_start) = (Outlier::default(), Duration::ZERO);
        Self { check: None, outlier, requests_max: usize::MAX, slow_start, panic_percent: 0, proxy: None, budget: None }
    }
}

impl Care {
    /// As it is written.
    ///
    /// # Errors
    /// A time or a check that is none.
    pub(crate) fn parse(spec: &TrafficFacts) -> Result<Self, String> {
        let check =
            spec.health_check.as_ref().map(|check| Check::parse(check, &spec.hosts).map(Arc::new)).transpose()?;
        let breaker = spec.circuit_breaker.as_ref().and_then(|b| b.requests_per_endpoint);
        let budget = spec
            .retry_budget
            .as_ref()
            .map(|b| Budget::new(b.percent.unwrap_or(retry::PERCENT), b.per_second.unwrap_or(retry::PER_SECOND)));
        Ok(Self {
            check,
            outlier: spec.outlier.as_ref().map_or_else(|| Ok(Outlier::default()), Outlier::parse)?,
            requests_max: breaker.map_or(usize::MAX, |n| usize::try_from(n.max(1)).unwrap_or(usize::MAX)),
            slow_start: spec.slow_start()?,
            panic_percent: usize::from(spec.panic_percent.unwrap_or(0).min(100)),
            proxy: spec.proxy_protocol.map(|version| match version {
                ProxyProtocol::V1 => Version::V1,
                ProxyProtocol::V2 => Version::V2,
            }),
            budget,
        })
    }
}

impl Outlier {
    fn parse(written: &OutlierEjection) -> Result<Self, String> {
        let usual = Self::default();
        let (time, time_max) = written.times()?;
        Ok(Self {
            failures: written.consecutive_failures.unwrap_or(usual.failures).max(1),
            errors: written.consecutive_errors.map(|n| n.max(1)),
            time,
            time_max,
            percent_max: usize::from(written.max_ejected_percent.unwrap_or(EJECTED_PERCENT_MAX).min(100)),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_written_is_as_usual_and_what_makes_no_sense_is_refused() {
        let parse = |spec| Care::parse(&serde_json::from_value(spec).unwrap());
        let usual = parse(json!({"service": "web"})).unwrap();
        assert_eq!((usual.outlier, usual.requests_max, usual.panic_percent), (Outlier::default(), usize::MAX, 0));
        assert!(usual.check.is_none() && usual.budget.is_none() && usual.slow_start.is_zero());
        let written = parse(json!({"outlier": {"consecutiveErrors": 3, "ejection": "90s"}, "slowStart": "30s",
            "circuitBreaker": {"requestsPerEndpoint": 7}, "panicPercent": 40}))
        .unwrap();
        let outlier = written.outlier;
        assert_eq!(
            (outlier.errors, outlier.time, outlier.time_max),
            (Some(3), outlier.time_max, Duration::from_secs(90))
        );
        assert_eq!((written.requests_max, written.slow_start.as_secs(), written.panic_percent), (7, 30, 40));
        for (spec, says) in [
            (json!({"slowStart": "soon"}), "slowStart"),
            (json!({"slowStart": "2h"}), "at most 1h"),
            (json!({"outlier": {"ejection": "10s", "ejectionMax": "5s"}}), "outlier.ejection"),
            (json!({"healthCheck": {"interval": "0s"}}), "healthCheck.interval"),
        ] {
            let why = parse(spec).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}

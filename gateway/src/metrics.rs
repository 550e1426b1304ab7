//! What is counted: requests by status and cluster (by route where that is asked for), their time, connects, failures, clusters that are out, clients that were cut.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

const BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// With what a client did not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its hello, or the rest of the TLS handshake.
    Tls,
    /// The head of a request; on HTTP/1.1 also the first or next request at all.
    Head,
    /// The body of a request.
    Body,
    /// Taking an answer.
    Answer,
    /// HTTP/2 without a stream.
    Idle,
    /// Waiting for the answers to what it asks on HTTP/2.
    Resets,
    /// Having no more connections than it may have.
    Connections,
}

impl Cut {
    fn word(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Head => "head",
            Self::Body => "body",
            Self::Answer => "answer",
            Self::Idle => "idle",
            Self::Resets => "resets",
            Self::Connections => "connections",
        }
    }
}

/// The counter that was counted last.
#[derive(Default)]
pub(crate) struct Tally {
    last: Option<Last>,
}

struct Last {
    route: Arc<str>,
    code: u16,
    cluster: String,
    counter: IntCounter,
}

/// Counters of the gateway. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    /// Whether requests are counted by route, too.
    per_route: bool,
    seconds: Histogram,
    connects: IntCounterVec,
    failures: IntCounterVec,
    retries: IntCounterVec,
    clusters_out: IntGaugeVec,
    cuts: IntCounterVec,
    pub(crate) copies_dropped: IntCounter,
    pub(crate) access_dropped: IntCounter,
    pub(crate) spans_dropped: IntCounter,
    pub(crate) connections: IntGauge,
    pub(crate) builds: IntCounter,
    pub(crate) routes: IntGauge,
    pub(crate) certificates_not_after: IntGaugeVec,
    pub(crate) ingress_refused: IntGaugeVec,
    pub(crate) over_limit: IntGaugeVec,
    pub(crate) http3_lacking: IntGaugeVec,
    pub(crate) acme_orders: IntCounterVec,
    pub(crate) acme_failing: IntGaugeVec,
    pub(crate) names: IntGaugeVec,
    pub(crate) watches_failing: IntGaugeVec,
    pub(crate) last_good: IntGauge,
    pub(crate) hub_silent: IntGauge,
}

impl Metrics {
    /// Registers everything. `per_route`: requests are counted by route, too.
    ///
    /// # Errors
    /// They are there already: two gateways on one registry.
    pub(crate) fn register(registry: &Registry, per_route: bool) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone())).map(|()| counters)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone())).map(|()| gauges)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let seconds = Histogram::with_opts(
            HistogramOpts::new("atoll_gateway_request_seconds", "Time until the answer begins")
                .buckets(BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        Ok(Self {
            requests: counters(
                "atoll_gateway_requests_total",
                "Requests answered, by status and cluster, and by route where that is asked for",
                if per_route { &["code", "cluster", "route"] } else { &["code", "cluster"] },
            )?,
            per_route,
            seconds,
            connects: counters(
                "atoll_gateway_upstream_connects_total",
                "Connects to endpoints, probes included, by cluster and result; tls: of those that were ok, which failed at TLS",
                &["cluster", "result"],
            )?,
            failures: counters(
                "atoll_gateway_upstream_failures_total",
                "Requests to endpoints that got no answer, by cluster",
                &["cluster"],
            )?,
            retries: counters(
                "atoll_gateway_retries_total",
                "Requests sent again elsewhere, by whether the budget allowed it",
                &["result"],
            )?,
            ingress_refused: gauges(
                "atoll_gateway_ingress_refused",
                "What of Ingresses isn't carried out, by annotation (ports of ConfigMaps by tcp-services, udp-services), and whether it closes",
                &["annotation", "closes"],
            )?,
            over_limit: gauges(
                "atoll_gateway_over_namespace_limit",
                "What is refused because its namespace has as much as it may have: routes, certificates",
                &["what"],
            )?,
            http3_lacking: gauges(
                "atoll_gateway_http3_lacking",
                "1 while a port of HTTPS is not answered by HTTP/3 although it is to be",
                &["port"],
            )?,
            acme_orders: counters(
                "atoll_gateway_acme_orders_total",
                "Orders of certificates that came to an end, by result: issued, failed",
                &["result"],
            )?,
            acme_failing: gauges(
                "atoll_gateway_acme_failing",
                "1 for each Secret whose certificate can't be ordered or renewed; its objects' conditions and Events say why",
                &["secret"],
            )?,
            names: gauges(
                "atoll_gateway_names",
                "Names that backends are reached by, by how DNS answers: answered, failing (their last addresses are used), new",
                &["state"],
            )?,
            watches_failing: gauges(
                "atoll_gateway_watch_failing",
                "Watches that are interrupted, by kind: what changes meanwhile is not seen",
                &["kind"],
            )?,
            last_good: gauge(
                "atoll_gateway_last_good",
                "1 while routes are served from the last good file: the API server did not answer in this life yet",
            )?,
            hub_silent: gauge("atoll_gateway_hub_silent_seconds", "How long ago the hub was heard last")?,
            clusters_out: gauges("atoll_gateway_cluster_out", "1 while a cluster takes no requests", &["cluster"])?,
            cuts: counters(
                "atoll_gateway_cut_total",
                "Clients that did not go on in time, by with what: tls, head, body, answer, idle, resets, connections",
                &["with"],
            )?,
            copies_dropped: counter(
                "atoll_gateway_copies_dropped_total",
                "Copies for mirrors that were not made because too many were under way",
            )?,
            access_dropped: counter(
                "atoll_gateway_access_lines_dropped_total",
                "Lines of the access log that were not written: too many waited, or the file took no more",
            )?,
            spans_dropped: counter(
                "atoll_gateway_spans_dropped_total",
                "Spans that were not sent: too many waited, or the collector did not take them",
            )?,
            connections: gauge("atoll_gateway_connections", "Connections of clients")?,
            builds: counter("atoll_gateway_table_builds_total", "Route tables built")?,
            routes: gauge("atoll_gateway_routes", "Routes known")?,
            certificates_not_after: gauges(
                "atoll_gateway_certificate_not_after_seconds",
                "End of validity of the certificates served",
                &["listener"],
            )?,
        })
    }

    /// A request was answered.
    pub(crate) fn answered(&self, route: &str, code: u16, cluster: &str, time: Duration) {
        self.counter(route, code, cluster).inc();
        self.seconds.observe(time.as_secs_f64());
    }

    /// The same for one connection after the other requests of which are much alike: `tally` is theirs.
    pub(crate) fn tallied(&self, tally: &mut Tally, route: &Arc<str>, code: u16, cluster: &str, time: Duration) {
        let is_same = |l: &&Last| Arc::ptr_eq(&l.route, route) || !self.per_route;
        let last = tally.last.as_ref().filter(|l| is_same(l) && l.code == code && l.cluster == cluster);
        if last.is_none() {
            let counter = self.counter(route, code, cluster);
            tally.last = Some(Last { route: Arc::clone(route), code, cluster: cluster.to_owned(), counter });
        }
        if let Some(last) = &tally.last {
            last.counter.inc();
        }
        self.seconds.observe(time.as_secs_f64());
    }

    fn counter(&self, route: &str, code: u16, cluster: &str) -> IntCounter {
        let code = code.to_string();
        let labels = [&code, cluster, route];
        self.requests.with_label_values(if self.per_route { &labels } else { &labels[..2] })
    }

    /// A connect to an endpoint ended.
    pub(crate) fn connected(&self, cluster: &str, ok: bool) {
        self.connects.with_label_values(&[cluster, if ok { "ok" } else { "failed" }]).inc();
    }

    /// An endpoint was reached, but TLS failed: its certificate is not to be trusted, say.
    pub(crate) fn distrusted(&self, cluster: &str) {
        self.connects.with_label_values(&[cluster, "tls"]).inc();
    }

    /// A request got no answer.
    pub(crate) fn failed(&self, cluster: &str) {
        self.failures.with_label_values(&[cluster]).inc();
    }

    /// A request was to be sent again.
    pub(crate) fn retried(&self, allowed: bool) {
        self.retries.with_label_values(&[if allowed { "sent" } else { "refused" }]).inc();
    }

    /// A client did not go on.
    pub(crate) fn cut(&self, with: Cut) {
        self.cuts(with).inc();
    }

    /// Counts those.
    pub(crate) fn cuts(&self, with: Cut) -> IntCounter {
        self.cuts.with_label_values(&[with.word()])
    }

    /// A cluster went out or came back.
    pub(crate) fn cluster_out(&self, cluster: &str, out: bool) {
        self.clusters_out.with_label_values(&[cluster]).set(i64::from(out));
    }
}

//! Traces: one span a request, told to a collector by OTLP over gRPC; the trace that a client began goes on, else one begins.
//!
//! In: heads, what became of requests. Out: `traceparent` for endpoints, and spans in batches. Never blocks: spans wait in a bounded queue, and
//! what finds it full is dropped and counted. Sources: W3C Trace Context (traceparent), OpenTelemetry's `trace.proto` and
//! `trace_service.proto` (of which only what is said here is written down).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::{Connect, host_and_port};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::balance::Dice;
use crate::policy::grpc::{frame, head, status};

const HEADER: &str = "traceparent";
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Spans that wait.
const WAITING_MAX: usize = 8192;
/// Spans of one batch, and how long one waits for others.
const BATCH_MAX: usize = 512;
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// A collector that takes longer is given up.
const SENT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where spans go, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct TracesTo {
    /// host:port of a collector that takes OTLP over gRPC without TLS.
    pub collector: String,
    /// The part of requests of whose trace nobody decided yet, 0 to 1.
    pub sample: f64,
}

/// Begins and ends spans.
pub(crate) struct Traces {
    sample: f64,
    spans: mpsc::Sender<otlp::Span>,
    dropped: IntCounter,
}

/// A span that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    trace: [u8; 16],
    span: [u8; 8],
    parent: Option<[u8; 8]>,
    sampled: bool,
    at_nanos: u64,
}

impl Started {
    /// The trace, as logs name it.
    pub(crate) fn trace(&self) -> String {
        hex(&self.trace)
    }
}

impl Traces {
    /// Begins to send spans to `to`; the second one does until `shutdown`.
    pub(crate) fn start(
        to: &TracesTo,
        connect: Arc<dyn Connect>,
        instance: &str,
        dropped: IntCounter,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (spans, waiting) = mpsc::channel(WAITING_MAX);
        let (collector, instance) = (to.collector.clone(), instance.to_owned());
        let sending = send(waiting, collector, instance, connect, dropped.clone(), shutdown);
        (Self { sample: to.sample, spans, dropped }, sending)
    }

    /// Begins the span of a request, and tells its endpoint.
    pub(crate) fn begin(&self, headers: &mut HeaderMap, dice: &Dice) -> Started {
        let mut given = headers.get_all(HEADER).iter();
        let parent = given.next().filter(|_| given.next().is_none()).and_then(parse);
        let trace = || (u128::from(dice.roll()) << 64 | u128::from(dice.roll()) | 1).to_be_bytes();
        let started = Started {
            trace: parent.map_or_else(trace, |p| p.0),
            span: (dice.roll() | 1).to_be_bytes(),
            parent: parent.map(|p| p.1),
            sampled: parent.map_or_else(|| dice.hits(self.sample), |p| p.2),
            at_nanos: now_nanos(),
        };
        if parent.is_none() {
            // State of a trace that nobody can read belongs to no trace (Trace Context §3.3).
            headers.remove("tracestate");
        }
        let flags = u8::from(started.sampled);
        let said = format!("00-{}-{}-{flags:02x}", hex(&started.trace), hex(&started.span));
        if let Ok(said) = HeaderValue::from_str(&said) {
            headers.insert(HEADER, said);
        }
        started
    }

    /// Ends it.
    pub(crate) fn end(&self, started: &Started, name: String, status: u16, attributes: &[(&str, String)]) {
        if !started.sampled {
            return;
        }
        let mut all: Vec<otlp::KeyValue> = attributes
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| otlp::text(key, value))
            .collect();
        all.push(otlp::number("http.response.status_code", status.into()));
        let span = otlp::Span {
            trace_id: started.trace.to_vec(),
            span_id: started.span.to_vec(),
            parent_span_id: started.parent.map(|p| p.to_vec()).unwrap_or_default(),
            name,
            kind: otlp::SERVER,
            start_time_unix_nano: started.at_nanos,
            end_time_unix_nano: now_nanos(),
            attributes: all,
            status: (status >= 500).then_some(otlp::Status { code: otlp::ERROR }),
        };
        if self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

/// Trace, span, and whether it is recorded.
fn parse(header: &HeaderValue) -> Option<([u8; 16], [u8; 8], bool)> {
    let said = header.to_str().ok()?;
    // "version-format": later versions may say more after the flags.
    let (version, rest) = (said.get(..3)?, said.get(3..)?);
    let lower = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if version == "ff-" || !lower(&version[..2]) || version.as_bytes()[2] != b'-' {
        return None;
    }
    if version == "00-" && rest.len() != 52 || rest.get(52..53).is_some_and(|next| next != "-") {
        return None;
    }
    let (trace, span, flags) = (rest.get(..32)?, rest.get(33..49)?, rest.get(50..52)?);
    let dashes = rest.as_bytes()[32] == b'-' && rest.as_bytes()[49] == b'-';
    if !dashes || ![trace, span, flags].into_iter().all(lower) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|n| *n != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|n| *n != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace.to_be_bytes(), span.to_be_bytes(), flags & 1 == 1))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|b| format!("{b:02x}")).collect()
}

fn now_nanos() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default()
}

/// Sends what waits, in batches. A batch that does not arrive is dropped, and counted.
async fn send(
    mut waiting: mpsc::Receiver<otlp::Span>,
    collector: String,
    instance: String,
    connect: Arc<dyn Connect>,
    dropped: IntCounter,
    shutdown: CancellationToken,
) {
    let (mut failing, mut ended) = (false, false);
    let mut link = Link { connect, collector: collector.clone(), open: None };
    while !ended {
        let mut batch = Vec::new();
        ended = shutdown.run_until_cancelled(waiting.recv_many(&mut batch, BATCH_MAX)).await.is_none_or(|n| n == 0);
        if !ended && batch.len() < BATCH_MAX {
            shutdown.run_until_cancelled(tokio::time::sleep(BATCH_EVERY)).await;
        }
        while batch.len() < BATCH_MAX
            && let Ok(span) = waiting.try_recv()
        {
            batch.push(span);
        }
        if batch.is_empty() {
            continue;
        }
        let many = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let request = otlp::request(&instance, batch);
        let sent = tokio::time::timeout(SENT_WITHIN, link.export(&request));
        match sent.await.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(()) => failing = false,
            Err(why) => {
                dropped.inc_by(many);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(collector, why, "traces not sent");
                }
            }
        }
    }
}

/// The connection to a collector, kept from one batch to the next.
struct Link {
    connect: Arc<dyn Connect>,
    collector: String,
    open: Option<Open>,
}

/// It goes on while something is sent.
struct Open {
    sender: http2::SendRequest<Full<Bytes>>,
    driving: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

/// Why spans were not taken.
enum Failed {
    /// Nobody said anything.
    Lost(String),
    /// The collector says no.
    Refused(String),
}

impl Link {
    async fn export(&mut self, request: &otlp::ExportTraceServiceRequest) -> Result<(), String> {
        let kept = self.open.is_some();
        let message = frame(request);
        let mut said = self.once(message.clone()).await;
        if kept && matches!(said, Err(Failed::Lost(_))) {
            // One that was kept may be closed already.
            said = self.once(message).await;
        }
        said.map_err(|failed| match failed {
            Failed::Lost(why) | Failed::Refused(why) => why,
        })
    }

    async fn once(&mut self, message: Bytes) -> Result<(), Failed> {
        let lost = |e: hyper::Error| Failed::Lost(e.to_string());
        let Open { mut sender, mut driving } = match self.open.take() {
            Some(open) => open,
            None => open(&*self.connect, &self.collector).await.map_err(Failed::Lost)?,
        };
        let mut asked = head(METHOD, Full::new(message));
        let target = format!("http://{}{METHOD}", self.collector).parse();
        *asked.uri_mut() = target.map_err(|_| Failed::Refused("the collector is no host:port".to_owned()))?;
        let call = async {
            sender.ready().await.map_err(lost)?;
            let (head, body) = sender.send_request(asked).await.map_err(lost)?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|e| Failed::Lost(e.to_string()))?;
            match status(&head.headers).or_else(|| body.trailers().and_then(status)) {
                Some("0") => Ok(()),
                status => Err(Failed::Refused(format!("grpc-status {status:?}"))),
            }
        };
        let said = tokio::select! {
            said = call => said,
            ended = &mut driving => {
                return Err(Failed::Lost(format!("the collector closed the connection: {ended:?}")));
            }
        };
        if !matches!(said, Err(Failed::Lost(_))) {
            self.open = Some(Open { sender, driving });
        }
        said
    }
}

async fn open(connect: &dyn Connect, collector: &str) -> Result<Open, String> {
    let (host, port) = host_and_port(collector).ok_or("the collector is no host:port")?;
    let stream = connect.connect(host, port).await.map_err(|e| e.to_string())?;
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|e| e.to_string())?;
    Ok(Open { sender, driving: Box::pin(connection) })
}

/// The messages, as far as they are used.
mod otlp {
    /// SPAN_KIND_SERVER.
    pub(super) const SERVER: i32 = 2;
    /// STATUS_CODE_ERROR.
    pub(super) const ERROR: i32 = 2;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ExportTraceServiceRequest {
        #[prost(message, repeated, tag = "1")]
        pub(super) resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        pub(super) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(super) scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ScopeSpans {
        #[prost(message, repeated, tag = "2")]
        pub(super) spans: Vec<Span>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) span_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        pub(super) name: String,
        #[prost(int32, tag = "6")]
        pub(super) kind: i32,
        #[prost(fixed64, tag = "7")]
        pub(super) start_time_unix_nano: u64,
        #[prost(fixed64, tag = "8")]
        pub(super) end_time_unix_nano: u64,
        #[prost(message, repeated, tag = "9")]
        pub(super) attributes: Vec<KeyValue>,
        #[prost(message, optional, tag = "15")]
        pub(super) status: Option<Status>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Status {
        #[prost(int32, tag = "3")]
        pub(super) code: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<AnyValue>,
    }

    /// One of them is there: on the wire a oneof is no other than that.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct AnyValue {
        #[prost(string, optional, tag = "1")]
        pub(super) string_value: Option<String>,
        #[prost(int64, optional, tag = "3")]
        pub(super) int_value: Option<i64>,
    }

    pub(super) fn text(key: &str, value: &str) -> KeyValue {
        let value = AnyValue { string_value: Some(value.to_owned()), int_value: None };
        KeyValue { key: key.to_owned(), value: Some(value) }
    }

    pub(super) fn number(key: &str, value: i64) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { string_value: None, int_value: Some(value) }) }
    }

    pub(super) fn request(instance: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let attributes = vec![text("service.name", "atoll-gateway"), text("service.instance.id", instance)];
        let (resource, scope_spans) = (Some(Resource { attributes }), vec![ScopeSpans { spans }]);
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans }] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(sample: f64) -> (Traces, mpsc::Receiver<otlp::Span>) {
        let (spans, waiting) = mpsc::channel(1);
        (Traces { sample, spans, dropped: IntCounter::new("dropped", "dropped").unwrap() }, waiting)
    }

    #[test]
    fn a_trace_that_is_one_goes_on_and_any_other_begins_anew() {
        let (traces, dice) = (traces(1.0).0, Dice::new());
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (said, goes_on, sampled) in [
            (format!("00-{trace}-{span}-01"), true, true),
            (format!("00-{trace}-{span}-00"), true, false),
            (format!("cc-{trace}-{span}-01-what the future holds"), true, true),
            (format!("00-{trace}-{span}-01-more"), false, true),
            (format!("ff-{trace}-{span}-01"), false, true),
            (format!("00-{}-{span}-01", "0".repeat(32)), false, true),
            (format!("00-{}-{span}-01", trace.to_uppercase()), false, true),
            ("none".to_owned(), false, true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, said.parse().unwrap());
            headers.insert("tracestate", "a=b".parse().unwrap());
            let started = traces.begin(&mut headers, &dice);
            assert_eq!((started.trace() == trace, started.parent.is_some()), (goes_on, goes_on), "{said}");
            assert_eq!(started.sampled, sampled, "{said}");
            assert_eq!(headers.contains_key("tracestate"), goes_on, "{said}");
            let told = headers[HEADER].to_str().unwrap();
            assert_eq!(told, format!("00-{}-{}-0{}", started.trace(), hex(&started.span), u8::from(sampled)), "{said}");
        }
    }

    #[test]
    fn who_is_not_sampled_is_not_told_of_and_a_full_queue_drops() {
        let (none, mut waiting) = traces(0.0);
        let started = none.begin(&mut HeaderMap::new(), &Dice::new());
        none.end(&started, "GET".to_owned(), 200, &[]);
        assert!(waiting.try_recv().is_err());
        let (all, mut waiting) = traces(1.0);
        let started = all.begin(&mut HeaderMap::new(), &Dice::new());
        for _ in 0..3 {
            all.end(&started, "GET".to_owned(), 503, &[("server.address", "x".to_owned())]);
        }
        assert_eq!(all.dropped.get(), 2);
        let span = waiting.try_recv().unwrap();
        assert_eq!((span.trace_id.len(), span.span_id.len(), span.status), (16, 8, Some(otlp::Status { code: 2 })));
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
}

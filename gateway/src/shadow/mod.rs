//! The same requests at an old ingress and at Atoll, and where their answers differ.
//!
//! ```text
//!   a log ─► record (requests) ─► replay (one after the other, to both) ─► compare ─► differences
//! ```
//!
//! In: requests, two addresses, a connector. Out: [`Report`]. Requests that may change something are left out unless they are asked for.

mod compare;
mod record;

use std::sync::Arc;
use std::time::Duration;

use atoll_reach::Connect;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;

pub use compare::{Answer, Difference, compare};
pub use record::{Record, parse};

/// An answer that takes longer is none.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// So much of a body is compared.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// What came of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How many requests were sent to both.
    pub replayed: usize,
    /// How many were left out, for they might change something.
    pub left_out: usize,
    /// Where the answers differ.
    pub differences: Vec<Difference>,
}

/// Where a side is reached: host and port.
pub type Side = (String, u16);

/// Sends the requests to both sides, in their order, and compares the answers.
pub async fn shadow(
    connect: &Arc<dyn Connect>,
    records: Vec<Record>,
    old: &Side,
    new: &Side,
    unsafe_methods: bool,
) -> Report {
    let all = records.len();
    let safe = |record: &Record| unsafe_methods || matches!(record.method.as_str(), "GET" | "HEAD");
    let records: Vec<Record> = records.into_iter().filter(safe).collect();
    let mut pairs = Vec::with_capacity(records.len());
    for record in &records {
        // Both at once, so that what counts by time counts the same.
        let (before, now) = tokio::join!(ask(connect, old, record), ask(connect, new, record));
        pairs.push((record.clone(), before, now));
    }
    Report { replayed: records.len(), left_out: all - records.len(), differences: compare(&pairs, old.1, new.1) }
}

async fn ask(connect: &Arc<dyn Connect>, side: &Side, record: &Record) -> Answer {
    match tokio::time::timeout(ANSWER_MAX, answer(connect, side, record)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => Answer { failed: Some(why), ..Answer::default() },
        Err(_) => Answer { failed: Some("no answer in time".to_owned()), ..Answer::default() },
    }
}

async fn answer(connect: &Arc<dyn Connect>, (host, port): &Side, record: &Record) -> Result<Answer, String> {
    let stream = connect.connect(host, *port).await.map_err(|e| format!("connect: {e}"))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let mut request =
        Request::builder().method(record.method.as_str()).uri(&record.target).header("host", &record.host);
    for (name, value) in &record.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(record.body.clone()))).map_err(|e| e.to_string())?;
    let asked = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await.map_err(|e| e.to_string())?.to_bytes();
        let headers = head
            .headers
            .iter()
            .map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()));
        Ok(Answer { failed: None, status: head.status.as_u16(), headers: headers.collect(), body: body.to_vec() })
    };
    // The connection goes on while its answer is read, and ends with it.
    let mut asked = std::pin::pin!(asked);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = &mut asked => answer,
        _ = &mut connection => asked.await,
    }
}

//! Copies of requests for RequestMirror: sent beside the request itself, their answers thrown away.
//!
//! A body is copied where it is short; a request with a longer one is not mirrored, and goes on untouched. So it does where too many copies
//! are under way already.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::forward::{Ask, Forward, Trace};
use super::refusal::Refusal;
use super::upload::{Payload, Upload};
use crate::filter::Mirror;
use crate::progress::Alarm;
use crate::table::{Backend, Rule};

/// The longest body that is copied.
const BODY_BYTES_MAX: u64 = 64 * 1024;
/// Copies of one request.
const COPIES_MAX: usize = 4;
/// So long a copy may take, its answer included.
const COPY_MAX: Duration = Duration::from_secs(30);

/// Starts the copies that the rule asks for, and gives the body for the request itself.
pub(super) async fn copies(
    forward: &Forward<'_>,
    rule: &Rule,
    backend: &Backend,
    head: &Parts,
    upload: Upload,
) -> Result<Payload, Refusal> {
    let asked = rule.filters.iter().chain(&backend.filters).filter_map(|f| f.mirror());
    let drawn = asked.filter(|m| forward.plane.dice.below(m.of as usize) < m.copies as usize);
    let drawn: Vec<Mirror> = drawn.take(COPIES_MAX).collect();
    let short = upload.size_hint().upper().is_some_and(|n| n <= BODY_BYTES_MAX);
    // What may be sent again must still be there.
    let again = forward.retry.is_some() && !upload.is_end_stream();
    if drawn.is_empty() && !again || !short {
        return Ok(Payload::new(upload));
    }
    let fate = upload.fate();
    let broken = |_| fate.refusal().unwrap_or_else(|| Refusal::bad("the body of the request is broken"));
    let bytes = upload.collect().await.map_err(broken)?.to_bytes();
    for mirror in drawn {
        start(forward, mirror, head, Payload::Whole(bytes.clone()));
    }
    Ok(Payload::Whole(bytes))
}

fn start(forward: &Forward<'_>, mirror: Mirror, head: &Parts, payload: Payload) {
    let (plane, snapshot) = (Arc::clone(forward.plane), Arc::clone(forward.snapshot));
    let Ok(permit) = Arc::clone(&plane.copies).try_acquire_owned() else {
        plane.metrics.copies_dropped.inc();
        return;
    };
    let (host, standing, place, ends) =
        (forward.host.to_owned(), forward.standing.clone(), forward.place, forward.ends);
    let (mut head, timeout) = (head.clone(), forward.request_timeout);
    // What is said to a copy is nothing to the client.
    head.extensions.clear();
    let (tracker, end) = (plane.tracker.clone(), plane.end.clone());
    let copy = async move {
        let forward = Forward {
            plane: &plane,
            snapshot: &snapshot,
            upstream: mirror.upstream,
            host: &host,
            standing: &standing,
            place,
            ends,
            request_timeout: timeout,
            backend_timeout: None,
            retry: None,
            session: None,
            key: None,
        };
        if let Ok(answer) = forward.run(Ask::Whole(&head), payload, &mut Trace::default(), &mut Alarm::default()).await
        {
            // Reading it to its end lets the connection be used again.
            let mut body = answer.into_response(None).into_body();
            while let Some(Ok(_)) = body.frame().await {}
        }
    };
    tracker.spawn(async move {
        end.run_until_cancelled(tokio::time::timeout(COPY_MAX, copy)).await;
        drop(permit);
    });
}

//! A request that goes on behind an answer that its client has already: what a cache asks anew meanwhile (RFC 5861 §3).
//!
//! It passes the guards that its like had not passed, the route's filters, and an endpoint; its answer goes back to the guard alone. Bounded in
//! number, as copies for mirrors are, and in time.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;

use super::answer::routed;
use super::body::Reply;
use super::forward::Trace;
use super::upload::{FromClient, Upload};
use crate::filter::Matched;
use crate::policy::process::attributes::Left;
use crate::policy::{self, Asked, Behind, Chain, pass};

/// It takes no longer, body and all.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Begins what a guard left to be asked, if anything.
pub(super) fn begin(asked: &mut Asked<'_>, chain: &Arc<Chain>, matched: &Matched<'_>) {
    let Some(Behind { mut head, back, next }) = asked.behind.take() else { return };
    let (plane, snapshot, rule) = (Arc::clone(asked.plane), Arc::clone(asked.snapshot), Arc::clone(asked.rule));
    let Ok(permit) = Arc::clone(&plane.copies).try_acquire_owned() else { return };
    let (chain, host, user) = (Arc::clone(chain), asked.host.to_owned(), asked.user.clone());
    let (ends, tls, authorized) = (asked.ends, asked.tls, asked.authorized);
    let certificate = asked.certificate.cloned();
    let (prefix, scheme, port) = (matched.prefix.map(str::to_owned), matched.scheme, matched.port);
    let (tracker, end) = (plane.tracker.clone(), plane.end.clone());
    let asks = async move {
        let _permit = permit;
        let mut body = Upload::new(&plane, FromClient::Nothing, false);
        let mut asked = Asked {
            plane: &plane,
            snapshot: &snapshot,
            head: &mut head,
            body: &mut body,
            ends,
            tls,
            certificate: certificate.as_ref(),
            host: &host,
            route: &rule.route,
            rule: &rule,
            authorized,
            user,
            left: Left::default(),
            backs: vec![back],
            behind: None,
        };
        let matched = Matched { prefix: prefix.as_deref(), scheme, host: &host, port };
        let answer = match pass(&chain.guards[next..], &mut asked).await {
            Some(answer) => answer.map(Reply::own),
            None => {
                let answered = routed(&rule, &mut asked, &matched, None, &mut Trace::default()).await;
                answered.unwrap_or_else(|refusal| refusal.answer())
            }
        };
        let mut answer = policy::back(asked.backs, answer).await;
        while let Some(Ok(_)) = answer.body_mut().frame().await {}
    };
    tracker.spawn(async move { end.run_until_cancelled(tokio::time::timeout(TIME_MAX, Box::pin(asks))).await });
}

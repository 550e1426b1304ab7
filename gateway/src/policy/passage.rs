//! One request on its way through guards, and its answer on the way back.
//!
//! In: a head as endpoints get it, its body, who asks. Out: the head and body as the guards left them, or an answer; and on the way back what
//! the guards do to answers, the last first. A guard's own answer passes those before it.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use atoll_reach::proxy::Ends;
use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode, response};

use super::carried::{Carried, whole};
use super::process::attributes::Left;
use crate::filter::Guard;
use crate::http::{Reply, Upload};
use crate::plane::{Plane, Snapshot};
use crate::table::Rule;
use crate::tls::Shown;

/// A request that guards look at.
pub(crate) struct Asked<'a> {
    pub(crate) plane: &'a Arc<Plane>,
    pub(crate) snapshot: &'a Arc<Snapshot>,
    pub(crate) head: &'a mut Parts,
    pub(crate) body: &'a mut Upload,
    /// Of the client's connection, with its address as everything else uses it.
    pub(crate) ends: Ends,
    pub(crate) tls: bool,
    /// The certificate that the client showed.
    pub(crate) certificate: Option<&'a Shown>,
    /// The host asked for.
    pub(crate) host: &'a str,
    /// kind namespace/name of the route.
    pub(crate) route: &'a Arc<str>,
    /// Who answers.
    pub(crate) rule: &'a Arc<Rule>,
    /// It said who asks, or somebody was asked whether it may pass.
    pub(crate) authorized: bool,
    /// Who it was found to be.
    pub(crate) user: Option<String>,
    /// What guards leave for those after them.
    pub(crate) left: Left,
    /// What is done on the way back.
    pub(crate) backs: Vec<Box<dyn Back>>,
    /// What is asked of the backend once the client has its answer.
    pub(crate) behind: Option<Behind>,
}

impl Asked<'_> {
    /// The client's address.
    pub(crate) fn client(&self) -> IpAddr {
        self.ends.client.ip()
    }
}

/// A request that goes on where a guard answered its like.
pub(crate) struct Behind {
    pub(crate) head: Parts,
    /// What is done with its answer.
    pub(crate) back: Box<dyn Back>,
    /// The first guard that it has not passed.
    pub(crate) next: usize,
}

/// What is done with an answer.
#[async_trait]
pub(crate) trait Back: Send {
    /// Changes the head, and gives the body as it goes on.
    async fn answer(self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried;
}

/// Sends a request through guards, until one answers.
pub(crate) async fn pass(guards: &[Arc<dyn Guard>], asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
    for (at, guard) in guards.iter().enumerate() {
        if let Some(answer) = guard.request(asked).await {
            asked.behind.iter_mut().for_each(|behind| behind.next = at + 1);
            guards[at + 1..].iter().for_each(|guard| guard.missed(asked));
            return Some(answer);
        }
    }
    None
}

/// Sends an answer back.
pub(crate) async fn back(backs: Vec<Box<dyn Back>>, response: Response<Reply>) -> Response<Reply> {
    if backs.is_empty() {
        return response;
    }
    let (mut head, reply) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // There is no body: what follows is no HTTP, and nobody looks into it.
        for back in backs.into_iter().rev() {
            drop(back.answer(&mut head, whole(Bytes::new())).await);
        }
        return Response::from_parts(head, reply);
    }
    let mut body: Carried = Box::pin(reply);
    for back in backs.into_iter().rev() {
        body = back.answer(&mut head, body).await;
    }
    Response::from_parts(head, Reply::carried(body))
}

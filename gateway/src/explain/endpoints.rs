//! What is known of one endpoint: whether it takes requests, and if not, why and until when; what its policy lets it have.
//!
//! In: an endpoint as an upstream has it. Reads what requests read. Changes nothing.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use atoll_api::health::Check;
use atoll_api::kinds::CheckProtocol;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::endpoint::LiveEndpoint;
use crate::health::{Care, EndpointState};
use crate::plane::Plane;

/// An endpoint with all that decides whether it takes the next request.
pub(crate) fn endpoint(plane: &Plane, live: &LiveEndpoint) -> Value {
    let (endpoint, now, heeded) = (&live.endpoint, Instant::now(), plane.health.heeds());
    let (care, in_flight) = (endpoint.care(), endpoint.in_flight.load(Ordering::Relaxed));
    let (way, idle) = (plane.pool.way(endpoint).to_string(), endpoint.idle.len());
    let state = endpoint.state();
    let usable = state.is_usable(now) && !(heeded && live.failing);
    let mut said = json!({
        "address": SocketAddr::new(endpoint.address.ip, endpoint.address.port).to_string(),
        "pod": live.pod, "zone": live.zone, "way": way,
        "usable": usable, "probe": if state.is_up() { "up" } else { "down" },
        "inFlight": in_flight, "idle": idle,
    });
    let why = whys(live, &state, &care, heeded, now);
    if !why.is_empty() {
        said["why"] = why.into();
    }
    if care.requests_max < usize::MAX {
        said["circuitBreaker"] =
            json!({"requestsMax": care.requests_max, "inFlight": in_flight, "full": in_flight >= care.requests_max});
    }
    if let Some(until) = state.ejected_until(now) {
        let left = SignedDuration::try_from(until.duration_since(now)).unwrap_or_default();
        let until = Timestamp::now().checked_add(left).map(|at| at.round(jiff::Unit::Second).unwrap_or(at));
        said["ejected"] = json!({"until": until.map(|at| at.to_string()).ok(), "why": state.ejected_for()});
    }
    let ease = state.ease(care.slow_start, now);
    if !care.slow_start.is_zero() && ease < 1.0 {
        said["slowStart"] = json!({"part": (ease * 100.0).round() / 100.0, "whole": format!("{:?}", care.slow_start)});
    }
    if let Some(check) = &care.check {
        let word = |well| if well { "passes" } else { "fails" };
        said["healthCheck"] = json!({"check": written(check, endpoint.address.port), "here": word(state.is_up()), "hub": word(!live.failing)});
    }
    said
}

/// Why it takes no requests, or is asked after others.
fn whys(live: &LiveEndpoint, state: &EndpointState, care: &Care, heeded: bool, now: Instant) -> Vec<String> {
    let check = care.check.as_ref().map(|check| written(check, live.endpoint.address.port));
    let mut why = Vec::new();
    if live.failing {
        let counts = if heeded { "" } else { "; the hub is silent, so that does not count" };
        let check = check.as_deref().unwrap_or("its health check");
        why.push(format!("{check} fails, as the DNS servers find{counts}"));
    }
    if !state.is_up() {
        why.push(format!("{} fails from here", check.as_deref().unwrap_or("a connection")));
    }
    if state.is_ejected(now) {
        why.push(format!("ejected: {}", state.ejected_for()));
    } else if state.is_failing() && state.is_up() {
        why.push("its last request failed".to_owned());
    }
    why
}

/// A check as people say it.
fn written(check: &Check, port: u16) -> String {
    let port = check.port.unwrap_or(port);
    match check.protocol {
        CheckProtocol::TCP => format!("TCP at port {port}"),
        CheckProtocol::GRPC => format!("GRPC `{}` at port {port}", check.service),
        CheckProtocol::HTTP | CheckProtocol::HTTPS => format!("{:?} {} at port {port}", check.protocol, check.path),
    }
}

//! The admin port: is it alive, is it ready, what does it count, how would it decide.
//!
//! `GET /healthz /readyz /metrics /dns/explain?name=&type=&from=&ecs= /gateway/explain?host=&path=&from=
//! /gateway/{routes,upstreams,connections,config}`. Plain HTTP that asks for
//! nothing: loopback, or inside the cluster. Never changes anything.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use atoll_reach::{Accept, serve_http};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::telemetry::Metrics;

/// A handle that comes and goes with its part.
pub(crate) type Slot<T> = Arc<ArcSwapOption<T>>;

/// Says whether something is ready, by name.
pub(crate) type Check = Box<dyn Fn() -> bool + Send + Sync>;

/// What the port shows. Absent parts are those that this process does not run.
#[derive(Default)]
pub(crate) struct Admin {
    pub(crate) metrics: Metrics,
    pub(crate) checks: Vec<(&'static str, Check)>,
    pub(crate) dns: Option<Slot<atoll_dns::Server>>,
    pub(crate) gateway: Option<Slot<atoll_gateway::Server>>,
}

/// Probes, scrapes and people; a quarter of them from one address.
const CONNECTIONS_MAX: usize = 256;

/// Serves until `shutdown`.
///
/// # Errors
/// None; as a part's.
pub(crate) async fn serve(
    mut listener: Box<dyn Accept>,
    admin: Admin,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/dns/explain", get(dns))
        .route("/gateway/explain", get(gateway))
        .route("/gateway/routes", get(async |admin: State<Arc<Admin>>| view(admin, atoll_gateway::Server::routes)))
        .route(
            "/gateway/upstreams",
            get(async |admin: State<Arc<Admin>>| view(admin, atoll_gateway::Server::upstreams)),
        )
        .route(
            "/gateway/connections",
            get(async |admin: State<Arc<Admin>>| view(admin, atoll_gateway::Server::connections)),
        )
        .route("/gateway/config", get(async |admin: State<Arc<Admin>>| view(admin, atoll_gateway::Server::config)))
        .with_state(Arc::new(admin));
    serve_http(&mut *listener, None, router, CONNECTIONS_MAX, shutdown).await;
    Ok(())
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let checks: Vec<(&str, bool)> = admin.checks.iter().map(|(name, check)| (*name, check())).collect();
    let lines: String = checks
        .iter()
        .map(|(name, ready)| format!("{name}: {}\n", if *ready { "ready" } else { "not ready" }))
        .collect();
    let ready = checks.iter().all(|(_, ready)| *ready);
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], admin.metrics.text()).into_response()
}

#[derive(Deserialize)]
struct DnsQuestion {
    name: String,
    #[serde(rename = "type", default = "address")]
    qtype: String,
    from: Option<String>,
    ecs: Option<IpNet>,
}

fn address() -> String {
    "A".into()
}

async fn dns(State(admin): State<Arc<Admin>>, Query(q): Query<DnsQuestion>) -> Response {
    match part("DNS server", admin.dns.as_ref()) {
        Ok(server) => {
            let ask = atoll_dns::Ask { name: q.name, qtype: q.qtype, from: q.from, ecs: q.ecs };
            Json(server.explain(ask).await).into_response()
        }
        Err(refused) => refused.into_response(),
    }
}

#[derive(Deserialize)]
struct GatewayQuestion {
    host: String,
    #[serde(default = "root")]
    path: String,
    from: Option<String>,
}

fn root() -> String {
    "/".into()
}

async fn gateway(State(admin): State<Arc<Admin>>, Query(q): Query<GatewayQuestion>) -> Response {
    match part("gateway", admin.gateway.as_ref()) {
        Ok(server) => Json(server.explain(&q.host, &q.path, q.from.as_deref()).await).into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// One view of the gateway.
fn view(State(admin): State<Arc<Admin>>, of: fn(&atoll_gateway::Server) -> Value) -> Response {
    match part("gateway", admin.gateway.as_ref()) {
        Ok(server) => Json(of(&server)).into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// The part's handle, or why there is none.
fn part<T>(what: &str, slot: Option<&Slot<T>>) -> Result<Arc<T>, (StatusCode, Json<Value>)> {
    let refuse = |status: StatusCode, why: String| (status, Json(json!({"error": why})));
    let slot = slot.ok_or_else(|| refuse(StatusCode::NOT_FOUND, format!("no {what} runs in this process")))?;
    slot.load_full().ok_or_else(|| refuse(StatusCode::SERVICE_UNAVAILABLE, format!("the {what} does not run now")))
}

//! Who speaks Envoy's protocols: Open Policy Agent judges requests, a processor in go-control-plane's types changes them.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::shop::Shop;
use crate::stage::free_port;
use crate::world::until;

const POLICY: &str = r#"package envoy.authz

default allow := {"allowed": false, "http_status": 402, "headers": {"x-why": "not-anna"}, "body": "pay first"}

http := input.attributes.request.http

allow := {
    "allowed": true,
    "headers": {"x-judged": sprintf("%s %s %s", [http.method, http.path, http.host])},
    "request_headers_to_remove": ["x-user"],
    "response_headers_to_add": {"x-opa": "yes"},
} if http.headers["x-user"] == "anna"
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs programs of the testbed's: ./check has a step for it"]
async fn open_policy_agent_judges_requests() -> Result<()> {
    let mut shop = Shop::open().await?;
    let policy = shop.stage.place.file("policy.rego", POLICY)?;
    let port = free_port()?;
    let words = [
        "run".to_owned(),
        "--server".to_owned(),
        format!("--addr=127.0.0.1:{}", free_port()?),
        "--disable-telemetry".to_owned(),
        format!("--set=plugins.envoy_ext_authz_grpc.addr=127.0.0.1:{port}"),
        "--set=plugins.envoy_ext_authz_grpc.path=envoy/authz/allow".to_owned(),
        policy.display().to_string(),
    ];
    let at = shop.start("opa", port, &words).await?;
    shop.service("opa", at, Some("kubernetes.io/h2c")).await?;
    let judged = async |case: &str| {
        until(case, async || {
            let page = shop.browse(&["/cart", "--header", "x-user: bert"]).await?;
            ensure!(page.status == 402 && page.body == "pay first", "{page:?}");
            ensure!(page.head.contains("x-why: not-anna"), "{page:?}");
            Ok(())
        })
        .await;
        let page = shop.browse(&["/cart?item=7", "--header", "x-user: anna"]).await?;
        ensure!(page.status == 200 && page.head.contains("x-opa: yes"), "{case}: {page:?}");
        let body = page.body.to_lowercase();
        ensure!(body.contains("x-judged: get /cart?item=7 shop.test") && !body.contains("x-user"), "{case}: {page:?}");
        Ok(())
    };
    shop.policy(json!([{"filter": "extAuthz", "backendRef": {"name": "opa", "port": 80}}])).await?;
    judged("by the policy's filter").await?;
    shop.policy(json!([{"filter": "hsts", "maxAgeSeconds": 1}])).await?;
    until("nobody judges", async || {
        ensure!(shop.browse(&["/"]).await?.status == 200);
        Ok(())
    })
    .await;
    let asks = json!({"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC", "backendRef": {"name": "opa", "port": 80},
        "grpc": {"allowedHeaders": ["x-user"]}}});
    shop.route(json!([{"filters": [asks], "backendRefs": [{"name": "web", "port": 80}]}])).await?;
    judged("by the route's filter").await?;
    shop.close().await
}

/// The body that a backend read, which shows what it read: without its chunks, where it came in some (RFC 9112 §7.1).
fn read(shown: &str) -> String {
    let chunks = shown.split_once("transfer-encoding: chunked\r\n\r\n");
    chunks.map_or_else(|| shown.to_owned(), |(_, chunks)| chunks.split("\r\n").skip(1).step_by(2).collect())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs programs of the testbed's: ./check has a step for it"]
async fn a_processor_of_envoys_own_types_changes_requests_and_answers() -> Result<()> {
    let mut shop = Shop::open().await?;
    let port = free_port()?;
    let at = shop.start("processor", port, &[format!("-listen=127.0.0.1:{port}")]).await?;
    shop.service("processor", at, Some("kubernetes.io/h2c")).await?;
    for mode in ["Buffered", "Streamed", "BufferedPartial", "FullDuplexStreamed"] {
        shop.policy(json!([{"filter": "extProc", "backendRef": {"name": "processor", "port": 80},
            "requestBodyMode": mode, "responseBodyMode": mode, "requestAttributes": ["request.path", "source.address"],
            "responseAttributes": ["response.code"], "receiveMetadata": ["shop"], "forwardMetadata": ["shop"]}]))
            .await?;
        until("it is asked", async || {
            let page = shop.browse(&["/"]).await?;
            ensure!(page.status == 200 && page.head.contains("x-processed: yes"), "{page:?}");
            Ok(())
        })
        .await;
        let page = shop.browse(&["/cart?item=7", "--data", "hello"]).await?;
        ensure!(page.body.contains("x-seen: POST http shop.test /cart?item=7"), "{mode}: {page:?}");
        ensure!(read(&page.body).contains("HELLO"), "{mode}: {page:?}");
        ensure!(page.body.contains("x-attributes: /cart?item=7 127.0.0.1"), "{mode}: {page:?}");
        ensure!(page.head.contains("x-metadata: full") && page.head.contains("x-code: 200"), "{mode}: {page:?}");
        let page = shop.browse(&["/refused"]).await?;
        ensure!(page.status == 402 && page.body == "pay first", "{mode}: {page:?}");
        ensure!(page.head.contains("x-processed: refused"), "{mode}: {page:?}");
    }
    // Of a longer body the beginning alone is shown.
    shop.policy(json!([{"filter": "extProc", "backendRef": {"name": "processor", "port": 80}, "requestBodyMode": "BufferedPartial",
        "bufferBytesMax": 4}]))
        .await?;
    until("the rest goes on as it is", async || {
        let page = shop.browse(&["/cart", "--data", "hello"]).await?;
        ensure!(read(&page.body) == "HELLo", "{page:?}");
        Ok(())
    })
    .await;
    shop.close().await
}

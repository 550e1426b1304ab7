//! Asks an admin port: one GET, JSON back.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::failure::{Failure, Outcome, root_cause};

const ANSWER_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// `path` with `query` at the admin port `address`.
///
/// # Errors
/// Nobody answers, or the answer is a refusal.
pub(crate) async fn get(address: &str, path: &str, query: &[(&str, Option<&str>)]) -> Outcome<Value> {
    let pairs = query.iter().filter_map(|(key, value)| Some(format!("{key}={}", escape((*value)?))));
    let uri = format!("http://{address}{path}?{}", pairs.collect::<Vec<_>>().join("&"));
    let (status, body) = fetch(&uri).await?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if status != 200 {
        return Err(Failure::failed(format!("{address}{path}: {status} {}", text.trim())));
    }
    serde_json::from_str(&text).map_err(|e| Failure::failed(format!("{address}{path}: not JSON: {e}")))
}

/// Status and body of a GET without redirects.
///
/// # Errors
/// Nobody answers in time.
pub(crate) async fn fetch(uri: &str) -> Outcome<(u16, Bytes)> {
    let parsed: http::Uri = uri.parse().map_err(|e| Failure::usage(format!("`{uri}`: {e}")))?;
    let at = parsed.authority().map(ToString::to_string).unwrap_or_default();
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(ANSWER_MAX / 2));
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let exchange = async {
        let response = client.get(parsed).await.map_err(|e| root_cause(&e))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| e.to_string())?;
        Ok::<_, String>((status, body.to_bytes()))
    };
    match tokio::time::timeout(ANSWER_MAX, exchange).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(why)) => Err(Failure::unreachable(format!("{at}: {why}"))),
        Err(_) => Err(Failure::unreachable(format!("{at}: no answer within {} s", ANSWER_MAX.as_secs()))),
    }
}

fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_query_is_escaped() {
        assert_eq!(super::escape("/a b?&é"), "%2Fa%20b%3F%26%C3%A9");
    }
}

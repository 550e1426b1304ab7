//! `latency`: by measured round-trip time. Refused until somebody measures it: a guess would look like a fact.

use serde_json::{Map, Value};

use super::policy::{Parsed, bad};

pub(super) fn parse(_: &Map<String, Value>) -> Parsed {
    Err(bad("latency", "round-trip times are not measured yet; use nearest, which goes by region and distance"))
}

//! OpenAPI v3: an index, and a document per group and version that is made when asked for and not kept.
//! v2 is an empty document: kubectl has asked for v3 first since 1.27, and for v2 only about kinds that v3 does not know. Without an
//! answer it complains about that instead of the kind.

mod document;

use std::{fmt::Write as _, sync::Arc};

use http::{HeaderMap, header};
use serde_json::{Map, Value, json};

use crate::{
    http::Reply,
    kinds::{Kinds, Source},
    refusal::Refusal,
    server::Inner,
};

/// Answers a path below /openapi; none for other paths.
pub(crate) fn serve(server: &Arc<Inner>, path: &str, headers: &HeaderMap) -> Option<Result<Reply, Refusal>> {
    if path == "/openapi/v2" {
        return Some(Ok(empty_v2(headers)));
    }
    let rest = path.strip_prefix("/openapi/v3").or_else(|| path.strip_prefix("/openapi").map(|_| "?"))?;
    let kinds = server.kinds();
    Some(match rest.trim_matches('/') {
        "" => Ok(Reply::json(200, &index(&kinds))),
        place => one(&kinds, place, headers).ok_or_else(Refusal::no_such_path),
    })
}

/// Swagger 2.0 without a path, in the form that is asked for.
fn empty_v2(headers: &HeaderMap) -> Reply {
    let asked = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if asked.contains("proto-openapi.spec.v2") {
        // gnostic's openapi.v2.Document: swagger is field 1, info field 2 with title 1 and version 2.
        let document: &[u8] = b"\x0a\x032.0\x12\x0b\x0a\x05Atoll\x12\x02v1";
        let content = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        return Reply { content, ..Reply::bytes(200, bytes::Bytes::from_static(document)) };
    }
    Reply::json(200, &json!({"swagger": "2.0", "info": {"title": "Atoll", "version": "v1"}, "paths": {}}))
}

/// `api/v1`, `apis/apps/v1`.
fn place_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn index(kinds: &Kinds) -> Value {
    let mut paths = Map::new();
    for (group, versions) in kinds.groups() {
        for version in versions {
            let place = place_of(&group, &version);
            let hash = hash(kinds, &group, &version);
            paths.insert(place.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{place}?hash={hash}")}));
        }
    }
    json!({"paths": paths})
}

fn one(kinds: &Kinds, place: &str, headers: &HeaderMap) -> Option<Reply> {
    for (group, versions) in kinds.groups() {
        if let Some(version) = versions.iter().find(|version| place_of(&group, version) == place) {
            let etag = format!("\"{}\"", hash(kinds, &group, version));
            let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(&etag);
            let mut reply = if known {
                Reply::bytes(304, bytes::Bytes::new())
            } else {
                Reply::json(200, &document::document(kinds, &group, version))
            };
            reply.etag = Some(etag);
            return Some(reply);
        }
    }
    None
}

/// Changes when the document does.
fn hash(kinds: &Kinds, group: &str, version: &str) -> String {
    let mut text = format!("{} {group} {version}", env!("CARGO_PKG_VERSION"));
    for resource in kinds.all.iter().filter(|r| *r.group == *group && *r.version == *version) {
        if let Source::Custom(custom) = &resource.source {
            // Writing to a String can't fail.
            let _ = write!(text, " {} {}", resource.plural, custom.revision());
        }
    }
    format!("{:08X}{:08X}", crc32fast::hash(text.as_bytes()), text.len())
}

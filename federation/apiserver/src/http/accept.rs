//! In which form a client wants objects. In: the Accept header; out: a view. Plain JSON is always possible.

use http::{HeaderMap, header};

/// The form of objects in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// As they are.
    Full,
    /// apiVersion, kind and metadata only.
    Metadata,
    /// Rows for `kubectl get`.
    Table,
}

impl View {
    /// The first form in the header that is known.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        media(headers)
            .find_map(|one| {
                if !one.starts_with("application/json") {
                    return None;
                }
                match param(one, "as") {
                    None => Some(Self::Full),
                    Some("Table") => Some(Self::Table),
                    Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Self::Metadata),
                    Some(_) => None,
                }
            })
            .unwrap_or(Self::Full)
    }
}

/// The media ranges of the Accept header, in order.
pub(crate) fn media(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// A parameter of a media range.
pub(crate) fn param<'a>(media: &'a str, key: &str) -> Option<&'a str> {
    media.split(';').skip(1).filter_map(|pair| pair.trim().split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v)
}

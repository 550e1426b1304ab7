//! Durations as people write them in objects: `30s`, `10m`, `1h30m`, `250ms`.
//!
//! The grammar is Go's for the units h, m, s, ms (the one the Gateway API uses, GEP-2257); no sign, no fraction.

use std::time::Duration;

/// Why a duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("duration `{0}`: write it like 30s, 10m, 1h30m or 250ms")]
pub struct BadDuration(pub String);

/// Parses `text`, for example `1h30m`.
///
/// # Errors
/// When `text` is empty, has an unknown unit, no unit, or overflows. The writer is at fault; a retry does not help.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    let bad = || BadDuration(text.to_owned());
    let mut rest = text;
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let n: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let ms = match &rest[..unit] {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return Err(bad()),
        };
        rest = &rest[unit..];
        total_ms = n.checked_mul(ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(bad)?;
    }
    Ok(Duration::from_millis(total_ms))
}

//! The access log: one line of JSON a request, with the fields that were chosen.
//!
//! In: what became of a request. Out: lines to a writer that somebody else opened. Never blocks: lines wait in a bounded queue for a thread of
//! their own, and what finds it full is dropped and counted.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use prometheus::IntCounter;
use serde_json::{Map, Value};

/// Lines that wait to be written.
const WAITING_MAX: usize = 16_384;
/// Lines that are written at once.
const BATCH_MAX: usize = 512;

/// The fields there are, in the order in which they stand in a line.
pub const ACCESS_FIELDS: &[&str] = &[
    "time", "client", "listener", "host", "method", "path", "protocol", "status", "ms", "route", "cluster", "endpoint",
    "attempts", "failed", "why", "trace",
];

/// Writes lines. Clones write the same log.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// Whether each of [`ACCESS_FIELDS`] is wanted.
    wanted: Vec<bool>,
    lines: SyncSender<Vec<u8>>,
    dropped: IntCounter,
}

impl Access {
    /// Begins to write to `writer`; no fields: all. The thread ends with the last clone.
    pub(crate) fn start(writer: Box<dyn Write + Send>, fields: &[String], dropped: IntCounter) -> Self {
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let wanted = ACCESS_FIELDS.iter().map(|f| fields.is_empty() || fields.iter().any(|w| w == f)).collect();
        let spawned = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(writer, &waiting));
        if let Err(error) = spawned {
            tracing::error!(%error, "no access log");
        }
        Self { wanted, lines, dropped }
    }

    /// Writes a line of the fields that are wanted. `value` gives each; nothing: it is left out.
    pub(crate) fn line(&self, value: impl Fn(&str) -> Option<Value>) {
        let wanted = ACCESS_FIELDS.iter().zip(&self.wanted).filter(|(_, wanted)| **wanted);
        let fields: Map<String, Value> =
            wanted.filter_map(|(field, _)| Some(((*field).to_owned(), value(field)?))).collect();
        let Ok(mut line) = serde_json::to_vec(&fields) else { return };
        line.push(b'\n');
        if self.lines.try_send(line).is_err() {
            self.dropped.inc();
        }
    }
}

/// Writes what comes, many lines at once where many wait.
fn write(mut writer: Box<dyn Write + Send>, waiting: &Receiver<Vec<u8>>) {
    let mut failing = false;
    while let Ok(mut batch) = waiting.recv() {
        batch.extend(waiting.try_iter().take(BATCH_MAX).flatten());
        match writer.write_all(&batch).and_then(|()| writer.flush()) {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "access log not written");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Hands on what is written.
    struct Kept(SyncSender<Vec<u8>>);

    impl Write for Kept {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(octets.to_vec());
            Ok(octets.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Stands still until it is let go.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(octets.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn counter() -> IntCounter {
        IntCounter::new("dropped", "dropped").unwrap()
    }

    #[test]
    fn a_line_has_the_fields_that_are_wanted_and_known() {
        for (fields, expected) in [
            (vec!["status", "route"], json(&[("status", 200.into()), ("route", "r".into())])),
            (vec!["status", "why"], json(&[("status", 200.into())])),
        ] {
            let (kept, written) = sync_channel(4);
            let fields: Vec<String> = fields.into_iter().map(str::to_owned).collect();
            let access = Access::start(Box::new(Kept(kept)), &fields, counter());
            access.line(|field| match field {
                "status" => Some(200.into()),
                "why" => None,
                _ => Some("r".into()),
            });
            let line = written.recv_timeout(Duration::from_secs(10)).unwrap();
            let written: Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(written, expected);
        }
    }

    fn json(fields: &[(&str, Value)]) -> Value {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<Map<_, _>>().into()
    }

    #[test]
    fn a_log_that_stands_still_stops_nobody_and_drops_are_counted() {
        let (let_go, stuck) = sync_channel(1);
        let dropped = counter();
        let access = Access::start(Box::new(Stuck(stuck)), &[], dropped.clone());
        for _ in 0..WAITING_MAX * 2 {
            access.line(|_| Some("x".into()));
        }
        assert!(dropped.get() >= u64::try_from(WAITING_MAX - BATCH_MAX - 1).unwrap(), "{}", dropped.get());
        drop(let_go);
    }
}

//! The access log: one line of JSON a request, with the fields that were chosen.
//!
//! In: what became of a request. Out: lines to a writer that somebody else opened. Never blocks: lines wait in a bounded queue for a thread of
//! their own, and what finds it full, or can't be written, is dropped and counted. After a line that was cut the next begins anew.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
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

/// What is logged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessLog {
    /// The file; `-`: stdout.
    pub path: PathBuf,
    /// The fields of a line, of [`ACCESS_FIELDS`]; empty: all.
    pub fields: Vec<String>,
}

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
        let lost = dropped.clone();
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        let spawned = thread.spawn(move || write(writer, &waiting, &lost));
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

/// Writes what comes, many lines at once where many wait. `lost` counts those that could not be written whole.
fn write(mut writer: Box<dyn Write + Send>, waiting: &Receiver<Vec<u8>>, lost: &IntCounter) {
    let (mut failing, mut torn) = (false, false);
    while let Ok(first) = waiting.recv() {
        let mut batch = if torn { vec![b'\n'] } else { Vec::new() };
        batch.extend(first);
        batch.extend(waiting.try_iter().take(BATCH_MAX).flatten());
        let (written, ended) = written(&mut writer, &batch);
        if written > 0 {
            torn = batch[written - 1] != b'\n';
        }
        let left = batch[written..].iter().filter(|octet| **octet == b'\n').count();
        // The first of them may be but the end of a line that was cut.
        lost.inc_by((left - usize::from(left > 0 && written == 0 && batch[0] == b'\n')) as u64);
        match ended {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "access log not written");
            }
            Err(_) => {}
        }
    }
}

/// How much could be written, and why not all.
fn written(writer: &mut dyn Write, octets: &[u8]) -> (usize, std::io::Result<()>) {
    let mut done = 0;
    while done < octets.len() {
        match writer.write(&octets[done..]) {
            Ok(0) => return (done, Err(ErrorKind::WriteZero.into())),
            Ok(n) => done += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, writer.flush())
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

    /// A disk with so much room, which is told of each write.
    struct Disk {
        room: Receiver<usize>,
        left: usize,
        kept: SyncSender<Vec<u8>>,
    }

    impl Write for Disk {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            if self.left == 0 {
                self.left = self.room.recv().unwrap_or(usize::MAX);
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = octets.len().min(self.left);
            self.left -= taken;
            let _ = self.kept.send(octets[..taken].to_vec());
            Ok(taken)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_cuts_are_counted_and_the_next_begins_anew() {
        let ((make_room, room), (kept, written)) = (sync_channel(1), sync_channel(8));
        let dropped = counter();
        let disk = Disk { room, left: 20, kept };
        let access = Access::start(Box::new(disk), &["status".to_owned()], dropped.clone());
        let next = || String::from_utf8(written.recv_timeout(Duration::from_secs(10)).unwrap()).unwrap();
        let line = "{\"status\":200}\n";
        access.line(|_| Some(200.into()));
        assert_eq!(next(), line);
        access.line(|_| Some(200.into()));
        assert_eq!(next(), line[..5]);
        make_room.send(100).unwrap();
        access.line(|_| Some(200.into()));
        assert_eq!(next(), format!("\n{line}"));
        assert_eq!(dropped.get(), 1);
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

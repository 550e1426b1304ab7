//! HAProxy's stats socket: one command, one answer, one connection. Source: HAProxy, "Management Guide", §9.3.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use atoll_reach::{BoxStream, host_and_port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::Haproxy;

/// One command and its answer.
const COMMAND_MAX: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

impl Haproxy {
    /// Says one command and hears its answer.
    pub(super) async fn ask(&self, command: &str) -> io::Result<String> {
        let asked = async {
            let mut stream: BoxStream = match host_and_port(&self.told.socket) {
                Some((host, port)) if !self.told.socket.starts_with('/') => self.connect.connect(host, port).await?,
                _ => self.connect.unix(&PathBuf::from(&self.told.socket)).await?,
            };
            stream.write_all(format!("{command}\n").as_bytes()).await?;
            let mut heard = Vec::new();
            (&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut heard).await?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&heard).into_owned())
        };
        let heard: String =
            timeout(COMMAND_MAX, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        if heard.contains("Permission denied") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket needs `level admin`"));
        }
        Ok(heard)
    }
}

/// Why a command did nothing; it is heard in words only.
pub(super) fn failed(command: &str, heard: &str) -> Option<String> {
    let heard = heard.trim();
    // One with connections is deleted later.
    let fine = heard.is_empty()
        || heard.contains("New server registered")
        || heard.contains("Server deleted")
        || command.starts_with("del server");
    (!fine).then(|| format!("HAProxy answers `{command}` with: {}", heard.replace('\n', " ")))
}

//! The processes that are measured: this program in other roles, told by stdin, looked at by /proc.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Result;

/// One process; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts it and waits until it says that it is ready; gives the rest of that line.
    pub(crate) async fn start(words: &[&str], log: &Path) -> Result<(Self, String)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log)?)
            .kill_on_drop(true)
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take().ok_or("no stdin")?, child.stdout.take().ok_or("no stdout")?);
        let mut process = Self { child, stdin, lines: BufReader::new(stdout).lines() };
        let line = process.line().await?;
        let ready = line.strip_prefix("ready").ok_or_else(|| format!("{} said `{line}`", words[0]))?;
        Ok((process, ready.trim().to_owned()))
    }

    async fn line(&mut self) -> Result<String> {
        self.lines.next_line().await?.ok_or_else(|| "a process ended".into())
    }

    /// Tells it something and waits for the answer.
    pub(crate) async fn ask(&mut self, line: &str) -> Result<String> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await?;
        self.line().await
    }

    /// CPU time in milliseconds, and resident memory in KiB.
    pub(crate) fn cost(&self) -> Result<(u64, u64)> {
        let pid = self.child.id().ok_or("a process ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit_once(") ").ok_or("no stat")?.1.split(' ').collect();
        // proc(5): utime and stime are the 14th and 15th, in ticks of 10 ms.
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok((ticks * 10, rss.trim().trim_end_matches(" kB").trim().parse()?))
    }
}

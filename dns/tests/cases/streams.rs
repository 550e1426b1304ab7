//! What scenarios do with connections as such: questions together on one, many of one client, one that rests.
//!
//! In: a step. Out: the lines that did not hold. The words are in `main.rs`.

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Duration, Instant, timeout};

use crate::expect::{duration, number};
use crate::play::{Scene, Wrong};
use crate::script::Step;
use crate::stage::ways::{Way, Wire, framed, http1_post, receive};
use crate::stage::{PATIENCE, Stage, query};
use crate::zones::{on, ways};

/// Longer than any connection rests.
const RESTS_MAX: Duration = Duration::from_secs(60);

/// An open connection; whoever drops it closes it.
enum Open {
    Stream(Box<dyn Wire>),
    Quic(quinn::Endpoint, quinn::Connection),
}

impl Scene {
    /// All questions in one segment; the replies in the order that is written.
    pub(crate) async fn together(&mut self, step: &Step) -> Result<Vec<Wrong>, Wrong> {
        let from = step.option("from").unwrap_or("127.0.0.1").to_owned();
        let stage = self.stage().await;
        let mut wrong = Vec::new();
        for way in ways(step, "tcp,dot") {
            let (mut octets, mut asked, mut order) = (Vec::new(), 0, None);
            for (line, text) in &step.block {
                let text = on(text, way);
                match text.split_whitespace().collect::<Vec<_>>().as_slice() {
                    ["ask", name, kind] => {
                        let kind: RecordType = kind.parse().map_err(|_| (*line, format!("`{kind}` is no type")))?;
                        let packet = query(name, kind).to_vec().unwrap();
                        octets.extend(u16::try_from(packet.len()).unwrap().to_be_bytes());
                        octets.extend(packet);
                        asked += 1;
                    }
                    ["order", names @ ..] => {
                        order = Some((*line, names.iter().map(|n| format!("{n}.")).collect::<Vec<_>>()))
                    }
                    _ => return Err((*line, "`ask NAME TYPE` or `order NAME…`".to_owned())),
                }
            }
            let (line, order) = order.ok_or((step.line, "in which order?".to_owned()))?;
            let Some(mut stream) = stage.talk(&from, way.transport == "dot").await else {
                wrong.push((step.line, format!("over {}: no connection", way.transport)));
                continue;
            };
            stream.write_all(&octets).await.map_err(|e| (step.line, e.to_string()))?;
            let mut got = Vec::new();
            while got.len() < asked {
                let Ok(Some(reply)) = timeout(PATIENCE, receive(&mut stream)).await else { break };
                let reply = Message::from_vec(&reply).map_err(|e| (step.line, e.to_string()))?;
                got.push(reply.queries[0].name.to_string());
            }
            if got != order {
                wrong.push((line, format!("over {}: {got:?}", way.transport)));
            }
        }
        Ok(wrong)
    }

    /// How many connections of one client are served while all of them are open.
    pub(crate) async fn seats(&mut self, step: &Step) -> Result<Vec<Wrong>, Wrong> {
        let bad = |why: String| (step.line, why);
        let count = number(step.option("count").unwrap_or("1")).map_err(bad)?;
        let from = step.option("from").unwrap_or("127.0.0.1").to_owned();
        let (line, wanted) = wanted(step, "served ")?;
        let wanted = number(wanted).map_err(|why| (line, why))?;
        let stage = self.stage().await;
        let mut wrong = Vec::new();
        for way in ways(step, "tcp,dot,doh,doq,doh3") {
            let mut held = Vec::new();
            for _ in 0..count {
                held.extend(open(stage, way, &from).await);
            }
            if held.len() != wanted {
                wrong.push((line, format!("over {}: {}", way.transport, held.len())));
            }
        }
        Ok(wrong)
    }

    /// How soon a connection without questions is ended.
    pub(crate) async fn linger(&mut self, step: &Step) -> Result<Vec<Wrong>, Wrong> {
        let (line, most) = wanted(step, "ended <= ")?;
        let most = duration(most).map_err(|why| (line, why))?;
        let stage = self.stage().await;
        let mut wrong = Vec::new();
        for way in ways(step, "tcp,dot,doh,doq,doh3") {
            let Some(held) = open(stage, way, "127.0.0.1").await else {
                wrong.push((step.line, format!("over {}: no connection", way.transport)));
                continue;
            };
            let start = Instant::now();
            let ended = timeout(RESTS_MAX, held.ended()).await.is_ok();
            if !ended || start.elapsed() > most {
                wrong.push((line, format!("over {}: after {:?}", way.transport, start.elapsed())));
            }
        }
        Ok(wrong)
    }
}

/// What the one line of a step says behind `word`.
fn wanted<'s>(step: &'s Step, word: &str) -> Result<(usize, &'s str), Wrong> {
    let found = step.block.iter().find_map(|(line, text)| Some((*line, text.trim().strip_prefix(word)?)));
    found.ok_or_else(|| (step.line, format!("a line `{word}…` is missing")))
}

/// A connection on which one question was answered; `None` where it was not.
async fn open(stage: &Stage, way: &Way, from: &str) -> Option<Open> {
    let packet = query("atoll.internal", RecordType::SOA).to_vec().unwrap();
    let ends = stage.ends();
    let opening = async {
        match way.transport {
            "tcp" | "dot" => {
                let mut stream = stage.talk(from, way.transport == "dot").await?;
                framed(&mut stream, &packet).await?;
                Some(Open::Stream(stream))
            }
            "doh" => {
                let mut stream = ends.secured(from, ends.https, "http/1.1").await.ok()?;
                stream.write_all(&http1_post(&packet, "keep-alive")).await.ok()?;
                let mut said = [0; 12];
                stream.read_exact(&mut said).await.ok()?;
                (&said == b"HTTP/1.1 200").then(|| Open::Stream(Box::new(stream)))
            }
            "doq" => ends.quic(from, ends.quic, "doq").await.map(|(end, connection)| Open::Quic(end, connection)),
            _ => ends.quic(from, ends.h3, "h3").await.map(|(end, connection)| Open::Quic(end, connection)),
        }
    };
    timeout(PATIENCE, opening).await.ok()?
}

impl Open {
    /// Until the server has closed it.
    async fn ended(self) {
        match self {
            Self::Stream(mut stream) => drop(stream.read_to_end(&mut Vec::new()).await),
            Self::Quic(_endpoint, connection) => drop(connection.closed().await),
        }
    }
}

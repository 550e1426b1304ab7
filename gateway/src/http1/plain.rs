//! The short way of a request: a rule that changes nothing, an endpoint that speaks HTTP/1.1. The head's octets are rewritten, the answer's
//! passed on.
//!
//! Whatever does not fit (filters, sessions, mirrors, retries that need the body, upgrades, keys of methods by hash) takes the long way, which
//! decides the same.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::before::Before;
use super::body::{ClientBody, Rest};
use super::client::{Answer, Incoming};
use super::head::{Framing, Head};
use super::reading::Broken;
use super::render::{self, After, Asker};
use super::serve::{Asked, Connection, Next};
use super::splice::{Pipe, Stopped};
use crate::acme;
use crate::balance::draw;
use crate::http::{
    Ask, Forward, FromClient, InFlight, Line, Payload, Plain, Trace, Upload, are_labels, frames, is_grpc_kind, is_port,
    listener, passes, told,
};
use crate::http3;
use crate::plane::Snapshot;
use crate::policy::{normal, tells};
use crate::table::{Asking, Rule};

/// Whether the request was answered on the short way.
pub(super) enum Taken {
    Yes(Next),
    No,
}

/// A request as matches look at it.
pub(crate) struct Written<'a> {
    pub(crate) head: &'a Head,
    pub(crate) bytes: &'a [u8],
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
}

impl Asking for Written<'_> {
    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> &str {
        self.query
    }

    fn method(&self) -> &str {
        std::str::from_utf8(self.head.method(self.bytes)).unwrap_or_default()
    }

    fn header(&self, name: &http::HeaderName) -> Option<std::borrow::Cow<'_, str>> {
        let mut values = self.head.values(self.bytes, name.as_str()).map(String::from_utf8_lossy);
        let first = values.next()?;
        Some(values.fold(first, |all, next| format!("{all},{next}").into()))
    }
}

/// Whether a field says that a client of gRPC asks, which may come by HTTP/1.1 as gRPC-Web.
fn is_grpc_type(name: &[u8], value: &[u8]) -> bool {
    is_grpc_kind(value) && name.eq_ignore_ascii_case(b"content-type")
}

/// Where the request goes.
struct Way {
    snapshot: Arc<Snapshot>,
    route: Arc<str>,
    listener: Arc<str>,
    rule: Arc<Rule>,
    upstream: usize,
}

impl Connection {
    /// Answers the request, if it can be on the short way.
    pub(super) async fn plain(&mut self, asked: Asked) -> io::Result<Taken> {
        let began = Instant::now();
        let Some(way) = self.way() else { return Ok(Taken::No) };
        let plane = Arc::clone(&self.plane);
        self.request(asked);
        let Some(mut reader) = self.reader.take() else { return Ok(Taken::Yes(Next::Close)) };
        let bytes = reader.buffer.bytes();
        let words = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        let version = if asked.minor == 0 { http::Version::HTTP_10 } else { http::Version::HTTP_11 };
        let line = Line::of(&plane, || (words(self.head.method(bytes)), words(self.head.target(bytes)), version));
        let idempotent = is_idempotent(self.head.method(bytes));
        let named = || self.head.values(bytes, "host").next().unwrap_or_default();
        let alternative = http3::alternative(&plane, &self.client, named);
        reader.buffer.used(self.head.len);
        let (payload, back, wanted) = if asked.framing == Framing::None || asked.framing == Framing::Length(0) {
            self.reader = Some(reader);
            (Payload::Empty, None, None)
        } else {
            let (body, back, wanted) = ClientBody::lend(reader, asked.framing.into());
            (Payload::new(Upload::new(&plane, FromClient::H1(body), false)), Some(back), Some(wanted))
        };
        plane.budget.request();
        let ends = self.client.ends;
        let (place, standing) = plane.clients.standing(ends.client.ip());
        let forward = Forward {
            plane: &plane,
            snapshot: &way.snapshot,
            upstream: way.upstream,
            host: &self.host,
            standing,
            place,
            ends,
            request_timeout: way.rule.request_timeout,
            backend_timeout: way.rule.backend_timeout,
            retry: None,
            session: None,
            key: None,
        };
        let mut trace = Trace { listener: Some(way.listener), ..Trace::default() };
        let ask = Ask::Plain(Plain {
            octets: &self.out,
            chunked: asked.framing == Framing::Chunked,
            is_head: asked.is_head,
            idempotent,
            early: (asked.minor == 1).then_some(&*self.early),
        });
        let wanted = wanted.as_deref().filter(|_| asked.expects);
        let before = Before { said: &mut self.said, early: &self.early, wanted };
        let sent = {
            let answered = pin!(forward.run(ask, payload, &mut trace, &mut self.alarm));
            before.tell(&mut self.writer, answered).await
        };
        self.out.clear();
        self.out.append(&mut self.said);
        let code = sent.as_ref().map_or_else(|refusal| refusal.status.as_u16(), |answered| answered.status());
        let time = began.elapsed();
        plane.metrics.tallied(&mut self.tally, &way.route, code, trace.cluster(), time);
        if line.is_wanted() {
            (trace.route, trace.host) = (Some(way.route), self.host.clone());
            trace.refused = sent.as_ref().err().cloned();
            told(&plane, &self.client, &trace, code, time, line);
        }
        let (answer, in_flight, answered) = match sent {
            Err(refusal) => {
                let mut response = refusal.answer();
                http3::tell(response.headers_mut(), alternative);
                let next = Box::pin(self.write(response, asked)).await;
                return self.settle(next, back).await.map(Taken::Yes);
            }
            Ok(answered) => match answered.into_h1() {
                Ok(parts) => parts,
                Err(answered) => {
                    // The upstream changed what it speaks meanwhile.
                    let mut response = answered.into_response(None);
                    http3::tell(response.headers_mut(), alternative);
                    let next = Box::pin(self.write(response, asked)).await;
                    return self.settle(next, back).await.map(Taken::Yes);
                }
            },
        };
        let next = self.pass(*answer, in_flight, asked, alternative).await;
        drop(answered);
        self.settle(next, back).await.map(Taken::Yes)
    }

    /// Looks the request up; nothing where it does not fit.
    fn way(&mut self) -> Option<Way> {
        let Self { plane, client, reader, head, host, .. } = self;
        if plane.traces.is_some() {
            return None;
        }
        let bytes = reader.as_ref()?.buffer.bytes();
        let target = std::str::from_utf8(head.target(bytes)).ok()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        // What CAs look for stands before routes.
        if path.starts_with(acme::PATH) {
            return None;
        }
        let fits = path.starts_with('/') && target.len() <= plane.limits.uri_bytes_max && is_target(target);
        if !fits || head.values(bytes, "upgrade").next().is_some() || !name(head, bytes, host) {
            return None;
        }
        // What is not in its form yet, or says something of the client, is looked at on the long way; so is what is refused in words of gRPC.
        let told = head.fields(bytes).any(|(name, value)| tells(name) || is_grpc_type(name, value));
        if told || plane.trusted.believes(client.ends.client.ip()) || !matches!(normal(path), Ok(None)) {
            return None;
        }
        let (snapshot, policies) = (plane.snapshots.load_full()?, plane.policies.load_full()?);
        let found = listener(&snapshot, client, host).ok()?;
        let entry = found.route(host, &Written { head, bytes, path, query })?;
        let rule = Arc::clone(&entry.rule);
        if !rule.is_plain() || policies.chain(found, &rule.route, rule.name.as_ref()).is_some() {
            return None;
        }
        // Who is drawn here is not drawn again: the long way would take its share from those that need it.
        if !rule.backends.iter().all(|b| b.target.as_ref().is_ok_and(|at| passes(&snapshot, *at, host))) {
            return None;
        }
        let upstream = *draw(&rule.backends, &plane.dice)?.target.as_ref().ok()?;
        let (route, listener) = (Arc::clone(&rule.route), Arc::clone(&found.id));
        Some(Way { rule, upstream, route, listener, snapshot })
    }

    /// Makes the head ready as endpoints get it.
    fn request(&mut self, asked: Asked) {
        let Some(reader) = &self.reader else { return };
        let bytes = reader.buffer.bytes();
        let authority = self.head.values(bytes, "host").next().unwrap_or_default();
        let scheme = if self.client.tls { "https" } else { "http" };
        let id = u128::from(self.plane.dice.roll()) << 64 | u128::from(self.plane.dice.roll());
        let asker = Asker { client: self.client.ends.client.ip(), scheme, authority, id };
        self.out.clear();
        render::pass_request(&mut self.out, &self.head, bytes, self.head.target(bytes), &asker, asked.framing);
    }

    /// Passes an answer on as it comes.
    async fn pass(
        &mut self,
        mut answer: Answer,
        mut in_flight: InFlight,
        asked: Asked,
        alternative: Option<http::HeaderValue>,
    ) -> io::Result<Next> {
        let framing = answer.framing;
        if framing == Framing::Close || framing == Framing::Chunked && asked.minor == 0 || answer.head.status == 101 {
            let mut response = frames(answer, in_flight);
            http3::tell(response.headers_mut(), alternative);
            return Box::pin(self.write(response, asked)).await;
        }
        let then = self.after(asked);
        render::pass_answer(&mut self.out, &answer.head, answer.bytes(), framing, then, alternative.as_ref());
        answer.begin();
        let mut body = answer.body;
        loop {
            let Ok(n) = body.span() else { return self.broken().await };
            self.write_with(&body.octets()[..n]).await?;
            body.used(n);
            if body.is_done() {
                break;
            }
            match self.splice(&mut body, &mut in_flight).await {
                Some(Ok(())) => break,
                Some(Err(Stopped::Writing(error))) => return Err(error),
                Some(Err(Stopped::Reading)) => return self.broken().await,
                None => {}
            }
            let next = poll_fn(|cx| in_flight.or_ended(body.poll_octets(cx), || Err(Broken::Disabled), cx));
            if next.await.is_err() {
                return self.broken().await;
            }
        }
        in_flight.finish(body.into_idle());
        self.writer.flush().await?;
        Ok(if then == After::Close { Next::Close } else { Next::Request })
    }

    /// Moves the rest of a long body past us, where that can be done.
    async fn splice(&mut self, body: &mut Incoming, in_flight: &mut InFlight) -> Option<Result<(), Stopped>> {
        let (from, left) = body.bare().filter(|_| self.writer.is_bare())?;
        let mut pipe = Pipe::take()?;
        let move_on = |cx: &mut Context<'_>| {
            let moved = pipe.poll(from, left, &mut self.writer, cx);
            in_flight.or_ended(moved, || Err(Stopped::Reading), cx)
        };
        let moved = poll_fn(move_on).await;
        if moved.is_ok() {
            body.all_moved();
        }
        Some(moved)
    }

    /// An answer that can't go on ends its connection: the client sees that it is not whole.
    async fn broken(&mut self) -> io::Result<Next> {
        self.write_out().await?;
        self.writer.flush().await?;
        Ok(Next::Close)
    }

    /// Takes the reading half back; what was not read of the body ends the connection, unless it is short.
    pub(super) async fn settle(
        &mut self,
        next: io::Result<Next>,
        back: Option<oneshot::Receiver<Rest>>,
    ) -> io::Result<Next> {
        let next = next?;
        let Some(back) = back else { return Ok(next) };
        Ok(if Box::pin(self.take_back(back)).await { next } else { Next::Close })
    }
}

/// The host asked for, in lower case, without port and last dot. Whether it is one, and the only one.
fn name(head: &Head, bytes: &[u8], host: &mut String) -> bool {
    host.clear();
    let mut named = head.values(bytes, "host");
    let (Some(written), None) = (named.next(), named.next()) else { return false };
    // Anything but a name, or a name and a port, is looked at on the long way.
    let (name, port) = match written.iter().position(|b| *b == b':') {
        Some(at) => (&written[..at], &written[at + 1..]),
        None => (written, &b""[..]),
    };
    let letters = name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if name.is_empty() || !letters || !is_port(port) {
        return false;
    }
    host.extend(name.iter().map(|b| b.to_ascii_lowercase() as char));
    if host.ends_with('.') {
        host.pop();
    }
    are_labels(host)
}

/// Whether a target consists of what targets consist of (RFC 3986 §3.3, §3.4).
fn is_target(target: &str) -> bool {
    target.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%?".contains(&b))
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
}

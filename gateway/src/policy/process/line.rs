//! The stream of a call: what is said goes out in order, what is heard is kept for the way that it is about, until that asks for it.
//!
//! Both ways of one request hear on one stream. Whoever asks reads on for both, and wakes both; so neither waits for the other to be polled.
//! Nothing is read while much waits for the other way. Source: gRPC over HTTP/2.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::body::Way;
use super::message::{PROCESS, ProcessingResponse};
use crate::plane::Plane;
use crate::policy::grpc;
use crate::policy::peer::{Peer, Sent};

/// A message is at most this long.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// So much may wait for one way while the other reads.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Messages that were said and not sent yet.
const SAID_MAX: usize = 2;

type Opening = Pin<Box<dyn Future<Output = Result<Response<Incoming>, String>> + Send>>;

/// One stream to a processor.
pub(super) struct Line {
    peer: Arc<Peer>,
    plane: Arc<Plane>,
    state: Mutex<State>,
    waking: Arc<Waking>,
}

struct State {
    say: Option<mpsc::Sender<Bytes>>,
    /// What was said first, until something else was.
    first: Option<Bytes>,
    hear: Hear,
    buffer: BytesMut,
    /// By way: what it did not ask for yet, and whether it ever will.
    heard: [VecDeque<ProcessingResponse>; 2],
    left: [bool; 2],
}

/// What is heard.
enum Hear {
    /// Nothing was said yet.
    Not,
    Opening(Opening),
    Goes(Incoming),
    /// It ended, well or not.
    Over(Result<(), String>),
}

/// Wakes both ways.
#[derive(Default)]
struct Waking(Mutex<[Option<Waker>; 2]>);

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        let both = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        both.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Waking {
    fn register(&self, way: Way, waker: &Waker) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[way as usize] = Some(waker.clone());
    }
}

impl Line {
    pub(super) fn new(peer: &Arc<Peer>, plane: &Arc<Plane>) -> Self {
        let state = State {
            say: None,
            first: None,
            hear: Hear::Not,
            buffer: BytesMut::new(),
            heard: Default::default(),
            left: [false; 2],
        };
        let (peer, plane) = (Arc::clone(peer), Arc::clone(plane));
        Self { peer, plane, state: Mutex::new(state), waking: Arc::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.peer.name
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended, if it did.
    pub(super) fn over(&self) -> Option<Result<(), String>> {
        match &self.state().hear {
            Hear::Over(how) => Some(how.clone()),
            _ => None,
        }
    }

    pub(super) fn end(&self, how: Result<(), String>) {
        let mut state = self.state();
        (state.say, state.hear) = (None, Hear::Over(how));
        drop(state);
        Arc::clone(&self.waking).wake();
    }

    /// This way asks no more.
    pub(super) fn leave(&self, way: Way) {
        let mut state = self.state();
        state.left[way as usize] = true;
        state.heard[way as usize].clear();
        drop(state);
        Arc::clone(&self.waking).wake();
    }

    /// Says something; the first opens the stream. Many servers say nothing before they heard one.
    pub(super) async fn say(&self, message: Bytes) -> Result<(), String> {
        let say = {
            let mut state = self.state();
            match &state.say {
                Some(say) => {
                    let say = say.clone();
                    state.first = None;
                    say
                }
                None if matches!(state.hear, Hear::Not) => {
                    self.open(&mut state, &message);
                    state.first = Some(message);
                    return Ok(());
                }
                None => return Ok(()),
            }
        };
        say.send(message).await.map_err(|_| "its stream takes nothing".to_owned())
    }

    fn open(&self, state: &mut State, first: &Bytes) {
        let (say, mut said) = mpsc::channel::<Bytes>(SAID_MAX);
        // It is empty.
        let _ = say.try_send(first.clone());
        let frames = futures::stream::poll_fn(move |cx| said.poll_recv(cx).map(|b| b.map(|b| Ok(Frame::data(b)))));
        let body: Sent = StreamBody::new(frames).boxed_unsync();
        let (peer, plane) = (Arc::clone(&self.peer), Arc::clone(&self.plane));
        let opening =
            async move { peer.stream(&plane, grpc::head(PROCESS, body)).await.map_err(|error| error.to_string()) };
        (state.say, state.hear) = (Some(say), Hear::Opening(Box::pin(opening)));
    }

    /// The next of what is about a way; nothing where the stream ended well.
    pub(super) fn poll_heard(
        &self,
        way: Way,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<ProcessingResponse>, String>> {
        self.waking.register(way, cx.waker());
        let waker = Waker::from(Arc::clone(&self.waking));
        let mut both = Context::from_waker(&waker);
        let mut guard = self.state();
        let state = &mut *guard;
        loop {
            if let Some(message) = state.heard[way as usize].pop_front() {
                drop(guard);
                // The other may have waited for there to be room.
                waker.wake_by_ref();
                return Poll::Ready(Ok(Some(message)));
            }
            if let Hear::Over(how) = &state.hear {
                return Poll::Ready(how.clone().map(|()| None));
            }
            let waiting: usize = state.heard[way.other() as usize].iter().map(prost::Message::encoded_len).sum();
            if waiting > WAITING_BYTES_MAX {
                return Poll::Pending;
            }
            match self.step(state, way, &mut both) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(why)) => {
                    (state.say, state.hear) = (None, Hear::Over(Err(why)));
                    waker.wake_by_ref();
                }
                Poll::Pending => return Poll::Pending,
            }
            if !state.heard[way.other() as usize].is_empty() || matches!(state.hear, Hear::Over(_)) {
                waker.wake_by_ref();
                self.waking.register(way, cx.waker());
            }
        }
    }

    /// Reads on.
    fn step(&self, state: &mut State, asks: Way, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        match &mut state.hear {
            Hear::Not => Poll::Ready(Err("nothing was said to it yet".to_owned())),
            Hear::Over(_) => Poll::Ready(Ok(())),
            Hear::Opening(opening) => {
                let answer = match std::task::ready!(opening.as_mut().poll(cx)) {
                    Ok(answer) => answer,
                    // A connection that was kept may be closed already; what nobody answered may be said again.
                    Err(why) => {
                        let first = state.first.take().ok_or(why);
                        return Poll::Ready(first.map(|first| self.open(state, &first)));
                    }
                };
                let status = grpc::status(answer.headers()).map(str::to_owned);
                Poll::Ready(match (answer.status(), status) {
                    (StatusCode::OK, None) => {
                        state.hear = Hear::Goes(answer.into_body());
                        Ok(())
                    }
                    (StatusCode::OK, Some(status)) => Err(format!("grpc-status {status}")),
                    (status, _) => Err(format!("it answers {status}")),
                })
            }
            Hear::Goes(incoming) => {
                let frame = std::task::ready!(Pin::new(incoming).poll_frame(cx));
                let frame = frame.ok_or("it broke its stream off").map_err(str::to_owned);
                Poll::Ready(frame.and_then(|frame| take(state, asks, frame.map_err(|error| error.to_string())?)))
            }
        }
    }
}

/// Takes a frame in: messages to the ways that they are about, or how the stream ends.
fn take(state: &mut State, asks: Way, frame: Frame<Bytes>) -> Result<(), String> {
    match frame.into_data().map_err(Frame::into_trailers) {
        Ok(data) => state.buffer.extend_from_slice(&data),
        Err(Ok(trailers)) => {
            return match grpc::status(&trailers) {
                Some("0") => {
                    (state.say, state.hear) = (None, Hear::Over(Ok(())));
                    Ok(())
                }
                status => Err(format!("it ended its stream: grpc-status {}", status.unwrap_or("none"))),
            };
        }
        Err(Err(_)) => {}
    }
    while let Some(message) = grpc::unframe::<ProcessingResponse>(&mut state.buffer, MESSAGE_BYTES_MAX)? {
        // What is of no way is for whoever asks.
        let way = message.way().unwrap_or(asks);
        if !state.left[way as usize] {
            state.heard[way as usize].push_back(message);
        }
    }
    Ok(())
}

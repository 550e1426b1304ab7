//! Bodies written shorter as they pass: br (RFC 7932), zstd (RFC 8878), gzip (RFC 1952).
//!
//! In: a body, frame by frame. Out: the same, coded, and its trailers after it. Bounded: a window of at most 512 KiB a body, and what one frame of the body
//! becomes. What was taken in and did not come out yet is sent when the body pauses: at once, or within [`PAUSE_MAX`].

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

use super::carried::Carried;
use crate::http::BodyError;

/// So long what the backend said may wait for more that is coded together with it.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// Effort and window (as a power of two) of each: what costs about as much as sending.
const BR: (u32, u32) = (4, 18);
const ZSTD: (i32, u32) = (3, 19);
const GZIP: u32 = 5;
/// Room of brotli's writer.
const BR_BUFFER_BYTES: usize = 4096;

/// What codes.
pub(crate) enum Coder {
    Br(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Coder {
    pub(crate) fn br() -> Self {
        Self::Br(Box::new(CompressorWriter::new(Vec::new(), BR_BUFFER_BYTES, BR.0, BR.1)))
    }

    /// # Errors
    /// There is no memory for it.
    pub(crate) fn zstd() -> io::Result<Self> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD.0)?;
        encoder.window_log(ZSTD.1)?;
        Ok(Self::Zstd(encoder))
    }

    pub(crate) fn gzip() -> Self {
        Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP)))
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Br(coder) => coder.write_all(data),
            Self::Zstd(coder) => coder.write_all(data),
            Self::Gzip(coder) => coder.write_all(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Br(coder) => coder.flush(),
            Self::Zstd(coder) => coder.flush(),
            Self::Gzip(coder) => coder.flush(),
        }
    }

    /// What came out since the last time.
    fn out(&mut self) -> Bytes {
        let out = match self {
            Self::Br(coder) => coder.get_mut(),
            Self::Zstd(coder) => coder.get_mut(),
            Self::Gzip(coder) => coder.get_mut(),
        };
        Bytes::from(std::mem::take(out))
    }

    /// The last of it.
    fn finish(self) -> io::Result<Bytes> {
        let out = match self {
            Self::Br(coder) => coder.into_inner(),
            Self::Zstd(coder) => coder.finish()?,
            Self::Gzip(coder) => coder.finish()?,
        };
        Ok(Bytes::from(out))
    }
}

/// A body, coded. `held`: what is given back at its end.
pub(crate) struct Coded<T> {
    body: Carried,
    coder: Option<Coder>,
    /// What is taken in is sent as soon as the body pauses.
    at_once: bool,
    /// Something was taken in and not sent.
    waits: bool,
    timer: Option<Pin<Box<Sleep>>>,
    trailers: Option<HeaderMap>,
    held: Option<T>,
}

impl<T> Coded<T> {
    pub(crate) fn new(body: Carried, coder: Coder, at_once: bool, held: T) -> Self {
        Self { body, coder: Some(coder), at_once, waits: false, timer: None, trailers: None, held: Some(held) }
    }

    fn end(&mut self) -> Result<Bytes, BodyError> {
        self.held = None;
        self.waits = false;
        self.coder.take().map_or_else(|| Ok(Bytes::new()), |coder| coder.finish().map_err(BodyError::Coding))
    }

    /// The body pauses: what waits is sent, where it is time.
    fn pause(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        let Some(coder) = self.coder.as_mut().filter(|_| self.waits) else { return Poll::Pending };
        if !self.at_once {
            let due = || Box::pin(sleep_until(Instant::now() + PAUSE_MAX));
            let timer = self.timer.get_or_insert_with(due);
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        (self.waits, self.timer) = (false, None);
        Poll::Ready(coder.flush().map(|()| coder.out()).map_err(BodyError::Coding))
    }
}

impl<T: Unpin> Body for Coded<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            let Some(coder) = &mut this.coder else {
                return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            };
            let out = match this.body.as_mut().poll_frame(cx) {
                Poll::Pending => match this.pause(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(out) => out?,
                },
                Poll::Ready(None) => this.end()?,
                Poll::Ready(Some(frame)) => match frame?.into_data() {
                    Ok(data) => {
                        coder.write(&data).map_err(BodyError::Coding)?;
                        let out = coder.out();
                        this.waits = true;
                        out
                    }
                    Err(other) => {
                        this.trailers = other.into_trailers().ok();
                        this.end()?
                    }
                },
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.coder.is_none() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Read as _;

    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;

    use super::*;
    use crate::policy::carried::whole;

    fn plain(name: &str, coded: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let read = match name {
            "br" => brotli::Decompressor::new(coded, 4096).read_to_end(&mut plain),
            "zstd" => zstd::stream::read::Decoder::new(coded).unwrap().read_to_end(&mut plain),
            _ => flate2::read::GzDecoder::new(coded).read_to_end(&mut plain),
        };
        // What was flushed and is not at its end can be read so far.
        let _ = read;
        plain
    }

    fn coders() -> [(&'static str, Coder); 3] {
        [("br", Coder::br()), ("zstd", Coder::zstd().unwrap()), ("gzip", Coder::gzip())]
    }

    #[tokio::test]
    async fn every_coding_is_read_as_it_was_written_and_is_shorter() {
        let text = "who moved my cheese? ".repeat(20_000);
        for (name, coder) in coders() {
            let coded = Coded::new(whole(text.clone()), coder, false, ()).collect().await.unwrap().to_bytes();
            assert_eq!(plain(name, &coded), text.as_bytes(), "{name}");
            assert!(coded.len() < text.len() / 100, "{name}: {}", coded.len());
        }
        for (name, coder) in coders() {
            let coded = Coded::new(whole(""), coder, false, ()).collect().await.unwrap().to_bytes();
            assert!(plain(name, &coded).is_empty() && !coded.is_empty(), "{name}: an empty body is one, too");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_is_sent_when_the_body_pauses_and_trailers_come_last() {
        for at_once in [true, false] {
            for (name, coder) in coders() {
                let (tell, mut told) = mpsc::channel::<Frame<Bytes>>(4);
                let stream = futures::stream::poll_fn(move |cx| told.poll_recv(cx).map(|f| f.map(Ok::<_, Infallible>)));
                let body: Carried = Box::pin(StreamBody::new(stream).map_err(|never| match never {}));
                let mut coded = Box::pin(Coded::new(body, coder, at_once, ()));
                tell.send(Frame::data(Bytes::from_static(b"data: 1\n\n"))).await.unwrap();
                let (began, mut all) = (Instant::now(), Vec::new());
                while plain(name, &all).is_empty() {
                    all.extend_from_slice(&coded.frame().await.unwrap().unwrap().into_data().unwrap());
                }
                assert_eq!(plain(name, &all), b"data: 1\n\n", "{name}");
                assert_eq!(began.elapsed() < Duration::from_millis(1), at_once, "{name}");
                assert!(began.elapsed() <= PAUSE_MAX + Duration::from_millis(2), "{name}");
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", "1".parse().unwrap());
                tell.send(Frame::trailers(trailers)).await.unwrap();
                drop(tell);
                let rest = coded.collect().await.unwrap();
                assert_eq!(rest.trailers().unwrap()["x-sum"], "1", "{name}");
            }
        }
    }
}

//! Bodies: requests are read whole up to a limit, responses are whole or a stream.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};

use crate::refusal::Refusal;

/// The body of every response. A stream that fails ends the response abruptly.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A body that takes longer is given up.
const BODY_MAX: std::time::Duration = std::time::Duration::from_secs(60);

/// A whole body.
pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

/// Reads a request's body, up to a limit.
pub(crate) async fn read_body<B>(body: B, bytes_max: usize) -> Result<Bytes, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: std::fmt::Display,
{
    let body = body.map_err(|why| why.to_string());
    let whole = Limited::new(Box::pin(body), bytes_max).collect();
    let Ok(read) = tokio::time::timeout(BODY_MAX, whole).await else {
        return Err(Refusal::bad_request(format!("the request body took longer than {} s", BODY_MAX.as_secs())));
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(why) if why.is::<LengthLimitError>() => {
            Err(Refusal::too_large(format!("Request entity too large: limit is {bytes_max}")))
        }
        Err(why) => Err(Refusal::bad_request(format!("can't read the request body: {why}"))),
    }
}

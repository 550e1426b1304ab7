//! Queries by HTTPS (RFC 8484), HTTP/2 and HTTP/1.1.
//!
//! In: a listener, a certificate. Out: responses at `/dns-query`.

use std::io;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Serving, Sockets};
use crate::error::Error;
use crate::respond::{Responder, Via};
use crate::stream::secure::{config, secure};
use crate::stream::{http, listen};

const VIA: Via = Via::stream("doh", true, None);

pub(super) fn serve(
    sockets: &mut Sockets,
    responder: &Responder,
    shutdown: &CancellationToken,
) -> Result<Vec<Serving>, Error> {
    let Some(listener) = sockets.encrypted.https.take() else { return Ok(Vec::new()) };
    let none =
        || Error::Socket { transport: VIA.transport, source: io::Error::other("there is no certificate to show") };
    let tls = config(&responder.edge, &[&b"h2"[..], b"http/1.1"], false).ok_or_else(none)?;
    let serving = listen::serving(VIA.transport, listener, responder, shutdown, move |client| {
        let tls = Arc::clone(&tls);
        async move { http::answer(secure(client, tls).await?, VIA).await }
    });
    Ok(vec![serving])
}

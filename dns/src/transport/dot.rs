//! Queries by TLS (RFC 7858): the conversation of TCP, where nobody on the way reads along.
//!
//! In: a listener, a certificate. Out: replies, padded for those who ask so (RFC 8467).

use std::io;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Serving, Sockets};
use crate::error::Error;
use crate::respond::Responder;
use crate::stream::converse::converse;
use crate::stream::listen;
use crate::stream::secure::{config, secure};

const NAME: &str = "dot";

pub(super) fn serve(
    sockets: &mut Sockets,
    responder: &Responder,
    shutdown: &CancellationToken,
) -> Result<Vec<Serving>, Error> {
    let Some(listener) = sockets.encrypted.tls.take() else { return Ok(Vec::new()) };
    let none = || Error::Socket { transport: NAME, source: io::Error::other("there is no certificate to show") };
    let tls = config(&responder.edge, &[b"dot"], false).ok_or_else(none)?;
    let serving = listen::serving(NAME, listener, responder, shutdown, move |client| {
        let tls = Arc::clone(&tls);
        async move { converse(secure(client, tls).await?, NAME, true).await }
    });
    Ok(vec![serving])
}

//! Queries by TCP (RFC 7766).
//!
//! In: a listener. Out: replies, in the order in which answers come.

use tokio_util::sync::CancellationToken;

use super::{Serving, Sockets};
use crate::error::Error;
use crate::respond::Responder;
use crate::stream::converse::converse;
use crate::stream::listen;

pub(super) fn serve(
    sockets: &mut Sockets,
    responder: &Responder,
    shutdown: &CancellationToken,
) -> Result<Vec<Serving>, Error> {
    let serving =
        |listener| listen::serving("tcp", listener, responder, shutdown, |client| converse(client, "tcp", false));
    Ok(sockets.tcp.take().map(serving).into_iter().collect())
}

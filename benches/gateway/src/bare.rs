//! Hyper's bare proxy: its low-level connections on both sides and a pool, on one thread. What hyper alone costs.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::{Result, say};

/// Idle connections to the origin.
const IDLE_MAX: usize = 512;

type Pool = Rc<RefCell<Vec<SendRequest<Incoming>>>>;

/// Serves until it is killed.
pub(crate) async fn serve(at: SocketAddr, origin: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).await?;
    say("ready", at)?;
    LocalSet::new().run_until(accept(listener, origin)).await
}

async fn accept(listener: TcpListener, origin: SocketAddr) -> Result<()> {
    let pool = Pool::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let pool = Rc::clone(&pool);
        let service = service_fn(move |request| pass(Rc::clone(&pool), origin, request));
        tokio::task::spawn_local(async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn pass(pool: Pool, origin: SocketAddr, mut request: Request<Incoming>) -> Result<Response<Incoming>> {
    let known = std::iter::from_fn(|| pool.borrow_mut().pop()).find(|sender| !sender.is_closed());
    let mut sender = match known {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(origin).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(async move { drop(connection.await) });
            sender
        }
    };
    sender.ready().await?;
    request.headers_mut().remove(hyper::header::CONNECTION);
    let answer = sender.send_request(request).await?;
    if pool.borrow().len() < IDLE_MAX {
        pool.borrow_mut().push(sender);
    }
    Ok(answer)
}

//! The hub's API, in a process of its own, so that it counts for nobody: the embedded API server behind plain HTTP.

use std::net::SocketAddr;

use atoll_api::kinds::{Channel, gateway_api_crds};
use atoll_apiserver::{ApiServer, Config, Storage};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use tokio::net::TcpListener;

use crate::{Result, say};

/// A client of a hub that was started with this program.
pub(crate) fn client(hub: &str) -> Result<kube::Client> {
    Ok(kube::Client::try_from(kube::Config::new(format!("http://{hub}").parse()?))?)
}

/// Serves until it is killed.
pub(crate) async fn serve(at: SocketAddr) -> Result<()> {
    let namespaces = ["default", "atoll-system", "infra", "shop"].map(Into::into).into();
    let api = ApiServer::open(Config { namespaces, ..Config::default() }, Storage::Memory).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(api.client());
    for crd in gateway_api_crds(Channel::Experimental) {
        crds.create(&PostParams::default(), &crd).await?;
    }
    let listener = TcpListener::bind(at).await?;
    say("ready", at)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = api.client();
        let service = service_fn(move |request: Request<Incoming>| {
            let client = client.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes().to_vec();
                client.send(Request::from_parts(head, body.into())).await.map_err(std::io::Error::other)
            }
        });
        tokio::spawn(async move {
            let serving = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = serving.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

//! Whom the copy engine trusts with what: certificates, tokens and credentials against servers that try to get more.

#![allow(clippy::unwrap_used)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use atoll_demo::registry::{Registry, images};
use atoll_reach::System;
use atoll_registry::{Credentials, End, Endpoint, ImageRef, Retry, Why, audit, backend::memory::Store, resolve};
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

type Answer = Response<Full<Bytes>>;

fn image() -> ImageRef {
    "shop/web:1".parse().unwrap()
}

fn seeded() -> Arc<Store> {
    let store = Arc::new(Store::default());
    images::seed(&store, "shop/web", "1");
    store
}

fn status(code: StatusCode, headers: &[(&str, String)], body: &str) -> Answer {
    let mut builder = Response::builder().status(code);
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    builder.body(Full::from(body.to_owned())).unwrap()
}

/// Serves `answer` on a port of its own for as long as the test runs.
async fn serve<F, Fut>(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, answer: F)
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answer, tls) = (answer.clone(), tls.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = match tls {
                    Some(tls) => match tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                        Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
                        Err(_) => Ok(()),
                    },
                    None => http.serve_connection(TokioIo::new(stream), service).await,
                };
            });
        }
    });
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn credentials() -> Credentials {
    Credentials { username: "puller".into(), password: "s3cret".into() }
}

fn end(url: &str, credentials: Option<Credentials>) -> End {
    let endpoint = Endpoint::new(url).unwrap().with_credentials(credentials);
    End { endpoint, connect: Arc::new(System::default()) }
}

fn authorization(request: &Request<Incoming>) -> String {
    request.headers().get(header::AUTHORIZATION).map_or_else(String::new, |v| v.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_token_is_fetched_once_for_the_right_scope_and_again_when_it_is_refused() {
    let (listener, address) = listen().await;
    let registry = Arc::new(Registry::new(seeded(), None));
    let (asked, served) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let log = asked.clone();
    serve(listener, None, move |request| {
        let (registry, log, served) = (registry.clone(), log.clone(), served.clone());
        async move {
            let authorization = authorization(&request);
            if request.uri().path() == "/token" {
                let basic = base64::engine::general_purpose::STANDARD.encode("puller:s3cret");
                assert_eq!(authorization, format!("Basic {basic}"));
                log.lock().unwrap().push(request.uri().query().unwrap().to_owned());
                let token = format!(r#"{{"access_token":"t{}","expires_in":300}}"#, log.lock().unwrap().len());
                return status(StatusCode::OK, &[], &token);
            }
            // the first token is good for three requests, then it is revoked before its time
            let good = if served.load(Ordering::SeqCst) < 3 { "Bearer t1" } else { "Bearer t2" };
            if authorization != good {
                let challenge = format!(r#"Bearer realm="http://{address}/token",service="reg""#);
                return status(StatusCode::UNAUTHORIZED, &[("www-authenticate", challenge)], "");
            }
            served.fetch_add(1, Ordering::SeqCst);
            registry.answer(request).await
        }
    })
    .await;
    let end = end(&format!("http://{address}"), Some(credentials()));
    audit(&end, &image(), &Retry::default()).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), ["service=reg&scope=repository%3Ashop%2Fweb%3Apull"; 2]);
}

#[tokio::test]
async fn a_registry_that_refuses_every_token_is_not_asked_for_ever() {
    let (listener, address) = listen().await;
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    serve(listener, None, move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            if request.uri().path() == "/token" {
                return status(StatusCode::OK, &[], r#"{"token":"t"}"#);
            }
            let challenge = format!(r#"Bearer realm="http://{address}/token""#);
            status(StatusCode::UNAUTHORIZED, &[("www-authenticate", challenge)], "")
        }
    })
    .await;
    let error = resolve(&end(&format!("http://{address}"), Some(credentials())), &[image()]).await.unwrap_err();
    assert!(matches!(error.why, Why::Denied(_)), "{error}");
    assert!(requests.load(Ordering::SeqCst) <= 4, "{requests:?} requests");
}

#[tokio::test]
async fn a_registry_that_names_a_foreign_token_service_gets_no_password() {
    let (listener, address) = listen().await;
    let (thief, evil) = listen().await;
    let stolen = Arc::new(Mutex::new(Vec::new()));
    let seen = stolen.clone();
    serve(thief, None, move |request| {
        stolen.lock().unwrap().push(authorization(&request));
        async { status(StatusCode::OK, &[], r#"{"token":"t"}"#) }
    })
    .await;
    serve(listener, None, move |_| async move {
        let challenge = format!(r#"Bearer realm="http://127.0.0.2:{}/token",service="reg""#, evil.port());
        status(StatusCode::UNAUTHORIZED, &[("www-authenticate", challenge)], "")
    })
    .await;
    let error = resolve(&end(&format!("http://{address}"), Some(credentials())), &[image()]).await.unwrap_err();
    assert!(error.to_string().contains("token service"), "{error}");
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_is_followed_without_credentials() {
    let store = seeded();
    let (listener, address) = listen().await;
    let (storage, elsewhere) = listen().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (blobs, log) = (Arc::new(Registry::new(store.clone(), None)), seen.clone());
    serve(storage, None, move |request| {
        log.lock().unwrap().push(authorization(&request));
        let blobs = blobs.clone();
        async move { blobs.answer(request).await }
    })
    .await;
    let registry = Arc::new(Registry::new(store, Some(credentials())));
    serve(listener, None, move |request| {
        let registry = registry.clone();
        async move {
            if request.uri().path().contains("/blobs/") && !authorization(&request).is_empty() {
                let location = format!("http://{elsewhere}{}", request.uri());
                return status(StatusCode::TEMPORARY_REDIRECT, &[("location", location)], "");
            }
            registry.answer(request).await
        }
    })
    .await;
    audit(&end(&format!("http://{address}"), Some(credentials())), &image(), &Retry::default()).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.len() >= 3 && seen.iter().all(String::is_empty), "{seen:?}");
}

#[tokio::test]
async fn a_certificate_counts_only_if_it_is_signed_by_whom_we_trust() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let tls =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![issued.cert.der().clone()], key);
    let (listener, address) = listen().await;
    let registry = Arc::new(Registry::new(seeded(), None));
    serve(listener, Some(Arc::new(tls.unwrap())), move |request| {
        let registry = registry.clone();
        async move { registry.answer(request).await }
    })
    .await;
    let https = end(&format!("https://{address}"), None);
    let once = Retry { attempts_max: 1, ..Retry::default() };
    let error = audit(&https, &image(), &once).await.unwrap_err();
    assert!(matches!(error.why, Why::Unreachable(_)), "{error}");
    let mut trusted = https.clone();
    trusted.endpoint.ca_pem = Some(issued.cert.pem().into_bytes());
    audit(&trusted, &image(), &once).await.unwrap();
    let mut any = https.clone();
    any.endpoint.insecure = true;
    audit(&any, &image(), &once).await.unwrap();
    // and plain HTTP has to be asked for
    let mut plain = end(&format!("http://{address}"), None);
    plain.endpoint.insecure = false;
    let error = resolve(&plain, &[image()]).await.unwrap_err();
    assert!(error.to_string().contains("insecure"), "{error}");
}

//! Following the hub through restarts, from a file, and with a hub that lies.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;

use atoll_api::facts::key;
use atoll_api::topology::{Settings, Version};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

use super::saver::{SAVE_AGAIN, SAVE_EVERY};
use super::*;
use crate::delta::Sender;
use crate::v1::feed_server::{Feed, FeedServer};

type Events = Pin<Box<dyn Stream<Item = Result<v1::FeedEvent, Status>> + Send>>;

/// A hub that says what the test tells it to, and nothing after it was dropped.
struct Hub {
    streams: mpsc::Sender<mpsc::Sender<Result<v1::FeedEvent, Status>>>,
    reports: Arc<Mutex<Vec<v1::SiteReport>>>,
}

#[tonic::async_trait]
impl Feed for Hub {
    type FollowStream = Events;

    async fn follow(&self, _: Request<v1::FollowRequest>) -> Result<Response<Events>, Status> {
        let (sender, receiver) = mpsc::channel(16);
        self.streams.send(sender).await.map_err(|_| Status::unavailable("test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn report(&self, report: Request<v1::SiteReport>) -> Result<Response<v1::SiteAck>, Status> {
        self.reports.lock().unwrap().push(report.into_inner());
        Ok(Response::new(v1::SiteAck {}))
    }
}

struct Scene {
    address: SocketAddr,
    streams: mpsc::Receiver<mpsc::Sender<Result<v1::FeedEvent, Status>>>,
    reports: Arc<Mutex<Vec<v1::SiteReport>>>,
    shutdown: CancellationToken,
}

async fn hub() -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let (streams, opened) = mpsc::channel(4);
    let reports = Arc::<Mutex<Vec<_>>>::default();
    let served = tonic::transport::Server::builder()
        .add_service(FeedServer::new(Hub { streams, reports: reports.clone() }))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.clone().cancelled_owned());
    tokio::spawn(served);
    Scene { address, streams: opened, reports, shutdown }
}

async fn start(scene: &Scene, config: Follow) -> watch::Receiver<Snapshot> {
    let url = format!("http://{}", scene.address);
    let connect = move || {
        let endpoint = Channel::from_shared(url.clone()).unwrap();
        async move { endpoint.connect().await }
    };
    let site = Site { instance: "dns-1".into(), kind: "dns".into(), ..Site::default() };
    let (_, report) = watch::channel(Report { site, probes: [("lab".to_owned(), true)].into(), ..Report::default() });
    let (watch, _line, run) = follow(config, connect, report, scene.shutdown.clone()).await;
    tokio::spawn(run);
    watch
}

fn settings(apex: &str) -> Facts {
    let mut facts = Facts::default();
    facts.put(key::SETTINGS, &Settings { hub_id: "h1".into(), apex: apex.into(), ..Settings::default() });
    facts
}

async fn say(stream: &mpsc::Sender<Result<v1::FeedEvent, Status>>, event: Event) {
    stream.send(Ok(v1::FeedEvent { event: Some(event) })).await.unwrap();
}

async fn until_apex(watch: &mut watch::Receiver<Snapshot>, apex: &str) -> Snapshot {
    let wait = watch.wait_for(|s| s.topology.settings.apex == apex);
    timeout(Duration::from_secs(10), wait).await.expect("the topology arrives").unwrap().clone()
}

#[tokio::test]
async fn a_follower_keeps_up_reports_itself_and_starts_from_its_last_good_one() {
    let (mut scene, dir) = (hub().await, tempfile::tempdir().unwrap());
    let config = Follow { hub_id: Some("h1".into()), dir: Some(dir.path().to_owned()) };
    let mut watch = start(&scene, config.clone()).await;
    assert!(watch.borrow().heard.is_none());

    let stream = scene.streams.recv().await.unwrap();
    let mut sender = Sender::new(4);
    for apex in ["one.test", "two.test"] {
        for delta in sender.update(&settings(apex)) {
            say(&stream, Event::Delta(delta)).await;
        }
        let snapshot = until_apex(&mut watch, apex).await;
        assert!(snapshot.is_fresh(Instant::now()));
        assert!(!snapshot.is_fresh(Instant::now() + FRESH + Duration::from_secs(1)));
    }
    let reports = scene.reports.lock().unwrap().clone();
    assert!(!reports[0].site_json.is_empty() && reports[0].probes["lab"]);

    // A word that does not match makes it ask again, for everything.
    say(&stream, Event::Alive(v1::Acknowledged { epoch: 4, digest: vec![0; 32].into() })).await;
    let stream = scene.streams.recv().await.unwrap();
    let mut sender = Sender::new(5);
    for delta in sender.update(&settings("three.test")) {
        say(&stream, Event::Delta(delta)).await;
    }
    until_apex(&mut watch, "three.test").await;

    // The hub dies; a replica that starts now knows what was good last.
    scene.shutdown.cancel();
    while watch.changed().await.is_ok() {}
    let dead = Scene { shutdown: CancellationToken::new(), ..scene };
    let watch = start(&dead, config.clone()).await;
    assert_eq!(watch.borrow().topology.settings.apex, "three.test");
    assert_eq!(watch.borrow().topology.version, Version { epoch: 5, generation: 1 });
    assert!(watch.borrow().heard.is_none());
    let foreign = Follow { hub_id: Some("h2".into()), ..config };
    assert_eq!(start(&dead, foreign).await.borrow().topology.settings.apex, "");
    dead.shutdown.cancel();
}

#[tokio::test]
async fn what_could_not_be_kept_is_kept_once_there_is_room() {
    let (mut scene, dir) = (hub().await, tempfile::tempdir().unwrap());
    // Nothing can be written where a folder is.
    let in_the_way = dir.path().join("topology.last-good.next");
    std::fs::create_dir(&in_the_way).unwrap();
    let config = Follow { hub_id: Some("h1".into()), dir: Some(dir.path().to_owned()) };
    let mut watch = start(&scene, config).await;
    let stream = scene.streams.recv().await.unwrap();
    let mut sender = Sender::new(4);
    say(&stream, Event::Delta(sender.update(&settings("one.test")).remove(0))).await;
    until_apex(&mut watch, "one.test").await;
    let file = dir.path().join("topology.last-good");
    // The first try is over with the next word at the latest.
    say(&stream, Event::Alive(v1::Acknowledged { epoch: 4, digest: sender.digest().to_vec().into() })).await;
    sleep(SAVE_EVERY).await;
    assert!(!file.exists());
    std::fs::remove_dir(&in_the_way).unwrap();
    let kept = async {
        while !file.exists() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SAVE_AGAIN * 5, kept).await.expect("kept without another word of the hub");
    scene.shutdown.cancel();
}

#[tokio::test]
async fn a_hub_of_an_older_epoch_is_not_believed() {
    let mut scene = hub().await;
    let mut watch = start(&scene, Follow::default()).await;
    let stream = scene.streams.recv().await.unwrap();
    say(&stream, Event::Delta(Sender::new(7).update(&settings("new.test")).remove(0))).await;
    until_apex(&mut watch, "new.test").await;
    say(&stream, Event::Delta(Sender::new(6).update(&settings("old.test")).remove(0))).await;
    let _again = scene.streams.recv().await.unwrap();
    assert_eq!(watch.borrow().topology.settings.apex, "new.test");
    scene.shutdown.cancel();
}

#[test]
fn a_damaged_last_good_file_is_told_from_a_foreign_one() {
    let version = Version { epoch: 2, generation: 9 };
    let good = last_good::encode(version, &settings("a.test"));
    let (read, facts) = last_good::decode(&good, Some("h1")).unwrap();
    assert_eq!((read, facts.digest()), (version, settings("a.test").digest()));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (name, file, says) in [
        ("empty", Vec::new(), "is not a `atoll-topology-2`"),
        ("text", b"hello\nworld".to_vec(), "is not a `atoll-topology-2`"),
        ("cut short", good[..good.len() - 3].to_vec(), "damaged"),
        ("flipped", flipped, "damaged"),
    ] {
        let error = last_good::decode(&file, None).unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
    assert!(last_good::decode(&good, Some("h2")).unwrap_err().to_string().contains("hub `h1`"));
}

//! The copy engine against live registries, healthy and faulty: nothing wrong ever gets a tag, and what can be saved is.

#![allow(clippy::unwrap_used)]
mod faulty;

use std::{sync::atomic::Ordering, time::Duration};

use atoll_demo::registry::images;
use atoll_registry::{
    Credentials, Digest, End, Endpoint, ImageRef, Job, Limits, Phase, Progress, Report, Retry, Why,
    backend::{RawManifest, memory::Store},
    closure, copy,
    manifest::OCI_MANIFEST,
    missing, resolve,
};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use faulty::Fixture;

const MIB: usize = 1 << 20;

fn image(text: &str) -> ImageRef {
    text.parse().unwrap()
}

fn limits() -> Limits {
    let retry = Retry { attempts_max: 5, pause: Duration::from_millis(2), pause_max: Duration::from_millis(20) };
    Limits { retry, ..Limits::default() }
}

async fn job(from: &End, to: &End, images: &[&str]) -> Job {
    let images: Vec<_> = images.iter().map(|i| image(i)).collect();
    let roots = resolve(from, &images).await.unwrap();
    let approved = Some(closure(from, &roots).await.unwrap().digest);
    Job { source: from.clone(), destination: to.clone(), roots, approved, referrers: false, limits: limits() }
}

async fn run(job: Job) -> Result<Report, atoll_registry::Error> {
    copy(job, watch::Sender::new(Progress::default()), CancellationToken::new()).await
}

/// An image with one layer of `len` bytes that no two of are the same.
fn big_image(store: &Store, repository: &str, tag: &str, len: usize) -> Digest {
    let layer: Bytes = (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let config = store.put_blob(repository, Bytes::from_static(b"{}"));
    let layer_digest = store.put_blob(repository, layer);
    let body = Bytes::from(
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": len}],
        })
        .to_string(),
    );
    let digest = Digest::of(&body);
    let manifest = RawManifest { media_type: OCI_MANIFEST.to_owned(), digest, body };
    store.put_manifest(repository, Some(tag), manifest).unwrap();
    layer_digest
}

#[tokio::test]
async fn an_image_is_copied_whole_and_a_second_copy_moves_nothing() {
    let (from, to) = (Fixture::start().await, Fixture::start().await);
    let digest = images::seed(&from.store, "shop/web", "2");
    let done = run(job(&from.end(), &to.end(), &["shop/web:2"]).await).await.unwrap();
    assert_eq!(done.progress.phase, Phase::Done);
    assert_eq!((done.progress.objects, done.progress.skipped), (5, 0), "3 blobs, a manifest, an index");
    assert_eq!(done.progress.bytes, done.progress.bytes_total);
    assert_eq!(to.store.manifest("shop/web", "2").unwrap().digest, digest);

    let before = (to.requests("POST"), to.requests("PUT"), to.requests("PATCH"));
    let again = run(job(&from.end(), &to.end(), &["shop/web:2"]).await).await.unwrap();
    assert_eq!((again.progress.bytes, again.progress.objects, again.progress.skipped), (0, 0, 5));
    assert_eq!((to.requests("POST"), to.requests("PUT"), to.requests("PATCH")), before);
    let roots = resolve(&from.end(), &[image("shop/web:2")]).await.unwrap();
    let plan = missing(&to.end(), &closure(&from.end(), &roots).await.unwrap()).await.unwrap();
    assert!(plan.is_empty());
}

#[tokio::test]
async fn a_blob_that_a_neighbour_repository_has_is_mounted_or_sent_where_that_is_not_known() {
    for no_mount in [0, 1] {
        let (from, to) = (Fixture::start().await, Fixture::start().await);
        to.faults.no_mount.store(no_mount, Ordering::SeqCst);
        for repository in ["shop/web", "shop/api"] {
            images::seed(&from.store, repository, "1");
        }
        let done = run(job(&from.end(), &to.end(), &["shop/web:1", "shop/api:1"]).await).await.unwrap();
        assert_eq!(done.progress.mounted, u64::from(no_mount == 0), "the base layer is shared");
        for repository in ["shop/web", "shop/api"] {
            assert!(to.store.manifest(repository, "1").is_some(), "{repository}");
        }
        assert_eq!(to.store.uploads_open(), 0);
    }
}

#[tokio::test]
async fn what_breaks_on_the_way_is_mended_and_the_bytes_are_right() {
    type Break = fn(&Fixture, &Fixture);
    let cases: &[(&str, Break)] = &[
        ("500s at the source", |from, _| from.faults.errors.store(3, Ordering::SeqCst)),
        ("500s at the destination", |_, to| to.faults.errors.store(3, Ordering::SeqCst)),
        ("429s at both", |from, to| {
            from.faults.throttles.store(3, Ordering::SeqCst);
            to.faults.throttles.store(3, Ordering::SeqCst);
        }),
        ("downloads cut", |from, _| from.faults.cut_downloads.store(4, Ordering::SeqCst)),
        ("downloads cut without Range", |from, _| {
            from.faults.cut_downloads.store(3, Ordering::SeqCst);
            from.faults.no_range.store(1, Ordering::SeqCst);
        }),
        ("uploads cut and kept", |_, to| to.faults.cut_uploads.store(3, Ordering::SeqCst)),
        ("uploads cut and forgotten", |_, to| {
            to.faults.cut_uploads.store(3, Ordering::SeqCst);
            to.faults.forget_uploads.store(1, Ordering::SeqCst);
        }),
        ("both ends cut", |from, to| {
            from.faults.cut_downloads.store(2, Ordering::SeqCst);
            to.faults.cut_uploads.store(2, Ordering::SeqCst);
        }),
    ];
    for chunk_bytes in [64 << 20, 300_000] {
        for (name, break_it) in cases {
            let (from, to) = (Fixture::start().await, Fixture::start().await);
            let layer = big_image(&from.store, "big", "1", 3 * MIB);
            let mut job = job(&from.end(), &to.end(), &["big:1"]).await;
            job.limits.chunk_bytes = chunk_bytes;
            break_it(&from, &to);
            let done = run(job).await.unwrap_or_else(|e| panic!("{name}, chunks of {chunk_bytes}: {e}"));
            assert_eq!(to.store.blob("big", &layer), from.store.blob("big", &layer), "{name}");
            assert!(to.store.manifest("big", "1").is_some(), "{name}");
            assert_eq!(
                done.progress.bytes, done.progress.bytes_total,
                "{name}: what was sent twice is not counted twice"
            );
            assert_eq!(to.store.uploads_open(), 0, "{name}: an upload was left behind");
        }
    }
}

#[tokio::test]
async fn an_upload_that_was_cut_goes_on_where_the_registry_kept_it() {
    let (from, to) = (Fixture::start().await, Fixture::start().await);
    big_image(&from.store, "big", "1", 8 * MIB);
    let job = job(&from.end(), &to.end(), &["big:1"]).await;
    to.faults.cut_uploads.store(1, Ordering::SeqCst);
    run(job).await.unwrap();
    let sent = to.uploaded.load(Ordering::SeqCst) as usize;
    assert!(sent <= 8 * MIB + 1024, "{sent} bytes for a blob of {} bytes", 8 * MIB);
}

#[tokio::test]
async fn a_wrong_blob_never_becomes_one_at_the_destination() {
    let (from, to) = (Fixture::start().await, Fixture::start().await);
    let layer = big_image(&from.store, "big", "1", MIB);
    let job = job(&from.end(), &to.end(), &["big:1"]).await;
    from.faults.wrong_bytes.store(1, Ordering::SeqCst);
    let error = run(job).await.unwrap_err();
    assert!(matches!(error.why, Why::Corrupt(_)), "{error}");
    assert!(error.to_string().contains(&from.address.to_string()), "{error}");
    assert_eq!(to.store.blob("big", &layer), None);
    assert!(to.store.manifest("big", "1").is_none());
    assert_eq!(to.store.uploads_open(), 0);
}

#[tokio::test]
async fn a_tag_that_moved_since_the_approval_copies_nothing() {
    let (from, to) = (Fixture::start().await, Fixture::start().await);
    images::seed(&from.store, "shop/web", "1");
    let job = job(&from.end(), &to.end(), &["shop/web:1"]).await;
    let moved = images::seed(&from.store, "shop/web", "evil");
    let manifest = from.store.manifest("shop/web", moved.as_str()).unwrap();
    from.store.put_manifest("shop/web", Some("1"), manifest).unwrap();
    let error = run(job).await.unwrap_err();
    assert!(matches!(error.why, Why::TagMoved { .. }), "{error}");
    assert_eq!(to.store.repositories(), Vec::<String>::new());
}

#[tokio::test]
async fn another_closure_than_the_approved_copies_nothing() {
    let (from, to) = (Fixture::start().await, Fixture::start().await);
    images::seed(&from.store, "shop/web", "1");
    let mut job = job(&from.end(), &to.end(), &["shop/web:1"]).await;
    job.approved = Some(Digest::of(b"something else"));
    let error = run(job).await.unwrap_err();
    assert!(matches!(error.why, Why::ClosureChanged { .. }), "{error}");
    assert_eq!(to.store.repositories(), Vec::<String>::new());
}

#[tokio::test]
async fn a_destination_that_stays_broken_gets_bounded_tries_and_no_tag() {
    let (from, to) = (Fixture::start().await, Fixture::start().await);
    images::seed(&from.store, "shop/web", "1");
    let job = job(&from.end(), &to.end(), &["shop/web:1"]).await;
    to.faults.errors.store(u32::MAX, Ordering::SeqCst);
    let error = run(job).await.unwrap_err();
    assert!(matches!(error.why, Why::Status { status: 500, .. }), "{error}");
    assert!(to.requests("") < 200, "{} requests", to.requests(""));
    to.faults.errors.store(0, Ordering::SeqCst);
    assert!(to.store.manifest("shop/web", "1").is_none());
}

#[tokio::test]
async fn a_cancelled_copy_ends_at_once_and_closes_its_uploads() {
    let (from, to) = (Fixture::start().await, Fixture::start().await);
    big_image(&from.store, "big", "1", 4 * MIB);
    let mut job = job(&from.end(), &to.end(), &["big:1"]).await;
    job.limits.chunk_bytes = 64 << 10;
    // the source stalls for ever: every download is cut, and tried again for a long time
    job.limits.retry = Retry { attempts_max: 1000, pause: Duration::from_secs(60), pause_max: Duration::from_secs(60) };
    from.faults.cut_downloads.store(u32::MAX, Ordering::SeqCst);
    let (sender, mut progress) = watch::channel(Progress::default());
    let cancel = CancellationToken::new();
    let copying = tokio::spawn(copy(job, sender, cancel.clone()));
    progress.wait_for(|p| p.bytes > 0 && p.retries > 0).await.unwrap();
    assert!(to.store.uploads_open() > 0);
    cancel.cancel();
    let error = tokio::time::timeout(Duration::from_secs(5), copying).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error.why, Why::Cancelled), "{error}");
    assert_eq!(to.store.uploads_open(), 0);
}

#[tokio::test]
async fn credentials_are_used_and_their_lack_is_said() {
    let credentials = Credentials { username: "puller".into(), password: "s3cret".into() };
    let (from, to) = (Fixture::with(Some(credentials.clone())).await, Fixture::start().await);
    images::seed(&from.store, "shop/web", "1");
    let error = resolve(&from.end(), &[image("shop/web:1")]).await.unwrap_err();
    assert!(matches!(error.why, Why::Denied(_)), "{error}");

    let with = |c| End { endpoint: from.end().endpoint.with_credentials(Some(c)), ..from.end() };
    let wrong = with(Credentials { password: "wrong".into(), ..credentials.clone() });
    let error = resolve(&wrong, &[image("shop/web:1")]).await.unwrap_err();
    assert!(matches!(error.why, Why::Denied(_)) && !error.to_string().contains("wrong"), "{error}");

    run(job(&with(credentials), &to.end(), &["shop/web:1"]).await).await.unwrap();
    assert!(to.store.manifest("shop/web", "1").is_some());
}

#[tokio::test]
async fn what_is_missing_is_named_by_registry_repository_and_reference() {
    let from = Fixture::start().await;
    images::seed(&from.store, "shop/web", "1");
    let error = resolve(&from.end(), &[image("shop/web:9")]).await.unwrap_err();
    assert_eq!(error.to_string(), format!("registry `{}`, `shop/web:9`: not found", from.address));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = End { endpoint: Endpoint::new(&format!("http://{free}")).unwrap(), ..from.end() };
    let error = resolve(&gone, &[image("shop/web:1")]).await.unwrap_err();
    assert!(error.to_string().contains("no connection: "), "{error}");
}

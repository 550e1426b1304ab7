//! The engine as the agent calls it: check, then copy what was approved, in the words of the language.

#![allow(clippy::unwrap_used)]

mod faulty;

use std::sync::{Arc, Mutex};

use atoll_api::copy::{CheckJob, Copy, CopyJob, CopyState, Credentials, Keys, RegistryEndpoint};
use atoll_demo::registry::images;
use atoll_reach::{Connect, System};
use atoll_registry::{Engine, Limits};
use faulty::Fixture;
use tokio_util::sync::CancellationToken;

fn engine() -> Engine {
    let dial = Arc::new(|_: &RegistryEndpoint| Arc::new(System::default()) as Arc<dyn Connect>);
    Engine::new(dial, Limits::default(), CancellationToken::new())
}

fn endpoint(name: &str, fixture: &Fixture) -> RegistryEndpoint {
    let url = format!("http://{}", fixture.address);
    RegistryEndpoint { name: name.into(), url, insecure: true, backend: "oci".into(), credentials: None, cluster: None }
}

fn approved(check: &CheckJob, report: &atoll_api::copy::CheckReport) -> CopyJob {
    CopyJob {
        from: check.from.clone(),
        to: check.to.clone(),
        roots: report.roots.clone(),
        closure: report.closure.clone(),
        requester: "dev".into(),
        votes: Vec::new(),
        quorum: Vec::new(),
    }
}

#[tokio::test]
async fn what_was_checked_is_copied_with_the_keys_of_each_end() {
    let key = |user: &str| Credentials { username: user.into(), password: format!("{user}-secret") };
    let keys = Keys { from: Some(key("reader")), to: Some(key("writer")) };
    let (from, to) = (Fixture::with(keys.from.clone()).await, Fixture::with(keys.to.clone()).await);
    images::seed(&from.store, "shop/web", "2");
    let check =
        CheckJob { from: endpoint("dev", &from), to: endpoint("prod-eu", &to), images: vec!["shop/web:2".into()] };
    let engine = engine();
    let report = engine.check(&check, keys.clone()).await;
    assert_eq!(report.error, None);
    assert_eq!((report.objects, report.bytes), (5, report.bytes_missing));
    assert_eq!(to.store.repositories(), Vec::<String>::new(), "a check changes nothing");

    let told = Mutex::new(Vec::new());
    let done = engine.copy(&approved(&check, &report), keys.clone(), &|r| told.lock().unwrap().push(r.state)).await;
    assert_eq!((done.state, done.error), (CopyState::Succeeded, None));
    assert_eq!((done.bytes, done.bytes_total), (report.bytes, report.bytes));
    assert!(to.store.manifest("shop/web", "2").is_some());
    assert!(told.lock().unwrap().iter().all(|s| *s != CopyState::Succeeded), "only the last word says so");
    assert_eq!(engine.check(&check, keys).await.bytes_missing, 0);
    tokio::time::timeout(std::time::Duration::from_secs(5), engine.closed()).await.unwrap();
}

#[tokio::test]
async fn failures_are_told_in_the_report_and_a_moved_tag_is_stale() {
    let (from, to) = (Fixture::start().await, Fixture::start().await);
    images::seed(&from.store, "shop/web", "1");
    let check = |image: &str| CheckJob {
        from: endpoint("dev", &from),
        to: endpoint("prod-eu", &to),
        images: vec![image.into()],
    };
    let engine = engine();
    for (image, why) in
        [("shop/web:9", "not found"), ("Shop/Web", "is no repository"), ("shop/web@sha256:1", "is no digest")]
    {
        let error = engine.check(&check(image), Keys::default()).await.error.unwrap();
        assert!(error.contains(why), "{image}: {error}");
    }
    let mut unknown = check("shop/web:1");
    unknown.to.backend = "floppy".into();
    let error = engine.check(&unknown, Keys::default()).await.error.unwrap();
    assert!(error.contains("unknown backend `floppy`, want one of oci, memory"), "{error}");

    let report = engine.check(&check("shop/web:1"), Keys::default()).await;
    let other = images::seed(&from.store, "shop/web", "2");
    from.store.put_manifest("shop/web", Some("1"), from.store.manifest("shop/web", other.as_str()).unwrap()).unwrap();
    let done = engine.copy(&approved(&check("shop/web:1"), &report), Keys::default(), &|_| ()).await;
    assert_eq!(done.state, CopyState::Stale);
    assert!(done.error.unwrap().contains("the tag moved"));
    assert_eq!(to.store.repositories(), Vec::<String>::new());
}

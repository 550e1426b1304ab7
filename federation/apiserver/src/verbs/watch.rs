//! watch: the state (if asked), then every change, as one line of JSON each.
//! In: a call and where to begin; out: a stream that ends by timeout, shutdown, or 410 when the watcher fell too far
//! behind. It holds no queue: it reads the store's history at its own pace.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{Call, read};
use crate::{
    config::User,
    http::{Options, Reply, Target, View},
    refusal::Refusal,
    select::Selection,
    server::Inner,
    store::{Change, Stored},
    table,
};

/// Whoever asks to watch for longer than this has to begin again.
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// One watcher's place in the history.
struct Watcher {
    server: Arc<Inner>,
    user: User,
    target: Target,
    options: Options,
    view: View,
    selection: Selection,
    /// Everything up to here was sent.
    seen: u64,
    changed: watch::Receiver<u64>,
    first: Option<Bytes>,
    ends: Instant,
    bookmark: Instant,
    ended: bool,
    sent_columns: bool,
}

/// Begins a watch.
pub(crate) fn watch(call: &Call<'_>) -> Result<Reply, Refusal> {
    let options = call.options;
    let selection = Selection::parse(&options.label_selector, &options.field_selector, call.resource())?;
    let asked = match options.resource_version.as_str() {
        "" | "0" => None,
        text => {
            Some(text.parse::<u64>().map_err(|_| Refusal::bad_request(format!("invalid resource version {text:?}")))?)
        }
    };
    call.server.store.ensure(&call.resource().collection);
    let memory = call.server.store.read();
    let current = memory.revision();
    if let Some(asked) = asked.filter(|asked| *asked > current) {
        // From another life of this server (in memory, or before a restore): the watcher has to list again.
        return Ok(gone(asked, current));
    }
    let Some(collection) = memory.collection(&call.resource().collection) else {
        return Err(Refusal::internal("the collection was just made"));
    };
    let with_state = asked.is_none() || options.send_initial;
    if let Some(asked) = asked.filter(|asked| !with_state && collection.since(*asked).is_none()) {
        return Ok(gone(asked, current));
    }
    let timeout = options.timeout_s.map_or(call.server.config.watch_timeout, Duration::from_secs).min(TIMEOUT_MAX);
    let mut watcher = Watcher {
        server: call.server.clone(),
        user: call.user.clone(),
        target: call.target.clone(),
        options: options.clone(),
        view: call.view,
        selection,
        seen: if with_state { current } else { asked.unwrap_or(current) },
        changed: collection.subscribe(),
        first: None,
        ends: Instant::now() + timeout,
        bookmark: Instant::now() + call.server.config.bookmark_every,
        ended: false,
        sent_columns: false,
    };
    if with_state {
        let namespace = &call.target.namespace;
        let items: Vec<Arc<Stored>> = collection.iter(namespace).map(|(_, stored)| stored.clone()).collect();
        drop(memory);
        watcher.first = Some(watcher.initial(&items));
    }
    let frames = stream::unfold(watcher, |mut watcher| async move {
        watcher.next().await.map(|bytes| (Ok::<_, std::convert::Infallible>(Frame::data(bytes)), watcher))
    });
    let mut reply = Reply::bytes(200, Bytes::new());
    reply.body = StreamBody::new(frames).boxed_unsync();
    Ok(reply)
}

/// The watcher has to list again. It is told so within the stream, as kube-apiserver does: clients begin anew at an ERROR event, and some ask
/// again for the same revision, for ever, where the watch itself is refused.
fn gone(asked: u64, current: u64) -> Reply {
    Reply::bytes(200, Bytes::from(error(asked, current)))
}

fn error(asked: u64, current: u64) -> String {
    format!("{}\n", json!({"type": "ERROR", "object": too_old(asked, current).to_value()}))
}

fn too_old(asked: u64, current: u64) -> Refusal {
    Refusal::expired(format!("too old resource version: {asked} ({current})"))
}

impl Watcher {
    fn with_call<T>(&self, f: impl FnOnce(&Call<'_>) -> T) -> T {
        f(&Call {
            server: &self.server,
            user: &self.user,
            target: &self.target,
            options: &self.options,
            view: self.view,
            agent: "",
        })
    }

    fn wants(&self, stored: &Stored, namespace: &str, name: &str) -> bool {
        (self.target.namespace.is_empty() || self.target.namespace == namespace)
            && (self.target.name.is_empty() || self.target.name == name)
            && self.selection.matches(stored)
    }

    /// The state, as additions; then the bookmark that says it is whole.
    fn initial(&mut self, items: &[Arc<Stored>]) -> Bytes {
        let mut out = BytesMut::new();
        for stored in items {
            let fits = self.target.name.is_empty() || crate::object::meta(&stored.value(), "name") == self.target.name;
            if fits && self.selection.matches(stored) {
                self.event(&mut out, "ADDED", stored);
            }
        }
        if self.options.send_initial && self.options.bookmarks {
            self.put_bookmark(&mut out, true);
        }
        out.freeze()
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take().filter(|bytes| !bytes.is_empty()) {
            return Some(first);
        }
        while !self.ended {
            self.changed.mark_unchanged();
            let out = self.drain();
            if !out.is_empty() {
                return Some(out);
            }
            let wake = if self.options.bookmarks { self.bookmark.min(self.ends) } else { self.ends };
            tokio::select! {
                changed = self.changed.changed() => self.ended = changed.is_err(),
                () = tokio::time::sleep_until(wake) => {
                    let now = Instant::now();
                    self.ended = now >= self.ends;
                    if self.options.bookmarks && now >= self.bookmark {
                        self.bookmark = now + self.server.config.bookmark_every;
                        let mut out = BytesMut::new();
                        self.put_bookmark(&mut out, false);
                        return Some(out.freeze());
                    }
                }
                () = self.server.shutdown.cancelled() => self.ended = true,
            }
        }
        None
    }

    /// Everything since the last time, or the error that ends the watch.
    fn drain(&mut self) -> Bytes {
        let changes: Option<Vec<Change>> = {
            let memory = self.server.store.read();
            let changes = memory
                .collection(&self.target.resource.collection)
                .and_then(|collection| collection.since(self.seen).map(|changes| changes.cloned().collect()));
            if changes.is_some() {
                self.seen = memory.revision();
            }
            changes
        };
        let mut out = BytesMut::new();
        let Some(changes) = changes else {
            self.ended = true;
            out.put_slice(error(self.seen, self.server.store.read().revision()).as_bytes());
            return out.freeze();
        };
        for change in &changes {
            let wants = |stored: &Stored| self.wants(stored, &change.key.namespace, &change.key.name);
            let before = change.before.as_deref().is_some_and(wants);
            let after = change.after.as_deref().is_some_and(wants);
            let kind = match (before, after) {
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
                (false, false) => continue,
            };
            self.event(&mut out, kind, change.stored());
        }
        out.freeze()
    }

    fn event(&mut self, out: &mut BytesMut, kind: &str, stored: &Arc<Stored>) {
        out.put_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        match self.view {
            View::Full => out.put_slice(&self.with_call(|call| read::bytes_of(call, stored))),
            View::Metadata => out.put_slice(table::metadata(&stored.value()).to_string().as_bytes()),
            View::Table => {
                let meta = json!({"resourceVersion": stored.revision.to_string()});
                let mut table = table::table(&self.target.resource, std::slice::from_ref(stored), meta);
                // The columns come once; kubectl keeps them.
                if self.sent_columns {
                    table["columnDefinitions"] = Value::Null;
                }
                self.sent_columns = true;
                out.put_slice(table.to_string().as_bytes());
            }
        }
        out.put_slice(b"}\n");
    }

    fn put_bookmark(&self, out: &mut BytesMut, initial_end: bool) {
        let resource = &self.target.resource;
        let mut meta = json!({"resourceVersion": self.seen.to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.view {
            View::Full => json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": meta}),
            View::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
            }
            View::Table => {
                let list = json!({"resourceVersion": self.seen.to_string()});
                let mut table = table::table(resource, &[], list);
                table["rows"] = json!([{"cells": [], "object": {"kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1", "metadata": meta}}]);
                table
            }
        };
        let event = json!({"type": "BOOKMARK", "object": object});
        out.put_slice(format!("{event}\n").as_bytes());
    }
}

//! `atoll get KIND [NAME…]`: objects as the server's own table, or as JSON or YAML.

use http::header::ACCEPT;
use kube::Resource as _;
use kube::api::{DynamicObject, ListParams, Request, WatchEvent, WatchParams};
use serde_json::{Value, json};

use super::Globals;
use super::connect::{Connection, WATCH_AGAIN};
use super::failure::{Failure, Outcome};
use super::kinds::{self, Kind};
use super::output::{Output, columns, note, print};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Show objects.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// A kind (clusters, bundles, replicationrequests, …), several with commas, or KIND/NAME
    #[arg(value_name = "KIND")]
    kind: String,
    /// Names; none: all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those with these labels, for example tier=gold
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Go on showing what changes
    #[arg(short = 'w', long)]
    watch: bool,
}

impl Get {
    /// Runs it.
    pub(crate) async fn run(mut self, globals: &Globals) -> Outcome {
        let at = globals.hub().await?;
        if let Some((kind, name)) = self.kind.clone().split_once('/') {
            self.kind = kind.to_owned();
            self.names.insert(0, name.to_owned());
        }
        let mut found = Vec::new();
        for word in self.kind.split(',') {
            found.push(kinds::find(&at.client, word).await?);
        }
        let watchable = found.len() == 1 && self.names.len() <= 1;
        if self.watch && (!watchable || matches!(globals.output, Output::Json | Output::Yaml)) {
            return Err(Failure::usage("--watch shows one kind, and at most one name, as text"));
        }
        match globals.output {
            Output::Text | Output::Wide => {
                for (i, kind) in found.iter().enumerate() {
                    if i > 0 {
                        print("");
                    }
                    self.table(&at, kind, globals.output).await?;
                }
                Ok(())
            }
            output => self.objects(&at, &found, output).await,
        }
    }

    fn namespace<'a>(&self, at: &'a Connection) -> Option<&'a str> {
        (!self.all_namespaces).then_some(at.namespace.as_str())
    }

    fn list(&self) -> ListParams {
        let params = self.selector.iter().fold(ListParams::default(), |params, labels| params.labels(labels));
        match self.names.as_slice() {
            [one] => params.fields(&format!("metadata.name={one}")),
            _ => params,
        }
    }

    async fn objects(&self, at: &Connection, found: &[Kind], output: Output) -> Outcome {
        let mut items: Vec<(usize, DynamicObject)> = Vec::new();
        for (i, kind) in found.iter().enumerate() {
            if self.names.is_empty() {
                let api = kind.api(&at.client, self.namespace(at));
                let list =
                    api.list(&self.list()).await.map_err(Failure::api(format!("get {}", kind.resource.plural)))?;
                items.extend(list.items.into_iter().map(|object| (i, object)));
            }
            for name in &self.names {
                items.push((i, kinds::read(at, kind, name).await?));
            }
        }
        if output == Output::Name {
            for (i, object) in &items {
                print(found[*i].name_of(object.metadata.name.as_deref().unwrap_or_default()));
            }
            return Ok(());
        }
        let values: Vec<Value> = items.into_iter().map(|(i, object)| plain(&found[i], object)).collect();
        match values.as_slice() {
            [one] if self.names.len() == 1 => output.show(one, String::new),
            many => output.show(&json!({"apiVersion": "v1", "kind": "List", "items": many}), String::new),
        }
    }

    async fn table(&self, at: &Connection, kind: &Kind, output: Output) -> Outcome {
        // One name is asked for by its path, so that "not found" is said.
        if let [name] = self.names.as_slice() {
            kinds::read(at, kind, name).await?;
        }
        let what = format!("get {}", kind.resource.plural);
        let url = DynamicObject::url_path(&kind.resource, self.namespace(at).filter(|_| kind.namespaced));
        let mut table: Value = at
            .client
            .request(as_table(Request::new(&url).list(&self.list()), &what)?)
            .await
            .map_err(Failure::api(&what))?;
        let mut layout = Layout::of(&table, output == Output::Wide, kind.namespaced && self.all_namespaces);
        if self.names.len() > 1 {
            self.only_named(&mut table, kind)?;
        }
        let rows = layout.rows(&table);
        if rows.is_empty() && !self.watch {
            let place = self.namespace(at).filter(|_| kind.namespaced);
            note(match place {
                Some(namespace) => format!("no {} in namespace {namespace}", kind.resource.plural),
                None => format!("no {}", kind.resource.plural),
            });
            return Ok(());
        }
        print(layout.text(rows, true));
        if self.watch { self.follow(at, &url, &table, &mut layout).await } else { Ok(()) }
    }

    /// Leaves the rows of the objects that were asked for.
    fn only_named(&self, table: &mut Value, kind: &Kind) -> Outcome {
        let name_of = |row: &Value| row["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let Some(rows) = table["rows"].as_array_mut() else { return Ok(()) };
        if let Some(name) = self.names.iter().find(|name| !rows.iter().any(|row| name_of(row) == **name)) {
            return Err(Failure::failed(format!("{} `{name}`: there is none", kind.resource.kind)));
        }
        rows.retain(|row| self.names.contains(&name_of(row)));
        Ok(())
    }

    async fn follow(&self, at: &Connection, url: &str, table: &Value, layout: &mut Layout) -> Outcome {
        let mut version = table["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
        let mut params = WatchParams::default();
        params.label_selector.clone_from(&self.selector);
        params.field_selector = self.names.first().map(|name| format!("metadata.name={name}"));
        loop {
            let request = as_table(Request::new(url).watch(&params, &version), "watch")?;
            let events = at.client.request_events::<Value>(request).await.map_err(Failure::api("watch"))?;
            let mut events = std::pin::pin!(events);
            while let Some(event) = futures::StreamExt::next(&mut events).await {
                match event.map_err(Failure::api("watch"))? {
                    WatchEvent::Added(change) | WatchEvent::Modified(change) | WatchEvent::Deleted(change) => {
                        if let Some(new) = change["rows"][0]["object"]["metadata"]["resourceVersion"].as_str() {
                            new.clone_into(&mut version);
                        }
                        let rows = layout.rows(&change);
                        print(layout.text(rows, false));
                    }
                    WatchEvent::Bookmark(mark) => version.clone_from(&mark.metadata.resource_version),
                    WatchEvent::Error(status) => return Err(Failure::failed(format!("watch: {}", status.message))),
                }
            }
            // A server that ends watches at once is not asked all the time.
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }
}

/// An object with its kind, without what only servers care about.
pub(crate) fn plain(kind: &Kind, mut object: DynamicObject) -> Value {
    object.metadata.managed_fields = None;
    let mut value = serde_json::to_value(&object).unwrap_or_default();
    value["apiVersion"] = json!(kind.resource.api_version);
    value["kind"] = json!(kind.resource.kind);
    value
}

fn as_table<E: std::error::Error>(
    request: Result<http::Request<Vec<u8>>, E>,
    what: &str,
) -> Outcome<http::Request<Vec<u8>>> {
    let mut request = request.map_err(Failure::on(what))?;
    request.headers_mut().insert(ACCEPT, http::HeaderValue::from_static(TABLE));
    Ok(request)
}

/// Which columns are shown, and how wide they have become.
struct Layout {
    headings: Vec<String>,
    shown: Vec<usize>,
    with_namespace: bool,
    widths: Vec<usize>,
}

impl Layout {
    fn of(table: &Value, wide: bool, with_namespace: bool) -> Self {
        let definitions = table["columnDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_shown = |d: &&(usize, &Value)| wide || d.1["priority"].as_i64().unwrap_or(0) == 0;
        let all: Vec<(usize, &Value)> = definitions.iter().enumerate().collect();
        let shown: Vec<&(usize, &Value)> = all.iter().filter(is_shown).collect();
        let names = shown.iter().map(|(_, d)| d["name"].as_str().unwrap_or_default().to_owned());
        let namespace = with_namespace.then(|| "Namespace".to_owned());
        let headings = namespace.into_iter().chain(names).collect();
        Self { headings, shown: shown.iter().map(|(i, _)| *i).collect(), with_namespace, widths: Vec::new() }
    }

    fn rows(&self, table: &Value) -> Vec<Vec<String>> {
        let rows = table["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        let row = |row: &Value| {
            let namespace = row["object"]["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
            let cells = self.shown.iter().map(|i| cell(&row["cells"][*i]));
            self.with_namespace.then_some(namespace).into_iter().chain(cells).collect()
        };
        rows.iter().map(row).collect()
    }

    /// Rows aligned with those that were printed before.
    fn text(&mut self, rows: Vec<Vec<String>>, headed: bool) -> String {
        let mut all = rows;
        if headed {
            all.insert(0, self.headings.iter().map(|h| h.to_uppercase()).collect());
        }
        for row in &all {
            self.widths.resize(row.len().max(self.widths.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let padded = all.into_iter().map(|row| {
            let cells = row.into_iter().zip(&self.widths);
            cells.map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>()
        });
        columns::<String, String>(&[], padded)
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

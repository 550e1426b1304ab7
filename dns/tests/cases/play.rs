//! Plays a scenario: a stage, its stand-ins, a clock that moves only when the script or a waiting answer moves it.
//!
//! In: steps. Out: the lines that did not hold. The stage is set with the first step that needs it; what changes in the topology
//! afterwards is published before the next one.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use atoll_api::facts::Facts;
use atoll_api::topology::{Topology, Version};
use atoll_dns::Config;
use atoll_reach::Route;
use hickory_proto::rr::Name;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::expect::{Came, differences, duration, number};
use crate::script::Step;
use crate::setting;
use crate::stage::member::{MemberDns, Section};
use crate::stage::ways::WAYS;
use crate::stage::{Agent, Stage};
use crate::wording::{absolute, behaviour, echoes, query, record};

/// Real time between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);
/// Looks before the clock begins to move: what is at work needs no clock.
const LOOKS: u32 = 8;
/// How far the clock moves at a look.
const STRIDE: Duration = Duration::from_millis(10);

/// A line that did not hold, and why.
type Wrong = (usize, String);

/// Plays `steps`; what did not hold.
pub(crate) async fn play(steps: Vec<Step>) -> Vec<Wrong> {
    let (clock, ended) = sync_channel::<()>(1);
    // tokio moves a paused clock by itself when nothing runs, except while a blocking task does: sockets take real time.
    tokio::task::spawn_blocking(move || ended.recv());
    let mut scene = Scene::new(clock);
    let mut wrong = Vec::new();
    for step in &steps {
        // A flood is one moment.
        let played = if step.words[0] == "flood" { scene.flood(step).await } else { waited(scene.step(step)).await };
        match played {
            Ok(more) => wrong.extend(more),
            Err(why) => {
                wrong.push(why);
                break;
            }
        }
    }
    if let Some(stage) = scene.stage.take() {
        // Its threads end in real time.
        waited_beyond(150, stage.end()).await;
    }
    wrong
}

/// Awaits `future`; when it takes long, the clock moves.
async fn waited<T>(future: impl Future<Output = T>) -> T {
    waited_beyond(LOOKS, future).await
}

/// Awaits `future`; after so many looks the clock moves.
async fn waited_beyond<T>(looks: u32, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for look in 0_u32.. {
        tokio::select! {
            biased;
            done = &mut future => return done,
            () = looked() => if look > looks { tokio::time::advance(STRIDE).await },
        }
    }
    unreachable!("there is always another look")
}

async fn looked() {
    tokio::task::spawn_blocking(|| std::thread::park_timeout(LOOK)).await.unwrap();
}

struct Scene {
    _clock: SyncSender<()>,
    servers: HashMap<String, MemberDns>,
    /// How much of what each was asked has been told.
    told: HashMap<String, usize>,
    facts: BTreeMap<String, Value>,
    changed: bool,
    config: Config,
    hub: bool,
    agents: HashMap<String, Agent>,
    routes: HashMap<String, Route>,
    stage: Option<Stage>,
}

impl Scene {
    fn new(clock: SyncSender<()>) -> Self {
        let settings = json!({"apex": "atoll.internal", "defaultSet": "prod"});
        Self {
            _clock: clock,
            servers: HashMap::new(),
            told: HashMap::new(),
            facts: BTreeMap::from([("settings".to_owned(), settings)]),
            changed: false,
            config: Config::default(),
            hub: true,
            agents: HashMap::new(),
            routes: HashMap::new(),
            stage: None,
        }
    }

    /// What of it does not hold.
    ///
    /// # Errors
    /// When it can't be played.
    async fn step(&mut self, step: &Step) -> Result<Vec<Wrong>, Wrong> {
        let bad = |why: String| (step.line, why);
        let plain = step.plain();
        match (step.words[0].as_str(), plain.as_slice()) {
            ("config", []) => self.config = setting::config(step, |n| Some(self.servers.get(n)?.addr))?,
            ("server", [name, rest @ ..]) => self.server(step, name, rest).await?,
            ("forget", [server, owner]) => {
                let owner = Name::from_ascii(owner).map_err(|e| bad(e.to_string()))?;
                self.known(step, server)?.forget(&absolute(owner));
            }
            ("member", _) => self.put([setting::member(step, |n| Some(self.servers.get(n)?.addr))?]),
            ("service", _) => self.put(setting::service(step, &self.facts)?),
            ("fact", [key]) => {
                let value = serde_saphyr::from_str(&step.text()).map_err(|e| bad(e.to_string()))?;
                self.put([((*key).to_owned(), value)]);
            }
            ("gone", [key]) => {
                self.facts.remove(*key).ok_or_else(|| bad(format!("no fact `{key}`")))?;
                self.changed = true;
            }
            ("route", [member, way]) => {
                let way = if *way == "relay" { Route::Relay } else { Route::Direct };
                self.routes.insert((*member).to_owned(), way);
                self.changed = true;
            }
            ("agent", [member]) => {
                let agent = self.stage().await.agent(member).await;
                self.agents.insert((*member).to_owned(), agent);
            }
            ("hub", [word]) => {
                self.hub = *word != "silent";
                self.heard().await;
            }
            ("behave", [server, manner @ ..]) => self.known(step, server)?.behave(behaviour(manner).map_err(bad)?),
            ("advance", [by]) => self.advance(duration(by).map_err(bad)?).await,
            ("ask", [name, kind]) => return self.ask(step, name, kind).await,
            ("asked", [server]) => return self.asked(step, server),
            ("explain", [name, kind]) => return Ok(self.explain(step, name, kind).await),
            ("metric", [name, ">=", least]) => return self.metric(step, name, least),
            _ => return Err(bad(format!("`{}` is no statement: see dns/tests/cases/main.rs", step.words.join(" ")))),
        }
        Ok(Vec::new())
    }

    fn known(&self, step: &Step, server: &str) -> Result<&MemberDns, Wrong> {
        self.servers.get(server).ok_or_else(|| (step.line, format!("no server `{server}`")))
    }

    fn put(&mut self, facts: impl IntoIterator<Item = (String, Value)>) {
        self.facts.extend(facts);
        self.changed = true;
    }

    async fn server(&mut self, step: &Step, name: &str, rest: &[&str]) -> Result<(), Wrong> {
        if !self.servers.contains_key(name) {
            let (apex, ip) = match rest {
                [] => ("cluster.local", "127.0.0.1"),
                [apex] => (*apex, "127.0.0.1"),
                [apex, "at", ip] => (*apex, *ip),
                _ => return Err((step.line, "server NAME [domain] [at IP]".to_owned())),
            };
            self.servers.insert(name.to_owned(), MemberDns::at(ip, apex).await);
        }
        let server = &self.servers[name];
        for (line, text) in &step.block {
            let record = |text: &str| record(text, &server.apex()).map_err(|why| (*line, why));
            let text = text.trim();
            match text.split_once(' ') {
                Some(("+answer", rest)) => server.add(Section::Answer, record(rest)?),
                Some(("+authority", rest)) => server.add(Section::Authority, record(rest)?),
                Some(("+additional", rest)) => server.add(Section::Additional, record(rest)?),
                _ => server.learn(record(text)?),
            }
        }
        Ok(())
    }

    fn topology(&self) -> Result<Topology, String> {
        let mut facts = Facts::default();
        for (key, value) in &self.facts {
            facts.put(key.clone(), value);
        }
        let topology = Topology::from_facts(Version { epoch: 1, generation: 1 }, &facts);
        if topology.unread.is_empty() { Ok(topology) } else { Err(format!("{:?} can't be read", topology.unread)) }
    }

    /// The stage with everything that was said of it so far.
    async fn stage(&mut self) -> &Stage {
        if self.stage.is_none() || self.changed {
            let topology = self.topology().unwrap_or_else(|why| panic!("{why}: {:#?}", self.facts));
            let direct = topology.clusters.keys().map(|c| (c.as_str().to_owned(), Route::Direct));
            let routes: HashMap<String, Route> = direct.chain(self.routes.clone()).collect();
            match &self.stage {
                None => self.stage = Some(Stage::everywhere(self.config.clone(), topology).await),
                Some(stage) => {
                    stage.routes.set(routes.clone());
                    stage.publish(topology).await;
                }
            }
            self.stage.as_ref().unwrap().routes.set(routes);
            self.changed = false;
        }
        self.heard().await;
        self.stage.as_ref().unwrap()
    }

    /// The hub's word is as fresh as the script says.
    async fn heard(&mut self) {
        if let Some(stage) = &self.stage {
            let heard = self.hub.then(Instant::now);
            stage.topology.send_modify(|s| s.heard = heard);
            looked().await;
        }
    }

    async fn advance(&mut self, by: Duration) {
        self.stage().await;
        let step = if by <= Duration::from_secs(120) { Duration::from_secs(1) } else { by };
        let mut left = by;
        while !left.is_zero() {
            let now = left.min(step);
            tokio::time::advance(now).await;
            looked().await;
            left -= now;
            self.heard().await;
        }
    }

    async fn ask(&mut self, step: &Step, name: &str, kind: &str) -> Result<Vec<Wrong>, Wrong> {
        let bad = |why: String| (step.line, why);
        let from = step.option("from").unwrap_or("127.0.0.1").to_owned();
        let over: Option<Vec<&str>> = step.option("over").map(|o| o.split(',').collect());
        let times = step.option("times").map_or(Ok(1), number).map_err(bad)?;
        let stage = self.stage().await;
        let mut wrong = Vec::new();
        for way in WAYS.iter().filter(|w| over.as_ref().is_none_or(|o| o.contains(&w.transport))) {
            for _ in 0..times {
                let query = query(step, name, kind).map_err(bad)?;
                let start = Instant::now();
                let octets = (way.ask)(stage, &from, &query.to_vec().unwrap()).await;
                let came = Came { octets, took: start.elapsed() };
                if let Some(Err(why)) = came.octets.as_deref().map(|octets| echoes(&query, octets)) {
                    wrong.push((step.line, format!("over {}: {why}", way.transport)));
                }
                let more = differences(&step.block, &came).into_iter();
                wrong.extend(more.map(|(line, why)| (line, format!("over {}: {why}", way.transport))));
            }
        }
        Ok(wrong)
    }

    /// Many names at once, `*` a number in each; the clock stands.
    async fn flood(&mut self, step: &Step) -> Result<Vec<Wrong>, Wrong> {
        let bad = |why: String| (step.line, why);
        let from = step.option("from").unwrap_or("127.0.0.1").to_owned();
        let count = step.option("count").map_or(Ok(1000), number).map_err(bad)?;
        let plain = step.plain();
        let [pattern, kind] = plain.as_slice() else { return Err(bad("flood NAME TYPE count=N".to_owned())) };
        let stage = self.stage().await;
        let names: Vec<String> = (0..count).map(|n| pattern.replace('*', &n.to_string())).collect();
        for some in names.chunks(32) {
            let queries = some.iter().map(|name| query(step, name, kind).map(|q| q.to_vec().unwrap()));
            let queries = queries.collect::<Result<Vec<_>, _>>().map_err(bad)?;
            futures::future::join_all(queries.iter().map(|packet| stage.raw(&from, packet))).await;
        }
        Ok(Vec::new())
    }

    fn asked(&mut self, step: &Step, server: &str) -> Result<Vec<Wrong>, Wrong> {
        let all = self.known(step, server)?.asked();
        let told = self.told.insert(server.to_owned(), all.len()).unwrap_or(0);
        let got = &all[told..];
        let counts = |(line, text): &(usize, String)| -> Option<(usize, bool)> {
            let n = |text: &str| text.parse::<usize>().ok();
            let text = text.trim();
            match (text.strip_prefix("count "), text.strip_prefix("at most ")) {
                (Some(c), _) => Some((*line, n(c) == Some(got.len()))),
                (_, Some(c)) => Some((*line, n(c).is_some_and(|max| got.len() <= max))),
                _ => None,
            }
        };
        if let Some((line, ok)) = step.block.first().and_then(counts) {
            return Ok(if ok {
                Vec::new()
            } else {
                vec![(line, format!("it was asked {}: {:?} …", got.len(), &got[..got.len().min(20)]))]
            });
        }
        let wanted: Vec<&str> = step.block.iter().map(|(_, l)| l.trim()).filter(|l| *l != "nothing").collect();
        Ok(if wanted == got { Vec::new() } else { vec![(step.line, format!("it was asked {got:?}"))] })
    }

    async fn explain(&mut self, step: &Step, name: &str, kind: &str) -> Vec<Wrong> {
        let from = step.option("from").map(str::to_owned);
        let ask = atoll_dns::Ask { name: name.to_owned(), qtype: kind.to_owned(), from, ecs: None };
        let said = self.stage().await.server.explain(ask).await;
        let text = said.to_string();
        let has = |line: &str| line.trim().strip_prefix("has ").is_some_and(|wanted| text.contains(wanted.trim()));
        let missing = step.block.iter().filter(|(_, l)| !has(l));
        missing.map(|(line, l)| (*line, format!("`{}` does not hold of\n{said:#}", l.trim()))).collect()
    }

    fn metric(&self, step: &Step, name: &str, least: &str) -> Result<Vec<Wrong>, Wrong> {
        let least = number(least).map_err(|why| (step.line, why))? as f64;
        let stage = self.stage.as_ref().ok_or_else(|| (step.line, "nothing was asked yet".to_owned()))?;
        let text = prometheus::TextEncoder::new().encode_to_string(&stage.metrics.gather()).unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap_or(0.0);
        Ok(if value >= least { Vec::new() } else { vec![(step.line, format!("it is {value}"))] })
    }
}

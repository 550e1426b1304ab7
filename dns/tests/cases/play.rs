//! Plays a scenario: a stage, its stand-ins, a clock that moves only when the script or a waiting answer moves it.
//!
//! In: steps. Out: the lines that did not hold. The stage is set with the first step that needs it; what changes in the topology
//! afterwards is published before the next one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use atoll_api::facts::Facts;
use atoll_api::topology::{Topology, Version};
use atoll_dns::{Config, Files};
use atoll_reach::Route;
use atoll_wire::follow::Line;
use bytes::Bytes;
use hickory_proto::rr::Name;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::expect::{Came, differences, duration, number};
use crate::hub::Hub;
use crate::script::Step;
use crate::secondary::Secondary;
use crate::setting;
use crate::signing::{self, Keys};
use crate::stage::clock::{Standing, moving, settled, stand};
use crate::stage::member::{Manner, MemberDns, Section};
use crate::stage::ways::proxied;
use crate::stage::{Agent, Given, Stage};
use crate::wording::{absolute, behaviour, echoes, query, record};
use crate::zones::{on, ways};

/// Looks before the clock begins to move: what is at work needs no clock.
const LOOKS: u32 = 16;
/// The same at the end: threads end in real time.
const LOOKS_AT_END: u32 = 150;

/// A line that did not hold, and why.
pub(crate) type Wrong = (usize, String);

/// Plays `steps`; what did not hold.
pub(crate) async fn play(steps: Vec<Step>) -> Vec<Wrong> {
    let mut scene = waited(Scene::new(stand())).await;
    let mut wrong = Vec::new();
    for step in &steps {
        // A flood is one moment.
        let played = match step.words[0].as_str() {
            "flood" => scene.flood(step).await,
            // It moves the clock itself.
            "probed" => {
                waited(scene.set()).await;
                scene.step(step).await
            }
            _ => waited(scene.step(step)).await,
        };
        match played {
            Ok(more) => wrong.extend(more),
            Err(why) => {
                wrong.push(why);
                break;
            }
        }
    }
    if let Some(stage) = scene.stage.take() {
        moving(LOOKS_AT_END, stage.end()).await;
    }
    wrong
}

/// Awaits `future`; when it takes long, the clock moves.
async fn waited<T>(future: impl Future<Output = T>) -> T {
    moving(LOOKS, future).await
}

pub(crate) struct Scene {
    _clock: Standing,
    servers: HashMap<String, MemberDns>,
    /// How much of what each was asked has been told.
    pub(crate) told: HashMap<String, usize>,
    /// What `$NAME` stands for in facts: ports of backends, addresses of servers and secondaries.
    pub(crate) words: HashMap<String, String>,
    pub(crate) keys: Keys,
    /// The cookie that the server gave last.
    cookie: Vec<u8>,
    pub(crate) secondaries: HashMap<String, Secondary>,
    pub(crate) backends: HashMap<String, Backend>,
    pub(crate) map: watch::Sender<Option<Bytes>>,
    pub(crate) mmdb: watch::Sender<Option<Bytes>>,
    /// What stores updates, and the line to it until the stage is set.
    pub(crate) storing: Hub,
    line: Line,
    facts: BTreeMap<String, Value>,
    changed: bool,
    config: Config,
    hub: bool,
    agents: HashMap<String, Agent>,
    routes: HashMap<String, Route>,
    pub(crate) stage: Option<Stage>,
}

impl Scene {
    async fn new(clock: Standing) -> Self {
        let (storing, line) = Hub::new().await;
        let settings = json!({"apex": "atoll.internal", "defaultSet": "prod"});
        Self {
            _clock: clock,
            servers: HashMap::new(),
            told: HashMap::new(),
            words: HashMap::new(),
            keys: Keys::new(),
            cookie: Vec::new(),
            secondaries: HashMap::new(),
            backends: HashMap::new(),
            map: watch::Sender::new(None),
            mmdb: watch::Sender::new(None),
            storing,
            line,
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
                let text =
                    self.words.iter().fold(step.text(), |text, (word, is)| text.replace(&format!("${word}"), is));
                let value = serde_saphyr::from_str(&text).map_err(|e| bad(e.to_string()))?;
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
            ("hub", [word @ ("silent" | "back")]) => {
                self.hub = *word != "silent";
                self.heard().await;
            }
            ("hub", [word]) => self.hub_turns(word).map_err(bad)?,
            ("key", _) => self.keys.extend([signing::key(step).map_err(bad)?]),
            ("update", [zone]) => return self.update(step, zone).await,
            ("stored", []) => return Ok(self.stored(step)),
            ("transfer", [zone, kind]) => return self.transfer(step, zone, kind).await,
            ("secondary", [name, rest @ ..]) => self.secondary(step, name, rest).await?,
            ("notified", [name]) => return self.notified(step, name).await,
            ("backend", [name, rest @ ..]) => self.backend(step, name, rest).await?,
            ("probed", [name, ip, times]) => self.probed(step, name, ip, times).await?,
            ("told", []) => return Ok(self.told(step).await),
            ("file", [which]) => self.file(step, which).await?,
            // It asks us what we ask it.
            ("behave", [server, "looping"]) => {
                let at = self.stage().await.addr;
                self.known(step, server)?.behave(Manner::Forwarding(at));
            }
            ("behave", [server, manner @ ..]) => self.known(step, server)?.behave(behaviour(manner).map_err(bad)?),
            ("advance", [by]) => {
                let stride = step.option("step").map(duration).transpose().map_err(bad)?;
                self.advance(duration(by).map_err(bad)?, stride).await;
            }
            ("ask", [name, kind]) => return self.ask(step, name, kind).await,
            ("asked", [server]) => return self.asked(step, server),
            ("together", []) => return self.together(step).await,
            ("seats", []) => return self.seats(step).await,
            ("linger", []) => return self.linger(step).await,
            ("explain", [name, kind]) => return Ok(self.explain(step, name, kind).await),
            ("metric", [name, ">=", least]) => return self.metric(step, name, least),
            _ => return Err(bad(format!("`{}` is no statement: see dns/tests/cases/main.rs", step.words.join(" ")))),
        }
        Ok(Vec::new())
    }

    pub(crate) fn known(&self, step: &Step, server: &str) -> Result<&MemberDns, Wrong> {
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
            let server = MemberDns::at(ip, apex).await;
            self.words.insert(name.to_owned(), server.addr.to_string());
            self.servers.insert(name.to_owned(), server);
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
        let mut topology = Topology::from_facts(Version { epoch: 1, generation: 1 }, &facts);
        self.storing.fill(&mut topology);
        if topology.unread.is_empty() { Ok(topology) } else { Err(format!("{:?} can't be read", topology.unread)) }
    }

    /// The stage with everything that was said of it so far.
    pub(crate) async fn stage(&mut self) -> &Stage {
        if self.stage.is_none() || self.changed {
            let topology = self.topology().unwrap_or_else(|why| panic!("{why}: {:#?}", self.facts));
            let direct = topology.clusters.keys().map(|c| (c.as_str().to_owned(), Route::Direct));
            let routes: HashMap<String, Route> = direct.chain(self.routes.clone()).collect();
            match &self.stage {
                None => {
                    let files = Files { map: Some(self.map.subscribe()), mmdb: Some(self.mmdb.subscribe()) };
                    let given = Given { line: self.line.clone(), files };
                    let stage = Stage::given(self.config.clone(), topology, given).await;
                    self.storing.tells(stage.topology.clone());
                    self.stage = Some(stage);
                }
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

    /// Sets the stage.
    async fn set(&mut self) {
        self.stage().await;
    }

    /// The hub's word is as fresh as the script says.
    pub(crate) async fn heard(&mut self) {
        if let Some(stage) = &self.stage {
            let heard = self.hub.then(Instant::now);
            stage.topology.send_modify(|s| s.heard = heard);
            settled().await;
        }
    }

    /// By strides of a second, or smaller ones where what goes on meanwhile takes real time.
    async fn advance(&mut self, by: Duration, stride: Option<Duration>) {
        self.stage().await;
        let step = if let Some(stride) = stride {
            stride
        } else if by <= Duration::from_secs(120) {
            Duration::from_secs(1)
        } else {
            by
        };
        let mut left = by;
        while !left.is_zero() {
            let now = left.min(step);
            tokio::time::advance(now).await;
            settled().await;
            left -= now;
            self.heard().await;
        }
    }

    async fn ask(&mut self, step: &Step, name: &str, kind: &str) -> Result<Vec<Wrong>, Wrong> {
        let bad = |why: String| (step.line, why);
        let from = step.option("from").unwrap_or("127.0.0.1").to_owned();
        let times = step.option("times").map_or(Ok(1), number).map_err(bad)?;
        let crowd = step.option("crowd").map_or(Ok(1), number).map_err(bad)?;
        let proxy = step.option("proxy").map(|ip| ip.parse().map(proxied)).transpose();
        let proxy = proxy.map_err(|_| bad("proxy=IP".to_owned()))?;
        let (keys, mut given) = (self.keys.clone(), self.cookie.clone());
        let stage = self.stage().await;
        let mut wrong = Vec::new();
        for way in ways(step, if proxy.is_some() { "tcp,dot,doh" } else { "" }) {
            for _ in 0..times {
                let query = query(step, &on(name, way), kind, &given).map_err(bad)?;
                let mut sent = signing::sent(step, &keys, query.clone()).map_err(bad)?;
                let start = Instant::now();
                let asking = (0..crowd).map(|_| async {
                    let octets = match &proxy {
                        Some(first) => stage.behind(way.transport, &from, first, &sent.octets).await,
                        None => (way.ask)(stage, &from, &sent.octets).await,
                    };
                    (octets, start.elapsed())
                });
                for (octets, took) in futures::future::join_all(asking).await {
                    let signature = octets.as_deref().map(|octets| sent.judge(octets)).unwrap_or_default();
                    let came = Came { octets, took, signature };
                    if let Some(Err(why)) = came.octets.as_deref().map(|octets| echoes(&query, octets)) {
                        wrong.push((step.line, format!("over {}: {why}", way.transport)));
                    }
                    let block: Vec<Wrong> = step.block.iter().map(|(line, text)| (*line, on(text, way))).collect();
                    let more = differences(&block, &came).into_iter();
                    wrong.extend(more.map(|(line, why)| (line, format!("over {}: {why}", way.transport))));
                    given = came.cookie().unwrap_or(given);
                }
            }
        }
        self.cookie = given;
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
        let mut answered = 0;
        for some in names.chunks(32) {
            let queries = some.iter().map(|name| query(step, name, kind, &[]).map(|q| q.to_vec().unwrap()));
            let queries = queries.collect::<Result<Vec<_>, _>>().map_err(bad)?;
            let replies = futures::future::join_all(queries.iter().map(|packet| stage.raw(&from, packet))).await;
            answered += replies.iter().flatten().filter(|octets| octets[2] & 2 == 0).count();
        }
        let wanted = |text: &str| text.trim().strip_prefix("answered ").and_then(|n| n.parse().ok()) == Some(answered);
        let differ = step.block.iter().filter(|(_, text)| !wanted(text));
        Ok(differ.map(|(line, _)| (*line, format!("{answered} had a whole answer"))).collect())
    }
}

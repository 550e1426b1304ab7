//! The rules of one Ingress at one host: what goes to backends (named, so that policies find it), and what is sent elsewhere (without a
//! name, for nginx redirects before it looks at lists and logins). Pure.

use super::hosts::{Host, Owned};
use super::read::finding;
use super::steps::{for_host, step};
use super::wish::{Backend, Canary, Port, Wish, full};
use super::{Part, Step};
use crate::kinds::gateway::{
    BackendObjectReference, HTTPBackendRef, HTTPPathMatch, HTTPRequestRedirect, HTTPRouteFilter, HTTPRouteMatch,
    HTTPRouteRule, NamedMatch,
};

/// What is looked at while rules are written.
pub(super) struct Writing<'a> {
    pub(super) wish: &'a Wish,
    pub(super) host: &'a Host,
    pub(super) part: &'a mut Part,
}

impl Writing<'_> {
    /// The rules that go to backends.
    pub(super) fn served(&mut self, owned: &[&Owned]) -> Vec<HTTPRouteRule> {
        owned.iter().flat_map(|owned| self.path(owned)).collect()
    }

    fn path(&mut self, owned: &Owned) -> Vec<HTTPRouteRule> {
        let wished = &self.wish.paths[owned.at];
        let (matched, odd) = wished.path.matched(self.host.regex);
        let name = format!("path-{}", self.part.named);
        self.part.named += 1;
        let main = backend(self.part, &wished.backend);
        let mut rules = match &owned.canary {
            Some((canary, other)) => {
                let other = backend(self.part, other);
                parts(canary, &matched, main, other)
            }
            None => vec![(String::new(), on(&matched, None), vec![main])],
        };
        let names: Vec<String> = rules.iter().map(|(suffix, ..)| format!("{name}{suffix}")).collect();
        if let Some(why) = odd {
            // What would be meant is refused.
            self.close(&names, "use-regex", format!("`{}`: {why}", wished.path.value));
        }
        self.rewrite(owned, &names);
        let each = rules.drain(..).zip(names).map(|((_, matched, backends), name)| HTTPRouteRule {
            name: Some(name),
            matches: vec![matched],
            filters: self.wish.filters.clone(),
            backend_refs: backends,
            timeouts: self.wish.timeouts.clone().map(Box::new),
            retry: self.wish.retry.clone().map(Box::new),
            session_persistence: self.wish.session.clone().map(Box::new),
        });
        each.collect()
    }

    fn rewrite(&mut self, owned: &Owned, names: &[String]) {
        let path = &self.wish.paths[owned.at].path;
        let Some(target) = self.wish.rewrite.as_ref().filter(|target| **target != path.value) else { return };
        match path.rewrite(target) {
            Ok((pattern, new)) if regex::Regex::new(&pattern).is_ok() => {
                let step = step("path", serde_json::json!({"pattern": pattern, "substitution": new}));
                self.part.steps.push(Step { rules: names.to_vec(), step });
            }
            // The path was refused already.
            Ok(_) => {}
            Err(why) => self.close(names, "rewrite-target", why),
        }
    }

    /// The filters that ask the host of the request, which is to be a name.
    pub(super) fn at_host(&mut self, host: &str, rules: &[HTTPRouteRule]) {
        let names: Vec<String> = rules.iter().filter_map(|rule| rule.name.clone()).collect();
        for step in self.wish.steps.iter().filter_map(|step| for_host(step, host)) {
            if host.is_empty() || host.starts_with('*') {
                self.close(&names, "auth-url", format!("`$host` is no one name at `{host}`: write the host"));
            } else {
                self.part.steps.push(Step { rules: names.clone(), step });
            }
        }
    }

    /// Paths that can't be carried out as they are meant answer 503.
    fn close(&mut self, names: &[String], what: &str, why: String) {
        let finding = finding(what, why, true);
        if !self.part.findings.contains(&finding) {
            self.part.findings.push(finding);
        }
        self.part.closed.extend(names.iter().cloned());
    }

    /// Every path is sent elsewhere.
    pub(super) fn sent(&mut self, owned: &[&Owned], to: &HTTPRequestRedirect) -> Vec<HTTPRouteRule> {
        let each = owned.iter().map(|owned| {
            let (matched, _) = self.wish.paths[owned.at].path.matched(self.host.regex);
            redirect(on(&matched, None), to.clone())
        });
        each.collect()
    }

    /// The root alone is sent elsewhere.
    pub(super) fn root(&self) -> Option<HTTPRouteRule> {
        let to = self.wish.app_root.clone()?;
        let exact = HTTPPathMatch { match_type: Some("Exact".to_owned()), value: Some("/".to_owned()) };
        let to = HTTPRequestRedirect {
            path: Some(full(format!("{to}?"))),
            status_code: Some(302),
            ..HTTPRequestRedirect::default()
        };
        Some(redirect(on(&exact, None), to))
    }
}

/// The name of a port below 0, which is a place among a part's `port_names`; nothing where it is a number.
pub fn port_name(names: &[String], port: Option<i32>) -> Option<&str> {
    let place = port.filter(|number| *number < 0)?;
    names.get(usize::try_from(-1 - place).ok()?).map(String::as_str)
}

/// A backend; a port that has a name becomes a place among those of the part.
pub(super) fn backend(part: &mut Part, backend: &Backend) -> HTTPBackendRef {
    let port = match &backend.port {
        Port::Number(number) => *number,
        Port::Name(name) => {
            let at = part.port_names.iter().position(|known| known == name);
            let at = at.unwrap_or_else(|| {
                part.port_names.push(name.clone());
                part.port_names.len() - 1
            });
            -1 - i32::try_from(at).unwrap_or(i32::MAX - 1)
        }
    };
    let target =
        BackendObjectReference { name: backend.service.clone(), port: Some(port), ..BackendObjectReference::default() };
    HTTPBackendRef { target, ..HTTPBackendRef::default() }
}

/// A rule that sends elsewhere.
pub(super) fn redirect(matched: HTTPRouteMatch, to: HTTPRequestRedirect) -> HTTPRouteRule {
    let filter = HTTPRouteFilter {
        filter_type: "RequestRedirect".to_owned(),
        request_redirect: Some(to),
        ..HTTPRouteFilter::default()
    };
    HTTPRouteRule { matches: vec![matched], filters: vec![filter], ..HTTPRouteRule::default() }
}

pub(super) fn on(path: &HTTPPathMatch, header: Option<NamedMatch>) -> HTTPRouteMatch {
    HTTPRouteMatch { path: Some(path.clone()), headers: header.into_iter().collect(), ..HTTPRouteMatch::default() }
}

type Written = (String, HTTPRouteMatch, Vec<HTTPBackendRef>);

/// What goes to the canary: by header, then by cookie, then by weight.
fn parts(canary: &Canary, path: &HTTPPathMatch, main: HTTPBackendRef, other: HTTPBackendRef) -> Vec<Written> {
    let of = |kind: &str, name: &str, value: String| NamedMatch {
        match_type: Some(kind.to_owned()),
        name: name.to_owned(),
        value,
    };
    let mut rules = Vec::new();
    if let Some(header) = &canary.header {
        match (&canary.value, &canary.pattern) {
            (Some(value), _) => rules.push((
                "-header".to_owned(),
                on(path, Some(of("Exact", header, value.clone()))),
                vec![other.clone()],
            )),
            (None, Some(pattern)) => {
                let anywhere = of("RegularExpression", header, format!(".*(?:{pattern}).*"));
                rules.push(("-header".to_owned(), on(path, Some(anywhere)), vec![other.clone()]));
            }
            (None, None) => {
                rules.push((
                    "-header".to_owned(),
                    on(path, Some(of("Exact", header, "always".to_owned()))),
                    vec![other.clone()],
                ));
                rules.push((
                    "-no-header".to_owned(),
                    on(path, Some(of("Exact", header, "never".to_owned()))),
                    vec![main.clone()],
                ));
            }
        }
    }
    if let Some(cookie) = &canary.cookie {
        let says = |word: &str| {
            of("RegularExpression", "cookie", format!("(?:.*;\\s*)?{}={word}(?:\\s*;.*)?", regex::escape(cookie)))
        };
        rules.push(("-cookie".to_owned(), on(path, Some(says("always"))), vec![other.clone()]));
        rules.push(("-no-cookie".to_owned(), on(path, Some(says("never"))), vec![main.clone()]));
    }
    let backends = match canary.weight {
        0 => vec![main],
        weight => vec![
            HTTPBackendRef { weight: Some(canary.total - weight), ..main },
            HTTPBackendRef { weight: Some(weight), ..other },
        ],
    };
    rules.push((String::new(), on(path, None), backends));
    rules
}

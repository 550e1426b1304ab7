//! BackendTLSPolicies: which one counts for a port of a Service, and what is wrong with the others. Pure.
//!
//! In: the policies, ConfigMaps. Out: [`Policies`], looked up by service and port name. The one with the port's name goes before the one
//! without, the older before the younger, which is Conflicted. Source: Gateway API (BackendTLSPolicy), GEP-713 (conflicts).

use std::collections::HashMap;
use std::sync::Arc;

use atoll_api::kinds::gateway::BackendTLSPolicy;
use kube::ResourceExt as _;

use super::backend::Problem;
use super::build::Input;
use crate::objects::age;
use crate::status::Verdict;
use crate::tls::{Authorities, BackendCheck, Keys};

/// What a policy is for: group, kind, namespace, name, port name.
type Target = (String, String, String, String, Option<String>);

/// Every policy, judged.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) all: Vec<Judged>,
    by_target: HashMap<Target, usize>,
}

/// A policy with what became of it.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) object: Arc<BackendTLSPolicy>,
    pub(crate) accepted: Verdict,
    pub(crate) resolved: Verdict,
    /// How certificates are checked, or why nobody can be trusted.
    pub(crate) check: Result<BackendCheck, String>,
}

impl Policies {
    /// The policy that counts for a port of a service, by its place in `all`.
    pub(super) fn find(&self, kind: (&str, &str), namespace: &str, name: &str, port: &str) -> Option<usize> {
        let at = |section: Option<&str>| {
            let target = (kind.0.to_owned(), kind.1.to_owned(), namespace.to_owned(), name.to_owned());
            let target = (target.0, target.1, target.2, target.3, section.map(str::to_owned));
            self.by_target.get(&target).copied()
        };
        if self.by_target.is_empty() {
            return None;
        }
        at(Some(port)).or_else(|| at(None))
    }

    /// Policies that target a service but lost against an older one.
    pub(super) fn losers<'a>(&'a self, namespace: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        let lost = self.all.iter().enumerate().filter(|(_, j)| j.accepted.reason == "Conflicted");
        let here = lost.filter(move |(_, j)| j.object.namespace().as_deref() == Some(namespace));
        here.filter(move |(_, j)| j.object.spec.target_refs.iter().any(|t| t.name == name)).map(|(at, _)| at)
    }
}

/// Judges every policy, the oldest first.
pub(super) fn judge(input: &Input<'_>, keys: &mut Keys) -> Policies {
    let mut objects: Vec<&Arc<BackendTLSPolicy>> = input.objects.policies.iter().collect();
    objects.sort_by_cached_key(|policy| age(&***policy));
    let mut policies = Policies::default();
    for object in objects {
        let index = policies.all.len();
        let namespace = object.namespace().unwrap_or_default();
        let mut won = false;
        for t in &object.spec.target_refs {
            let target = (t.group.clone(), t.kind.clone(), namespace.clone(), t.name.clone(), t.section_name.clone());
            won |= *policies.by_target.entry(target).or_insert(index) == index;
        }
        policies.all.push(one(input, object, &namespace, won, keys));
    }
    policies
}

fn one(input: &Input<'_>, object: &Arc<BackendTLSPolicy>, namespace: &str, won: bool, keys: &mut Keys) -> Judged {
    let mut resolved = Verdict::resolved();
    let trusted = match trusted(input, object, namespace, keys) {
        Ok((trusted, None)) => Ok(trusted),
        Ok((trusted, Some(problem))) => {
            resolved = Verdict::new("ResolvedRefs", false, problem.reason, problem.message);
            if trusted.is_empty() { Err("no authority can be used") } else { Ok(trusted) }
        }
        Err(why) => Err(why),
    };
    let accepted = match &trusted {
        _ if !won => Verdict::new("Accepted", false, "Conflicted", "an older policy has the same target"),
        Ok(_) => Verdict::new("Accepted", true, "Accepted", "the policy is in force"),
        Err(why) => Verdict::new("Accepted", false, "NoValidCACertificate", *why),
    };
    let said = &object.spec.validation;
    let check = trusted.map_err(str::to_owned).map(|trusted| BackendCheck {
        trusted,
        system: said.well_known_ca_certificates.is_some(),
        name: said.hostname.clone(),
        names: said.subject_alt_names.clone(),
        depth: None,
    });
    Judged { object: Arc::clone(object), accepted, resolved, check }
}

type Trusted = (Vec<Arc<Authorities>>, Option<Problem>);

/// The authorities that a policy trusts, and the first reference that leads nowhere.
fn trusted(
    input: &Input<'_>,
    object: &BackendTLSPolicy,
    namespace: &str,
    keys: &mut Keys,
) -> Result<Trusted, &'static str> {
    let said = &object.spec.validation;
    match said.well_known_ca_certificates.as_deref() {
        None => {}
        Some("System") if !keys.trust_system() => return Err("this machine trusts no authority"),
        Some("System") => return Ok((Vec::new(), None)),
        Some(_) => return Err("wellKnownCACertificates: only System is known"),
    }
    let (mut found, mut first) = (Vec::new(), None);
    for reference in &said.ca_certificate_refs {
        let at = format!("{} `{namespace}/{}`", reference.kind, reference.name);
        let one = if !(reference.group.is_empty() && reference.kind == "ConfigMap") {
            Err(Problem::new("InvalidKind", format!("{at} is no ConfigMap")))
        } else {
            let invalid = |why: String| Problem::new("InvalidCACertificateRef", format!("{at}: {why}"));
            let map = input.objects.config(namespace, &reference.name);
            map.ok_or_else(|| invalid("does not exist".to_owned())).and_then(|m| keys.authorities(m).map_err(invalid))
        };
        match one {
            Ok(one) => found.push(one),
            Err(problem) => drop(first.get_or_insert(problem)),
        }
    }
    Ok((found, first))
}

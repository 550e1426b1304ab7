//! One name: what was answered last, until when that may be used, when it is asked again. Takes `now`; never asks.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::{Leads, NameSettings};

/// So often a name is asked at the most, whatever its TTL.
pub(super) const TTL_MIN: Duration = Duration::from_secs(1);
/// And at least so often.
const TTL_MAX: Duration = Duration::from_secs(3600);
/// What is not there is asked again after this time at the latest.
const NOTHING_MAX: Duration = Duration::from_secs(30);
/// After that time where nobody says how long it is not there.
const NOTHING_USUAL: Duration = Duration::from_secs(5);
/// Who does not answer is asked again after this time, twice as long each time, up to the bound.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// So long past its TTL an answer is used when there is no other. Source: RFC 8767 §5, one to three days.
const STALE_MAX: Duration = Duration::from_secs(86_400);
/// So many addresses of a name are used.
const ADDRESSES_MAX: usize = 64;

/// What a question was answered with: no addresses where there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) addresses: Vec<IpAddr>,
    /// How long that holds; nothing where nobody says so.
    pub(super) ttl: Option<Duration>,
}

/// An answer for one family of addresses, or why there is none.
pub(super) type Answered = Result<Answer, String>;

/// Addresses of one family.
#[derive(Debug, Default)]
struct Side {
    addresses: Vec<IpAddr>,
    /// They are used until then without a further answer.
    until: Option<Instant>,
}

impl Side {
    fn note(&mut self, answered: &Answered, now: Instant) {
        match answered {
            Ok(answer) => {
                self.addresses.clone_from(&answer.addresses);
                self.until = Some(now + answer.kept() + STALE_MAX);
            }
            Err(_) if self.until.is_some_and(|until| now >= until) => *self = Self::default(),
            Err(_) => {}
        }
    }
}

impl Answer {
    /// How long it is not asked again.
    fn kept(&self) -> Duration {
        match (self.addresses.is_empty(), self.ttl) {
            (true, ttl) => ttl.unwrap_or(NOTHING_USUAL).clamp(TTL_MIN, NOTHING_MAX),
            (false, ttl) => ttl.unwrap_or_default().clamp(TTL_MIN, TTL_MAX),
        }
    }
}

/// What is known of a name.
#[derive(Debug, Default)]
pub(super) struct State {
    sides: [Side; 2],
    /// How often in a row somebody did not answer.
    failures: u32,
    /// What went wrong last.
    pub(super) trouble: Option<String>,
    /// When it is asked again; nothing: it was never asked.
    pub(super) again: Option<Instant>,
}

impl State {
    /// One that led there before anybody was asked.
    pub(super) fn remembered(addresses: &[IpAddr], now: Instant) -> Self {
        let side = |is_v4: bool| Side {
            addresses: addresses.iter().copied().filter(|ip| ip.is_ipv4() == is_v4).collect(),
            until: Some(now + STALE_MAX),
        };
        Self { sides: [side(true), side(false)], ..Self::default() }
    }

    /// Takes an answer for A and one for AAAA.
    pub(super) fn note(&mut self, answered: &[Answered; 2], now: Instant) {
        for (side, answered) in self.sides.iter_mut().zip(answered) {
            side.note(answered, now);
        }
        let good = || answered.iter().filter_map(|a| a.as_ref().ok());
        // Where there are addresses, that there are none of the other family does not matter.
        let some = good().filter(|a| !a.addresses.is_empty()).map(Answer::kept).min();
        let mut wait = some.or_else(|| good().map(Answer::kept).min()).unwrap_or(TTL_MAX);
        let bad = [("A", &answered[0]), ("AAAA", &answered[1])];
        let bad: Vec<String> =
            bad.iter().filter_map(|(kind, a)| a.as_ref().err().map(|why| format!("{kind}: {why}"))).collect();
        if bad.is_empty() {
            (self.failures, self.trouble) = (0, None);
        } else {
            wait = wait.min((AGAIN_MIN * 2u32.saturating_pow(self.failures.min(16))).min(AGAIN_MAX));
            (self.failures, self.trouble) = (self.failures.saturating_add(1), Some(bad.join("; ")));
        }
        self.again = Some(now + wait);
    }

    /// Until when its addresses are used if nobody answers any more; nothing where there are none.
    pub(super) fn until(&self) -> Option<Instant> {
        self.sides.iter().filter(|side| !side.addresses.is_empty()).filter_map(|side| side.until).max()
    }

    /// What it leads to. `reaches`: whether there is a way to such an address at all; where there is none to any, they all count.
    pub(super) fn leads(&self, settings: &NameSettings, reaches: impl Fn(IpAddr) -> bool) -> Leads {
        let all = || self.sides.iter().flat_map(|side| &side.addresses).map(IpAddr::to_canonical);
        let mut refused: Vec<_> = all().filter_map(|ip| Some((ip, settings.refuses(ip)?))).collect();
        let mut addresses: Vec<IpAddr> = all().filter(|ip| settings.refuses(*ip).is_none()).collect();
        if addresses.iter().any(|ip| reaches(*ip)) {
            addresses.retain(|ip| reaches(*ip));
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        refused.sort_unstable();
        refused.dedup();
        refused.truncate(ADDRESSES_MAX);
        Leads { addresses, refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(addresses: &[&str], ttl: u64) -> Answered {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        Ok(Answer { addresses, ttl: Some(Duration::from_secs(ttl)) })
    }

    fn leads(state: &State) -> String {
        let leads = state.leads(&NameSettings::default(), |_| true);
        leads.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    fn waits(state: &State, now: Instant) -> u64 {
        (state.again.unwrap() - now).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn both_families_count_and_the_shorter_ttl_holds() {
        let (mut state, now) = (State::default(), Instant::now());
        state.note(&[answer(&["10.0.0.2", "10.0.0.1"], 60), answer(&["fd00::1"], 20)], now);
        assert_eq!((leads(&state).as_str(), waits(&state, now)), ("10.0.0.1 10.0.0.2 fd00::1", 20));
        state.note(&[answer(&["10.0.0.3"], 60), answer(&[], 5)], now);
        assert_eq!(
            (leads(&state).as_str(), waits(&state, now)),
            ("10.0.0.3", 60),
            "none of a family is no reason to ask"
        );
        state.note(&[answer(&[], 900), answer(&[], 900)], now);
        assert_eq!((leads(&state).as_str(), waits(&state, now)), ("", 30), "what is not there is looked for soon");
        for (ttl, wait) in [(0, 1), (1, 1), (86_400, 3600)] {
            state.note(&[answer(&["10.0.0.3"], ttl), answer(&[], 0)], now);
            assert_eq!(waits(&state, now), wait, "TTL {ttl}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_answer_is_used_for_a_day_past_its_time() {
        let (mut state, mut now) = (State::default(), Instant::now());
        let bad = || [Err("timed out".to_owned()), Err("timed out".to_owned())];
        state.note(&[answer(&["10.0.0.1"], 60), answer(&[], 60)], now);
        let mut waited = Vec::new();
        for _ in 0..7 {
            now = state.again.unwrap();
            state.note(&bad(), now);
            waited.push(waits(&state, now));
            assert_eq!(leads(&state), "10.0.0.1");
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(state.trouble.as_deref(), Some("A: timed out; AAAA: timed out"));
        let end = state.until().unwrap();
        state.note(&bad(), end - Duration::from_secs(1));
        assert_eq!(leads(&state), "10.0.0.1");
        state.note(&bad(), end);
        assert_eq!(leads(&state), "", "RFC 8767: not for ever");
        state.note(&[answer(&["10.0.0.4"], 60), Err("refused".to_owned())], now);
        assert_eq!((leads(&state).as_str(), state.trouble.as_deref()), ("10.0.0.4", Some("AAAA: refused")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_said_and_what_has_no_way_is_left_out() {
        let (mut state, now) = (State::default(), Instant::now());
        state.note(
            &[answer(&["10.0.0.1", "169.254.169.254"], 60), answer(&["2001:db8::1", "::ffff:127.0.0.1"], 60)],
            now,
        );
        let found = state.leads(&NameSettings::default(), |ip| ip.is_ipv4());
        assert_eq!(found.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        let refused: Vec<String> = found.refused.iter().map(|(ip, why)| format!("{ip} {why}")).collect();
        assert_eq!(refused, ["127.0.0.1 loopback", "169.254.169.254 link-local"]);
        let nowhere = state.leads(&NameSettings::default(), |_| false);
        assert_eq!(nowhere.addresses.len(), 2, "where there is no way to anybody, who knows");
    }
}

//! What scenarios look at beside answers: what servers were asked, the decision, metrics.
//!
//! In: a step. Out: the lines that did not hold. The words are in `main.rs`.

use crate::expect::number;
use crate::play::{Scene, Wrong};
use crate::script::Step;

impl Scene {
    pub(crate) fn asked(&mut self, step: &Step, server: &str) -> Result<Vec<Wrong>, Wrong> {
        let all = self.known(step, server)?.asked();
        let told = self.told.insert(server.to_owned(), all.len()).unwrap_or(0);
        let got = &all[told..];
        if let Some((line, least)) =
            step.block.first().and_then(|(l, t)| Some((*l, t.trim().strip_prefix("ports >= ")?)))
        {
            let (least, ports) = (number(least).map_err(|why| (line, why))?, self.known(step, server)?.ports());
            return Ok(if ports >= least { Vec::new() } else { vec![(line, format!("from {ports} ports"))] });
        }
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

    pub(crate) async fn explain(&mut self, step: &Step, name: &str, kind: &str) -> Vec<Wrong> {
        let from = step.option("from").map(str::to_owned);
        let ask = atoll_dns::Ask { name: name.to_owned(), qtype: kind.to_owned(), from, ecs: None };
        let said = self.stage().await.server.explain(ask).await;
        let text = said.to_string();
        let has = |line: &str| line.trim().strip_prefix("has ").is_some_and(|wanted| text.contains(wanted.trim()));
        let missing = step.block.iter().filter(|(_, l)| !has(l));
        missing.map(|(line, l)| (*line, format!("`{}` does not hold of\n{said:#}", l.trim()))).collect()
    }

    pub(crate) fn metric(&self, step: &Step, name: &str, least: &str) -> Result<Vec<Wrong>, Wrong> {
        let least = number(least).map_err(|why| (step.line, why))? as f64;
        let stage = self.stage.as_ref().ok_or_else(|| (step.line, "nothing was asked yet".to_owned()))?;
        let text = prometheus::TextEncoder::new().encode_to_string(&stage.metrics.gather()).unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap_or(0.0);
        Ok(if value >= least { Vec::new() } else { vec![(step.line, format!("it is {value}"))] })
    }
}

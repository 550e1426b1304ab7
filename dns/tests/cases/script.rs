//! A scenario's text as steps. Pure.
//!
//! In: text. Out: [`Step`]s with their lines, or the line that is wrong. A paragraph that asks begins with a comment, so that every
//! step has its rule above it.

/// One statement and what is indented below it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) words: Vec<String>,
    pub(crate) block: Vec<(usize, String)>,
}

impl Step {
    /// `key=value` among the words.
    pub(crate) fn option(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
    }

    /// The words that are no options, the verb left out.
    pub(crate) fn plain(&self) -> Vec<&str> {
        self.words
            .iter()
            .skip(1)
            .filter(|w| !w.contains('=') || w.contains('{') || *w == ">=")
            .map(String::as_str)
            .collect()
    }

    /// The block as one text.
    pub(crate) fn text(&self) -> String {
        self.block.iter().map(|(_, l)| format!("{l}\n")).collect()
    }
}

/// What proves something, and so needs its rule above it.
const PROVE: &[&str] = &[
    "ask", "asked", "explain", "linger", "metric", "notified", "seats", "stored", "together", "told", "transfer",
    "update",
];

/// Reads a scenario.
///
/// # Errors
/// The line that is wrong, and why.
pub(crate) fn read(text: &str) -> Result<Vec<Step>, (usize, String)> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut open, mut ruled) = (false, false);
    for (at, whole) in text.lines().enumerate() {
        let (line, bare) = (at + 1, whole.trim_end());
        if bare.is_empty() {
            (open, ruled) = (false, false);
        } else if bare.starts_with('#') {
            ruled = true;
        } else if bare.starts_with(' ') {
            let step = steps.last_mut().filter(|_| open);
            let step = step.ok_or((line, "this belongs to no statement: begin it at the margin".to_owned()))?;
            step.block.push((line, bare.to_owned()));
        } else {
            let words: Vec<String> = bare.split_whitespace().map(str::to_owned).collect();
            if PROVE.contains(&&*words[0]) && !ruled {
                return Err((line, "no rule above it: begin the paragraph with `# RFC …: \"…\"`".to_owned()));
            }
            steps.push(Step { line, words, block: Vec::new() });
            open = true;
        }
    }
    if steps.is_empty() { Err((1, "nothing in it".to_owned())) } else { Ok(steps) }
}

#[test]
fn a_question_without_a_rule_above_it_is_refused() {
    assert_eq!(read("# RFC 1034\nask x A\n  rcode NOERROR").unwrap()[0].block.len(), 1);
    for (text, line) in [("ask x A", 1), ("# rule\n\nask x A", 3), ("  rcode NOERROR", 1), ("", 1)] {
        assert_eq!(read(text).unwrap_err().0, line, "{text:?}");
    }
}

//! The states that are measured: run contexts of an agent runtime, of a wanted size, the same in every run.

use std::fmt::Write;

use crate::Failure;
use crate::wire::{Connection, literal};

/// How far the binary form of a document may lie below the size asked for, in bytes: padding moves what
/// follows by whole alignment units.
const TOLERANCE: usize = 8;
/// Stands where the revision goes; as long as every revision.
const REVISION: &str = "step-0000000000";
const WORDS: [&str; 48] = [
    "account", "agent", "answer", "audit", "batch", "billing", "branch", "budget", "cache",
    "claim", "context", "contract", "customer", "deadline", "delivery", "document", "draft",
    "estimate", "evidence", "export", "finding", "goal", "header", "invoice", "ledger", "market",
    "message", "metric", "node", "order", "payment", "plan", "policy", "price", "product", "query",
    "region", "report", "request", "result", "review", "routine", "schedule", "section", "source",
    "summary", "ticket", "vendor",
];
const SOURCES: [&str; 4] = ["parent", "step", "user", "system"];
const SENSITIVITIES: [&str; 5] = ["public", "internal", "confidential", "secret", "pii"];

/// A run context as JSON text, into which a revision can be put without a change of its size.
pub struct Document {
    text: String,
    /// Where the revision begins in `text`.
    revision: usize,
}

impl Document {
    /// Makes the document whose binary jsonb has `bytes` bytes, by the server's own measure.
    pub fn with_size(connection: &mut Connection, bytes: usize) -> Result<Self, Failure> {
        let mut size_of = |text: &str| {
            connection.value::<usize>(&format!("SELECT pg_column_size({}::jsonb)", literal(text)))
        };
        let mut variables = 1;
        while size_of(&compose(variables + 1, 0))? <= bytes {
            variables += 1;
        }
        let mut padding = bytes.saturating_sub(size_of(&compose(variables, 0))?);
        while size_of(&compose(variables, padding))? > bytes {
            padding = padding.checked_sub(1).ok_or("no document is that small")?;
        }
        let text = compose(variables, padding);
        if size_of(&text)? + TOLERANCE < bytes {
            return Err(format!("no document of {bytes} bytes was found").into());
        }
        let revision = text.find(REVISION).ok_or("the document has no revision")?;
        Ok(Document { text, revision })
    }

    /// The document as it is before its first revision.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Puts a revision into `text`, which holds this document or nothing.
    pub fn revise(&self, text: &mut String, revision: u64) {
        text.clear();
        text.push_str(&self.text[..self.revision]);
        // Writing to a String cannot fail.
        let _ = write!(text, "step-{revision:010}");
        text.push_str(&self.text[self.revision + REVISION.len()..]);
    }
}

/// A linear congruential generator (Knuth's MMIX constants): documents must not differ between runs.
pub struct Random(u64);

impl Random {
    /// A sequence of its own for every seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// A number below the bound.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // The high bits are the good ones.
        (self.0 >> 33) as usize % bound
    }

    fn word<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    /// Words with a number or an identifier among them now and then, so that the text compresses about as
    /// well as recorded runs do.
    pub fn sentence(&mut self, words: usize) -> String {
        let words: Vec<String> = (0..words)
            .map(|_| match self.below(6) {
                0 => format!("{:x}", self.below(1 << 31)),
                1 => self.below(100_000).to_string(),
                _ => self.word(&WORDS).to_owned(),
            })
            .collect();
        words.join(" ")
    }
}

/// Writes a run context with so many variables; `padding` bytes of text lengthen a note.
fn compose(variables: usize, padding: usize) -> String {
    let mut random = Random(42);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{{\"runId\":\"run-{:08x}\",\"routineId\":\"routine-{:08x}\",\"parentRunId\":null,\"status\":\"running\",\
            \"checkpoint\":\"{REVISION}\",\"permissions\":[\"run.read\",\"run.write\",\"export.blackboard\"],\
            \"resourceLimits\":{{\"maxCredits\":{},\"maxDurationMs\":{},\"maxConcurrentBranches\":4,\
            \"maxMemoryMB\":512,\"maxToolCalls\":100,\"priorityBonus\":0.25}},\"note\":\"{}\",",
        random.below(1 << 31),
        random.below(1 << 31),
        1000 + random.below(9000),
        60_000 + random.below(900_000),
        Random(7)
            .sentence(padding)
            .chars()
            .take(padding)
            .collect::<String>(),
    );
    let (mut values, mut sensitivities) = (Vec::new(), Vec::new());
    for number in 0..variables {
        let name = format!("{}_{}_{number}", random.word(&WORDS), random.word(&WORDS));
        let value = match random.below(4) {
            0 => format!("{}.{:02}", random.below(100_000), random.below(100)),
            1 => {
                let (id, score) = (random.below(1 << 31), random.below(1000));
                let words = 3 + random.below(6);
                format!(
                    r#"{{"id":"{id:08x}","score":0.{score:03},"label":"{}"}}"#,
                    random.sentence(words)
                )
            }
            _ => {
                let words = 6 + random.below(20);
                format!(r#""{}""#, random.sentence(words))
            }
        };
        let sensitivity = random.word(&SENSITIVITIES);
        values.push(format!(
            "\"{name}\":{{\"key\":\"{name}\",\"value\":{value},\"source\":\"{}\",\
                \"timestamp\":\"2026-03-{:02}T{:02}:{:02}:{:02}.{:03}Z\",\"sensitivity\":\"{sensitivity}\",\
                \"mutable\":{}}}",
            random.word(&SOURCES),
            1 + random.below(28),
            random.below(24),
            random.below(60),
            random.below(60),
            random.below(1000),
            random.below(2) == 0,
        ));
        sensitivities.push(format!(r#""{name}":"{sensitivity}""#));
    }
    let _ = write!(
        text,
        "\"variables\":{{{}}},\"intermediate\":{{\"lastTool\":\"search\",\"attempts\":2}},\
            \"exports\":[{{\"key\":\"summary\",\"destination\":\"parent_context\",\"sensitivity\":\"internal\"}}],\
            \"sensitivityMap\":{{{}}}}}",
        values.join(","),
        sensitivities.join(",")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_changes_the_text_and_not_its_length() {
        let text = compose(3, 10);
        let revision = text.find(REVISION).unwrap_or(0);
        let document = Document {
            text: text.clone(),
            revision,
        };
        let mut revised = String::new();
        document.revise(&mut revised, 42);
        assert!(revised.contains(r#""checkpoint":"step-0000000042""#));
        assert_eq!(revised.len(), text.len());
        document.revise(&mut revised, 0);
        assert_eq!(revised, text);
    }
}

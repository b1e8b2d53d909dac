//! The part of the page about benchmarks that is made of the results.

use std::fmt::Write;

use crate::Failure;
use crate::report::{HEADING, wrapped};
use crate::results::Results;

/// The page, in the checkout.
pub const PAGE: &str = "docs/benchmarks.md";
/// Columns of its prose.
const WIDTH: usize = 118;
/// Where the part begins, and ends.
const MARKS: [&str; 2] = ["<!-- results -->\n", "<!-- /results -->"];

/// The page with these results in place of those that it shows.
pub fn with_results(page: &str, results: &Results) -> Result<String, Failure> {
    let [begin, end] = MARKS;
    let parts = page
        .split_once(begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) =
        parts.ok_or_else(|| format!("{PAGE} has no {} with its end", begin.trim_end()))?;
    Ok(format!("{before}{begin}{}{end}{after}", section(results)))
}

fn section(results: &Results) -> String {
    let described = format!("{}. All of it: `{}`.", results.described(), results.command);
    let mut text = format!("\n{}\n", wrapped(&described, WIDTH).join("\n"));
    text.push_str("\n![Ratios with their targets and rounds](benchmarks/ratios.svg)\n");
    for group in &results.groups {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n### `{}`\n\n```sh\nmake bench BENCH_OPTIONS='--rows {}'\n```\n\n{HEADING}\n",
            group.name, group.name
        );
        for row in &group.rows {
            let _ = writeln!(text, "{}", row.markdown());
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::results::tests::every_kind;

    #[test]
    fn results_stand_between_the_marks_with_their_commands() {
        let results = every_kind();
        let page = "# Before\n\n<!-- results -->\nold\n<!-- /results -->\nafter\n";
        let made = with_results(page, &results).unwrap();
        assert!(made.starts_with("# Before\n\n<!-- results -->\n\n2026-11-30: PostgreSQL 15.20"));
        assert!(made.ends_with("|\n\n<!-- /results -->\nafter\n"));
        assert!(!made.contains("old"));
        for group in &results.groups {
            assert!(made.contains(&format!("--rows {}'", group.name)));
            for row in &group.rows {
                assert!(made.contains(&row.markdown()));
            }
        }
        assert_eq!(with_results(&made, &results).unwrap(), made);
    }

    #[test]
    fn a_page_without_marks_is_an_error() {
        for page in [
            "",
            "<!-- results -->\n",
            "<!-- /results -->\n<!-- results -->\n",
        ] {
            assert!(with_results(page, &every_kind()).is_err());
        }
    }
}

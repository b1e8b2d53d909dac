//! The code that pages show is that of programs which are run: a block after `<!-- from: FILE#NAME -->` stands in the
//! file between the comments `docs: NAME` and `docs: end`. `<!-- not from a program: reason -->` before a block says
//! that there is no such program.

use state_cache_docs_tests::{files_below, pages, read};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The languages of programs, as pages name them.
const LANGUAGES: [&str; 3] = ["python", "js", "rust"];

/// The text of a comment that is all of a line.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim();
    line.strip_prefix("# ").or_else(|| line.strip_prefix("// "))
}

/// The parts of a program that pages show, by name, without the indentation that all lines of a part have.
fn parts(program: &str) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::new();
    let mut lines = program.lines();
    while let Some(line) = lines.next() {
        let Some(name) = comment(line).and_then(|it| it.strip_prefix("docs: ")) else {
            continue;
        };
        let of_part = lines
            .by_ref()
            .take_while(|line| comment(line) != Some("docs: end"));
        let of_part: Vec<&str> = of_part.collect();
        let indentation = of_part.iter().filter(|line| !line.trim().is_empty());
        let indentation = indentation
            .map(|line| line.len() - line.trim_start().len())
            .min();
        let indentation = indentation.unwrap_or(0);
        let of_part: Vec<&str> = of_part
            .iter()
            .map(|line| line.get(indentation..).unwrap_or(""))
            .collect();
        let former = parts.insert(name.to_owned(), of_part.join("\n"));
        assert!(name != "end" && former.is_none(), "docs: {name}");
    }
    parts
}

/// A block of code on a page: its line, its language, its text, and the comment right before it.
struct Block<'a> {
    line: usize,
    language: &'a str,
    text: String,
    comment: Option<&'a str>,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut before = None;
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| *line != "```");
            let text = text.collect::<Vec<_>>().join("\n");
            blocks.push(Block {
                line: number + 1,
                language,
                text,
                comment: before,
            });
        }
        before = line
            .strip_prefix("<!-- ")
            .and_then(|it| it.strip_suffix(" -->"));
    }
    blocks
}

/// What is wrong with the code of a page, and which parts of programs it shows, as `FILE#NAME`.
fn compare(page: &str, program: impl Fn(&str) -> Option<String>) -> (Vec<String>, Vec<String>) {
    let (mut faults, mut shown) = (Vec::new(), Vec::new());
    for block in blocks(page) {
        let from = block.comment.and_then(|it| it.strip_prefix("from: "));
        let is_sketch = block
            .comment
            .is_some_and(|it| it.starts_with("not from a program: "));
        let fault = match from {
            None if is_sketch || !LANGUAGES.contains(&block.language) => continue,
            None => "nothing says which program it is from".to_owned(),
            Some(place) => {
                shown.push(place.to_owned());
                let (file, name) = place.split_once('#').unwrap_or((place, ""));
                match program(file).map(|text| parts(&text).remove(name)) {
                    None => format!("there is no {file}"),
                    Some(None) => format!("{file} has no part {name}"),
                    Some(Some(part)) if part == block.text => continue,
                    Some(Some(part)) => format!("{place} is now:\n{part}"),
                }
            }
        };
        faults.push(format!("line {}: {fault}", block.line));
    }
    (faults, shown)
}

/// The programs, and other files beside them.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for extension in ["py", "js", "rs"] {
        files_below(Path::new("examples"), extension, &mut files);
    }
    files_below(Path::new("clients/python/examples"), "py", &mut files);
    files_below(Path::new("clients/js/examples"), "js", &mut files);
    files
}

#[test]
fn pages_show_what_programs_do() {
    let files = files();
    let program = |file: &str| files.contains(&PathBuf::from(file)).then(|| read(file));
    let mut shown = BTreeSet::new();
    for page in pages() {
        let (faults, of_page) = compare(&page.text, program);
        assert_eq!(faults, Vec::<String>::new(), "{}", page.path.display());
        shown.extend(of_page);
    }
    assert!(shown.len() > 50, "{}", shown.len());
    for file in &files {
        for name in parts(&read(file)).keys() {
            let place = format!("{}#{name}", file.display());
            assert!(shown.contains(&place), "no page shows {place}");
        }
    }
}

#[test]
fn what_is_not_in_the_program_is_found() {
    let program = |file: &str| {
        (file == "a.py")
            .then(|| "# docs: x\n    one()\n\n      two()\n    # docs: end\n".to_owned())
    };
    let faults = |page: &str| compare(page, program).0.len();
    assert_eq!(
        faults("<!-- from: a.py#x -->\n```python\none()\n\n  two()\n```\n"),
        0
    );
    assert_eq!(
        faults("<!-- from: a.py#x -->\n```python\none()\n\n  too()\n```\n"),
        1
    );
    assert_eq!(faults("<!-- from: a.py#y -->\n```python\none()\n```\n"), 1);
    assert_eq!(faults("<!-- from: b.py#x -->\n```python\none()\n```\n"), 1);
    assert_eq!(faults("```python\none()\n```\n"), 1);
    assert_eq!(faults("```sh\nls\n```\n"), 0);
    assert_eq!(
        faults("<!-- not from a program: a sketch -->\n```rust\none();\n```\n"),
        0
    );
}

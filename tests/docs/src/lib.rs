//! The documentation as the tests in `tests/suite` read it: pages with their headings and links.
//!
//! What goes wrong here is a failed test, so everything panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One Markdown file.
pub struct Page {
    /// Its path from the root of the project.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// The anchors of its headings, as forges make them.
    pub anchors: BTreeSet<String>,
    /// Where its links lead, as written.
    pub links: Vec<String>,
}

/// The root of the project.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap().to_owned()
}

/// The text of a file of the project.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// README, CHANGELOG and every page of the book.
pub fn pages() -> Vec<Page> {
    let mut paths = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    files_below(Path::new("docs"), "md", &mut paths);
    paths.into_iter().map(Page::read).collect()
}

/// Adds the files of a folder, and of those in it, whose names end in `.extension`.
pub fn files_below(folder: &Path, extension: &str, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| folder.join(entry.unwrap().file_name()))
        .collect();
    entries.sort();
    for path in entries {
        if root().join(&path).is_dir() {
            files_below(&path, extension, into);
        } else if path.extension().is_some_and(|it| it == extension) {
            into.push(path);
        }
    }
}

impl Page {
    /// Reads and parses a page.
    pub fn read(path: PathBuf) -> Self {
        let text = read(&path);
        let (mut anchors, mut links) = (BTreeSet::new(), Vec::new());
        let mut heading: Option<String> = None;
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor_of(&heading.take().unwrap());
                    assert!(
                        anchors.insert(anchor.clone()),
                        "{}: two headings are #{anchor}",
                        path.display()
                    );
                }
                Event::Text(part) | Event::Code(part) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&part);
                    }
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    links.push(dest_url.to_string());
                }
                _ => {}
            }
        }
        Self {
            path,
            text,
            anchors,
            links,
        }
    }
}

/// The anchor of a heading, as GitHub and mdbook make it: lower case, hyphens for spaces, and nothing but letters,
/// digits, hyphens and underscores.
fn anchor_of(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

//! The pages as a book.

use state_cache_docs_tests::{files_below, pages, read, root};
use std::path::{Path, PathBuf};

/// Lines of README, which is the door and not the house.
const DOOR: usize = 250;

#[test]
fn readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(
        lines <= DOOR,
        "README.md has {lines} lines, {DOOR} are the limit"
    );
}

#[test]
fn the_summary_lists_every_page() {
    let pages = pages();
    let summary = Path::new("docs/SUMMARY.md");
    let listed = &pages
        .iter()
        .find(|page| page.path == summary)
        .unwrap()
        .links;
    let listed: Vec<PathBuf> = listed
        .iter()
        .map(|link| Path::new("docs").join(link))
        .collect();
    for page in &pages {
        if page.path.starts_with("docs") && page.path != summary {
            assert!(listed.contains(&page.path), "{}", page.path.display());
        }
    }
}

#[test]
fn every_page_begins_with_its_title() {
    for page in pages() {
        assert!(page.text.starts_with("# "), "{}", page.path.display());
    }
}

/// Bytes that a picture has at most.
const PICTURE: u64 = 100_000;

#[test]
fn every_picture_is_small_and_shown() {
    let mut pictures = Vec::new();
    files_below(Path::new("docs"), "png", &mut pictures);
    assert!(!pictures.is_empty());
    let pages = pages();
    for picture in pictures {
        let size = std::fs::metadata(root().join(&picture)).unwrap().len();
        assert!(
            size <= PICTURE,
            "{} has {size} bytes, {PICTURE} are the limit",
            picture.display()
        );
        let is_shown = pages.iter().any(|page| {
            let folder = page.path.parent().unwrap();
            page.links.iter().any(|link| folder.join(link) == picture)
        });
        assert!(is_shown, "no page shows {}", picture.display());
    }
}

/// Columns of prose; tables, blocks and comments are as wide as they must be.
const WIDTH: usize = 118;

#[test]
fn prose_is_not_wide() {
    let mut wide = Vec::new();
    for page in pages() {
        let mut in_block = false;
        for (number, line) in page.text.lines().enumerate() {
            in_block ^= line.trim_start().starts_with("```");
            let is_prose = !in_block && !line.starts_with('|') && !line.starts_with("<!--");
            if is_prose && line.chars().count() > WIDTH {
                wide.push(format!("{}:{}", page.path.display(), number + 1));
            }
        }
    }
    assert_eq!(wide, Vec::<String>::new());
}

//! Links within the project.

use state_cache_docs_tests::{pages, root};
use std::path::{Component, Path, PathBuf};

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut done, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => assert!(done.pop(), "{} leaves the project", path.display()),
            part => done.push(part),
        }
        done
    })
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages = pages();
    let mut broken = Vec::new();
    let mut checked = 0;
    for page in &pages {
        for link in &page.links {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.path.clone(),
                file => normal(&page.path.parent().unwrap().join(file)),
            };
            let found = pages.iter().find(|it| it.path == target);
            let is_there = match (found, anchor) {
                (_, "") => root().join(&target).exists(),
                (Some(found), anchor) => found.anchors.contains(anchor),
                (None, _) => false,
            };
            if !is_there {
                broken.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert!(checked > 100, "{checked} links");
    assert_eq!(broken, Vec::<String>::new());
}

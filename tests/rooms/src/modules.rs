//! The files of `src` as modules.

use crate::imports::{self, Import, Reexport};
use crate::root;
use std::collections::BTreeMap;
use std::path::Path;
use walkdir::WalkDir;

/// The modules of the extension that have a file: each by its path in the crate (`cache::read`; the root is empty).
pub struct Source {
    files: BTreeMap<String, File>,
}

pub(crate) struct File {
    /// From the root of the project.
    pub path: String,
    pub text: String,
    pub syntax: syn::File,
    pub reexports: Vec<Reexport>,
}

/// The module that a file below `src` holds.
fn module_of(path: &Path) -> String {
    let path = path.with_extension("");
    let mut parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
    if matches!(parts.last(), Some(&"mod" | &"lib")) {
        parts.pop();
    }
    parts.join("::")
}

/// The room that a module belongs to: the first part of its path. The root belongs to none.
pub(crate) fn room_of(module: &str) -> Option<&str> {
    module.split("::").next().filter(|room| !room.is_empty())
}

impl Source {
    /// Reads and parses `src`.
    pub fn read() -> Self {
        let src = root().join("src");
        let mut files = Vec::new();
        for entry in WalkDir::new(&src).sort_by_file_name() {
            let entry = entry.unwrap();
            if entry.path().extension().is_some_and(|it| it == "rs") {
                let path = entry.path().strip_prefix(&src).unwrap();
                let text = std::fs::read_to_string(entry.path()).unwrap();
                files.push((format!("src/{}", path.display()), module_of(path), text));
            }
        }
        Self::of(files)
    }

    /// Parses files, each given by its path, its module and its text.
    pub fn of(files: impl IntoIterator<Item = (String, String, String)>) -> Self {
        let files = files.into_iter().map(|(path, module, text)| {
            let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
            let reexports = imports::reexports(&module, &syntax);
            let file = File {
                path,
                text,
                syntax,
                reexports,
            };
            (module, file)
        });
        Self {
            files: files.collect(),
        }
    }

    /// Whether there is a file for a module.
    pub(crate) fn has(&self, module: &str) -> bool {
        self.files.contains_key(module)
    }

    /// The module in which the last name of a path is defined: the longest part of the path that is a module, or
    /// where that module has the name from by `pub use`.
    pub(crate) fn resolve(&self, path: &[String]) -> String {
        // A name is handed on from module to module less often than this.
        const STEPS: usize = 8;
        let mut path = path.to_vec();
        for _ in 0..STEPS {
            let mut length = path.len();
            while length > 0 && !self.has(&path[..length].join("::")) {
                length -= 1;
            }
            let module = path[..length].join("::");
            let handed_on = path.get(length).and_then(|name| {
                let file = self.files.get(&module)?;
                file.reexports.iter().find(|it| it.name == *name)
            });
            match handed_on {
                None => return module,
                Some(reexport) => {
                    let rest = path.split_off(length + 1);
                    path = [reexport.path.clone(), rest].concat();
                }
            }
        }
        panic!("{path:?} is handed on in a circle")
    }

    /// What every file imports of others.
    pub fn imports(&self) -> Vec<Import> {
        let mut found = Vec::new();
        for (module, file) in &self.files {
            // The root declares the rooms and starts them.
            let Some(from_room) = room_of(module) else {
                continue;
            };
            for (path, line) in imports::paths(module, file, self) {
                let target = self.resolve(&path);
                // The room that is named counts, also where it only hands the name on.
                let Some(to_room) = path.first().filter(|room| self.has(room)) else {
                    continue;
                };
                if target == *module {
                    continue;
                }
                found.push(Import {
                    file: file.path.clone(),
                    line,
                    from_room: from_room.to_owned(),
                    to_file: self.files[&target].path.clone(),
                    to_room: to_room.clone(),
                });
            }
        }
        found
    }

    /// The text of a room's door: `mod.rs`, or the only file.
    pub fn door(&self, room: &str) -> &str {
        &self.files[room].text
    }
}

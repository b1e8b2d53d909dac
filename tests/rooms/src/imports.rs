//! The paths that a file writes down: in `use`, in expressions and types, and among the tokens of macros.

use crate::modules::{File, Source};
use proc_macro2::{TokenStream, TokenTree};
use std::collections::BTreeSet;
use syn::visit::{self, Visit};
use syn::{Item, ItemMod, ItemUse, Macro, UseTree, Visibility};

/// One file names something of another.
#[derive(Debug)]
pub struct Import {
    /// The file, from the root of the project.
    pub file: String,
    /// The line of the path.
    pub line: usize,
    /// The room of the file.
    pub from_room: String,
    /// The file in which the thing is.
    pub to_file: String,
    /// The room that the path names.
    pub to_room: String,
}

/// A name that a module has from elsewhere and shows to others.
pub(crate) struct Reexport {
    pub name: String,
    pub path: Vec<String>,
}

/// Adds the paths of a `use`, each with the name that it gets and its line.
fn flatten(tree: &UseTree, before: &[String], into: &mut Vec<(Vec<String>, String, usize)>) {
    let joined = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
    match tree {
        UseTree::Path(it) => flatten(&it.tree, &joined(&it.ident), into),
        UseTree::Group(it) => it.items.iter().for_each(|tree| flatten(tree, before, into)),
        UseTree::Glob(it) => {
            let line = it.star_token.spans[0].start().line;
            into.push((before.to_vec(), "*".to_owned(), line));
        }
        UseTree::Name(it) if it.ident == "self" => {
            let name = before.last().unwrap().clone();
            into.push((before.to_vec(), name, it.ident.span().start().line));
        }
        UseTree::Name(it) => {
            let line = it.ident.span().start().line;
            into.push((joined(&it.ident), it.ident.to_string(), line));
        }
        UseTree::Rename(it) => {
            let line = it.ident.span().start().line;
            into.push((joined(&it.ident), it.rename.to_string(), line));
        }
    }
}

/// A path from the root of the crate, if it leads into the crate: `crate::…`, `super::…`, `self::…`, or the name of a
/// module that the file declares.
fn from_root(
    path: &[String],
    module: &[String],
    children: &BTreeSet<String>,
) -> Option<Vec<String>> {
    let first = path.first()?;
    let mut base = module.to_vec();
    let rest = match first.as_str() {
        "crate" => {
            base.clear();
            &path[1..]
        }
        "self" => &path[1..],
        "super" => {
            let up = path.iter().take_while(|part| *part == "super").count();
            base.truncate(base.len().checked_sub(up)?);
            &path[up..]
        }
        name if children.contains(name) => path,
        _ => return None,
    };
    base.extend_from_slice(rest);
    Some(base)
}

fn parts(module: &str) -> Vec<String> {
    let parts = module.split("::").filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

fn children(syntax: &syn::File) -> BTreeSet<String> {
    let modules = syntax.items.iter().filter_map(|item| match item {
        Item::Mod(it) => Some(it.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

/// What a module shows to others of what it has from elsewhere.
pub(crate) fn reexports(module: &str, syntax: &syn::File) -> Vec<Reexport> {
    let (module, children) = (parts(module), children(syntax));
    let mut found = Vec::new();
    for item in &syntax.items {
        let Item::Use(it) = item else { continue };
        if matches!(it.vis, Visibility::Inherited) {
            continue;
        }
        let mut names = Vec::new();
        flatten(&it.tree, &[], &mut names);
        for (path, name, _) in names {
            if let Some(path) = from_root(&path, &module, &children) {
                found.push(Reexport { name, path });
            }
        }
    }
    found
}

/// Every path of a file that leads into the crate, from its root, with its line. A module that hands on what another
/// module of its room defines does not import it; whoever uses the name imports the definition.
pub(crate) fn paths(module: &str, file: &File, source: &Source) -> Vec<(Vec<String>, usize)> {
    let mut walk = Walk {
        module: parts(module),
        children: children(&file.syntax),
        source,
        found: Vec::new(),
    };
    walk.visit_file(&file.syntax);
    walk.found
}

struct Walk<'a> {
    /// The module that is looked at: that of the file, or one written inside it.
    module: Vec<String>,
    children: BTreeSet<String>,
    source: &'a Source,
    found: Vec<(Vec<String>, usize)>,
}

impl Walk<'_> {
    fn note(&mut self, path: &[String], line: usize) {
        if let Some(path) = from_root(path, &self.module, &self.children) {
            self.found.push((path, line));
        }
    }

    /// Looks for paths among tokens that nobody has parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let colon =
            |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(it)) if it.as_char() == ':');
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) => {
                    // The rest of a path that begins elsewhere, or a field.
                    let goes_on = at > 0
                        && matches!(&tokens[at - 1], TokenTree::Punct(it) if matches!(it.as_char(), ':' | '.'))
                        && !(at > 1 && colon(at - 1) && !colon(at - 2));
                    let mut path = vec![first.to_string()];
                    let line = first.span().start().line;
                    while colon(at + 1) && colon(at + 2) {
                        match tokens.get(at + 3) {
                            Some(TokenTree::Ident(next)) => path.push(next.to_string()),
                            Some(TokenTree::Group(group))
                                if path[0] == "crate" || path[0] == "super" =>
                            {
                                self.group(&path, group.stream(), line);
                                break;
                            }
                            _ => break,
                        }
                        at += 3;
                    }
                    if !goes_on && path.len() > 1 {
                        self.note(&path, line);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// The first names of the branches of `before::{…}`: enough to know the rooms.
    fn group(&mut self, before: &[String], tokens: TokenStream, line: usize) {
        let mut is_first = true;
        for token in tokens {
            match token {
                TokenTree::Ident(name) if is_first => {
                    self.note(&[before, &[name.to_string()]].concat(), line);
                    is_first = false;
                }
                TokenTree::Punct(it) if it.as_char() == ',' => is_first = true,
                _ => {}
            }
        }
    }
}

impl<'a> Visit<'a> for Walk<'_> {
    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        let mut names = Vec::new();
        flatten(&item.tree, &[], &mut names);
        for (path, _, line) in names {
            let Some(path) = from_root(&path, &self.module, &self.children) else {
                continue;
            };
            let hands_on = !matches!(item.vis, Visibility::Inherited)
                && path.first() == self.module.first()
                && self.source.resolve(&path) != self.module.join("::");
            if !hands_on {
                self.found.push((path, line));
            }
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names: Vec<_> = path
            .segments
            .iter()
            .map(|it| it.ident.to_string())
            .collect();
        if names.len() > 1 && path.leading_colon.is_none() {
            self.note(&names, path.segments[0].ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, it: &'a Macro) {
        self.visit_path(&it.path);
        self.tokens(it.tokens.clone());
    }
}

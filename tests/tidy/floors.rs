//! Finds the imports of a crate that run upward or in a circle.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

/// A crate whose folders, or files at its root, are ordered like floors: each imports only from
/// itself and from those before it.
pub(crate) struct Crate {
    /// The folder of its sources, relative to the repository; it ends in a slash.
    pub(crate) src: &'static str,
    /// The rooms from the ground up.
    pub(crate) rooms: &'static [&'static str],
}

/// One source file: its path below `src`, and what it imports from its own crate.
struct File {
    name: String,
    /// The path of the module.
    module: Vec<String>,
    /// Paths that begin at the crate's root.
    imports: BTreeSet<Vec<String>>,
    /// The items of modules below it that it re-exports: the name, and the path from the crate's
    /// root.
    exports: BTreeMap<String, Vec<String>>,
}

impl Crate {
    /// What breaks the rule, one line each: a file and its import, or the files of a circle.
    pub(crate) fn broken_imports(&self, files: &[(String, String)]) -> Vec<String> {
        let files: Vec<File> = files
            .iter()
            .filter_map(|(name, text)| Some((name.strip_prefix(self.src)?, text)))
            .filter(|(name, _)| name.ends_with(".rs"))
            .map(|(name, text)| File::read(name, text))
            .collect();
        assert!(!files.is_empty(), "no source below {}", self.src);
        let mut broken = self.upward(&files);
        broken.extend(circles(&files));
        broken
    }

    fn upward(&self, files: &[File]) -> Vec<String> {
        let mut broken = Vec::new();
        for file in files.iter().filter(|file| !file.module.is_empty()) {
            let Some(own) = self.floor(&file.module) else {
                broken.push(format!("{}{}: its room is not in the list", self.src, file.name));
                continue;
            };
            for import in &file.imports {
                if self.floor(import).is_some_and(|floor| floor > own) {
                    let path = import.join("::");
                    broken.push(format!("{}{}: crate::{path}", self.src, file.name));
                }
            }
        }
        broken
    }

    fn floor(&self, path: &[String]) -> Option<usize> {
        self.rooms.iter().position(|room| Some(*room) == path.first().map(String::as_str))
    }
}

impl File {
    fn read(name: &str, text: &str) -> Self {
        let path = name.trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        let module: Vec<String> = match path {
            "lib" | "main" => Vec::new(),
            path => path.split('/').map(str::to_owned).collect(),
        };
        let parsed = syn::parse_file(text).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let mut file = Self {
            name: name.to_owned(),
            module,
            imports: BTreeSet::new(),
            exports: BTreeMap::new(),
        };
        Reader { inner: Vec::new(), file: &mut file }.visit_file(&parsed);
        file
    }
}

struct Reader<'a> {
    /// The path of inner modules at this point of the file.
    inner: Vec<String>,
    file: &'a mut File,
}

impl Reader<'_> {
    /// The path from the crate's root; `None` if it is outside the crate or inside this file.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let mut at: Vec<String> = self.file.module.iter().chain(&self.inner).cloned().collect();
        let (first, mut rest) = path.split_first()?;
        match first.as_str() {
            "crate" => return Some(rest.to_vec()),
            "self" => {}
            "super" => {
                at.pop();
                while let Some((next, behind)) = rest.split_first()
                    && next == "super"
                {
                    at.pop();
                    rest = behind;
                }
            }
            _ => return None,
        }
        at.extend(rest.iter().cloned());
        Some(at)
    }

    fn add(&mut self, path: &[String]) {
        if let Some(path) = self.absolute(path) {
            self.file.imports.insert(path);
        }
    }

    /// Adds the paths in the text of a macro, in which `syn` sees only words.
    fn add_words(&mut self, tokens: &str) {
        for (at, _) in tokens.match_indices("crate :: ") {
            let words = tokens[at..].split(" :: ").map(|word| {
                word.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
            });
            let path: Vec<String> = words.take_while(|word| !word.is_empty()).take(5).collect();
            self.add(&path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.inner.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.inner.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut paths);
        let is_export = !matches!(item.vis, syn::Visibility::Inherited);
        for (path, name) in paths {
            match self.absolute(&path) {
                Some(path) if is_export && path.starts_with(&self.file.module) => {
                    self.file.exports.insert(name, path);
                }
                Some(path) => {
                    self.file.imports.insert(path);
                }
                None => {}
            }
        }
    }

    /// `pub(super)` is a path too, but imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let path_words: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&path_words);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.add_words(&item.tokens.to_string());
        visit::visit_macro(self, item);
    }
}

/// The paths in a tree of imports, each with the name that it gets.
fn flatten(tree: &syn::UseTree, above: &mut Vec<String>, paths: &mut Vec<(Vec<String>, String)>) {
    let mut end = |name: String, shown: String, above: &[String]| {
        let mut path = above.to_vec();
        if name != "self" {
            path.push(name);
        }
        paths.push((path, shown));
    };
    match tree {
        syn::UseTree::Path(path) => {
            above.push(path.ident.to_string());
            flatten(&path.tree, above, paths);
            above.pop();
        }
        syn::UseTree::Group(group) => {
            group.items.iter().for_each(|tree| flatten(tree, above, paths));
        }
        syn::UseTree::Name(name) => end(name.ident.to_string(), name.ident.to_string(), above),
        syn::UseTree::Rename(name) => end(name.ident.to_string(), name.rename.to_string(), above),
        syn::UseTree::Glob(_) => end("self".to_owned(), "*".to_owned(), above),
    }
}

/// The file that defines what a path names.
fn target(files: &[File], path: &[String]) -> Option<usize> {
    (0..=path.len()).rev().find_map(|length| {
        let (module, rest) = path.split_at(length);
        let at = files.iter().position(|file| file.module == module)?;
        let handed_on = rest.first().and_then(|name| files[at].exports.get(name));
        handed_on.map_or(Some(at), |path| target(files, path))
    })
}

/// Circles of files that import each other. A root re-exports everything, and is in none.
fn circles(files: &[File]) -> Vec<String> {
    let edges: Vec<BTreeSet<usize>> = files
        .iter()
        .map(|file| {
            let targets = file.imports.iter().filter_map(|path| target(files, path));
            targets.filter(|at| !files[*at].module.is_empty()).collect()
        })
        .collect();
    let reachable = |from: usize| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<usize> = edges[from].iter().copied().filter(|at| *at != from).collect();
        while let Some(at) = next.pop() {
            if seen.insert(at) {
                next.extend(edges[at].iter().copied());
            }
        }
        seen
    };
    let reached: Vec<BTreeSet<usize>> = (0..files.len()).map(reachable).collect();
    let mut broken = Vec::new();
    let mut listed = BTreeSet::new();
    for at in 0..files.len() {
        let members: Vec<usize> = reached[at]
            .iter()
            .copied()
            .filter(|other| *other != at && reached[*other].contains(&at))
            .collect();
        if !members.is_empty() && listed.insert(at) {
            listed.extend(&members);
            let names: Vec<&str> =
                [at].iter().chain(&members).map(|at| files[*at].name.as_str()).collect();
            broken.push(format!("a circle of {} files: {}", names.len(), names.join(", ")));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::Crate;

    const HOUSE: Crate = Crate { src: "src/", rooms: &["low", "high"] };

    fn broken(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<(String, String)> =
            files.iter().map(|(name, text)| (format!("src/{name}"), (*text).to_owned())).collect();
        HOUSE.broken_imports(&files)
    }

    #[test]
    fn an_import_from_a_higher_room_is_found_with_file_and_name() {
        let high = ("high/mod.rs", "pub struct A;");
        for (text, found) in [
            ("use crate::high::A;", true),
            ("use super::super::high::{A as B};", true),
            ("fn f() -> crate::high::A { loop {} }", true),
            ("fn f() { print!(\"{:?}\", crate::high::A) }", true),
            ("use crate::low::B; use std::fmt;", false),
            ("pub(in crate::high) struct C;", false),
        ] {
            let expected = if found { vec!["src/low/a.rs: crate::high::A"] } else { vec![] };
            assert_eq!(broken(&[("low/a.rs", text), high]), expected, "{text}");
        }
    }

    #[test]
    fn a_room_that_the_list_does_not_have_is_found() {
        let found = broken(&[("cellar/a.rs", "")]);
        assert_eq!(found, ["src/cellar/a.rs: its room is not in the list"]);
    }

    #[test]
    fn a_circle_of_files_is_found_also_through_what_a_folder_hands_on() {
        let found = broken(&[
            ("low/mod.rs", "mod a; mod b; pub use self::b::B;"),
            ("low/a.rs", "use crate::low::B;"),
            ("low/b.rs", "use crate::low::a::A;"),
        ]);
        assert_eq!(found, ["a circle of 2 files: low/a.rs, low/b.rs"]);
        let found = broken(&[
            ("low/mod.rs", "mod a; mod b; pub use self::b::B;"),
            ("low/a.rs", "use crate::low::B;"),
            ("low/b.rs", ""),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}

//! Circles between files: files that import each other, directly or through others, are understood and changed only
//! together. Each that exists is named in `docs/architecture.md`, with its reason: a module whose file and whose parts
//! import each other, or a list of files.
//!
//! A path in the code of a file (`super::place::Place`, `crate::clock`, `polling::run`) is an import of the file whose
//! module it names. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{read, shown, sources, table_under};

/// A module, by its path: `["src", "lease", "take"]`.
type Module = Vec<String>;

/// The module of a file; none for the binary and for tests.
fn module_of(path: &Path) -> Option<Module> {
    let name = shown(path).strip_suffix(".rs")?.to_owned();
    let is_test = ["tests", "_simulation", "/fuzz"].iter().any(|ending| name.ends_with(ending));
    let is_binary = ["main", "cli", "cli/java", "log", "log/line", "signal"]
        .iter()
        .any(|binary| name == format!("src/{binary}"));
    let name = name.strip_suffix("/lib").unwrap_or(&name);
    (!is_test && !is_binary).then(|| name.split('/').map(str::to_owned).collect())
}

/// The number of components of the root of a module's crate: `src`, `protocol/src`.
fn depth(module: &Module) -> usize {
    if module[0] == "src" { 1 } else { 2 }
}

/// The code of a file without its tests, comments and string literals.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut found = String::new();
    for line in text.lines() {
        let mut rest = line.split("//").next().unwrap();
        // Every second part between quotes is a literal; one that continues on the next line has no path in it.
        while let Some((before, after)) = rest.split_once('"') {
            found.push_str(before);
            rest = after.split_once('"').map_or("", |(_, behind)| behind);
        }
        found.extend([rest, "\n"]);
    }
    found
}

/// The paths of a `use` tree: `a::{b, c::D}` has `a::b` and `a::c::D`.
fn leaves(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((before, inner)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap().trim();
        if !path.is_empty() {
            found.push(format!("{prefix}{path}"));
        }
        return;
    };
    let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
    let (mut depth, mut begin) = (0_i32, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                leaves(&format!("{prefix}{before}"), &inner[begin..at], found);
                begin = at + 1;
            }
            _ => {}
        }
    }
}

/// The paths in a file's code.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = String::new();
    let mut parts = code.split("use ");
    rest.push_str(parts.next().unwrap());
    for part in parts {
        let (tree, behind) = part.split_once(';').unwrap_or((part, ""));
        leaves("", &tree.split_whitespace().collect::<Vec<_>>().join(" "), &mut found);
        rest.push_str(behind);
    }
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = rest.split(|c| !word(c)).filter(|text| text.contains("::"));
    found.extend(words.map(|text| text.trim_matches(':').to_owned()));
    found
}

/// The modules that each module imports.
fn imports() -> BTreeMap<Module, BTreeSet<Module>> {
    let files: BTreeMap<Module, String> =
        sources().iter().filter_map(|path| Some((module_of(path)?, code(&read(path))))).collect();
    // The longest module that a path names, from a module on.
    let walk = |from: &[String], path: &[&str]| {
        let mut module = from.to_vec();
        for name in path {
            let next: Module = module.iter().cloned().chain([(*name).to_owned()]).collect();
            if !files.contains_key(&next) {
                break;
            }
            module = next;
        }
        module
    };
    let of = |module: &Module, code: &str| {
        let mut aliases: BTreeMap<String, Module> = BTreeMap::new();
        let mut found = BTreeSet::new();
        for path in paths(code) {
            let names: Vec<&str> = path.split("::").collect();
            let named = match names[0] {
                "crate" => walk(&module[..depth(module)], &names[1..]),
                "self" => walk(module, &names[1..]),
                "super" => {
                    let up = names.iter().take_while(|name| **name == "super").count();
                    walk(&module[..module.len().saturating_sub(up)], &names[up..])
                }
                first => match aliases.get(first) {
                    Some(alias) => walk(alias, &names[1..]),
                    None => walk(module, &names),
                },
            };
            if names.len() > 1 && named.last().is_some_and(|last| Some(&last.as_str()) == names.last()) {
                aliases.insert((*names.last().unwrap()).to_owned(), named.clone());
            }
            if named != *module && named.len() > depth(module) {
                found.insert(named);
            }
        }
        found
    };
    files.iter().map(|(module, code)| (module.clone(), of(module, code))).collect()
}

/// The sets of files that reach each other.
fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<BTreeSet<String>> {
    let reach = |from: &Module| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(module) = left.pop() {
            for next in imports.get(module).into_iter().flatten() {
                if seen.insert(next) {
                    left.push(next);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        imports.keys().map(|module| (module, reach(module))).collect();
    let circle = |module: &&Module| -> BTreeSet<String> {
        let back = |other: &&&Module| reached.get(**other).is_some_and(|reached| reached.contains(module));
        let others = reached[*module].iter().filter(back);
        others.map(|other| format!("{}.rs", other.join("/"))).collect()
    };
    reached.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

/// Whether a row of the table names this circle: by its files, or by the module that they all belong to.
fn names(row: &str, circle: &BTreeSet<String>) -> bool {
    let of_module = |file: &String| {
        let name = file.strip_suffix(".rs").unwrap();
        name == row || name.strip_prefix(row).is_some_and(|part| part.starts_with('/'))
    };
    row.split(", ").eq(circle.iter().map(String::as_str)) || circle.iter().all(of_module)
}

#[test]
fn circles_between_files_are_named_with_their_reason() {
    let found = circles(&imports());
    let rows = table_under("docs/architecture.md", "Circles");
    assert!(rows.iter().all(|row| row.len() == 2 && row[1].len() > 9), "each needs a reason: {rows:#?}");
    let new: Vec<_> = found.iter().filter(|circle| !rows.iter().any(|row| names(&row[0], circle))).collect();
    let gone: Vec<_> = rows.iter().filter(|row| !found.iter().any(|circle| names(&row[0], circle))).collect();
    assert!(new.is_empty() && gone.is_empty(), "not in the table: {new:#?}\nno circle any more: {gone:#?}");
}

#[test]
fn imports_are_found_in_trees_and_paths() {
    let text = "use super::{a::B, c};\n// use crate::no;\nfn f() { crate::d::e(); x(\"crate::no\"); }";
    assert_eq!(paths(&code(text)), ["super::a::B", "super::c", "crate::d::e"]);
    let pair = |from: &str, to: &str| (vec![from.to_owned()], [vec![to.to_owned()]].into());
    let found = circles(&[pair("a", "b"), pair("b", "a"), pair("c", "a")].into());
    let circle: BTreeSet<String> = ["a.rs", "b.rs"].map(str::to_owned).into();
    assert_eq!(found, [circle.clone()].into());
    assert!(names("a.rs, b.rs", &circle) && !names("a", &circle));
    assert!(names("a", &["a.rs", "a/b.rs"].map(str::to_owned).into()));
}

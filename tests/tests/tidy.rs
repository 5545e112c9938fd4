//! What is agreed on for every file: who may depend on whom, where `unsafe` may be, how long things may get.

use rabot_ir::Op;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a file before its tests.
const FILE_LINES: usize = 600;
/// Most lines of a function.
const FUNCTION_LINES: usize = 60;
/// Stands in the lines above a function that is longer, followed by the reason.
const LONG: &str = "// tidy: long, because ";
/// Crates with `unsafe` in them.
const UNSAFE: [&str; 4] = ["crates/codegen", "crates/runtime", "crates/mmap", "crates/guard"];

/// What each crate may depend on, of the workspace.
const ARROWS: &[(&str, &[&str])] = &[
    ("crates/tensor", &[]),
    ("crates/mmap", &[]),
    ("crates/guard", &[]),
    ("crates/image", &[]),
    ("crates/target", &[]),
    ("crates/ir", &["image", "tensor"]),
    ("crates/rewrite", &["ir", "tensor"]),
    ("crates/onnx", &["ir", "mmap", "tensor"]),
    ("crates/kernel", &["ir", "mmap", "target", "tensor"]),
    ("crates/codegen", &["ir", "kernel", "target", "tensor"]),
    ("crates/runtime", &["codegen", "ir", "kernel", "target", "tensor"]),
    ("passes", &["ir", "rewrite", "tensor"]),
    ("crates/filetest", &["ir", "rewrite", "tensor"]),
    ("crates/debug", &["codegen", "ir", "kernel", "passes", "rewrite", "runtime", "target", "tensor"]),
    (
        "crates/rabot",
        &[
            "codegen", "debug", "guard", "ir", "kernel", "onnx", "passes", "rewrite", "runtime", "target",
            "tensor",
        ],
    ),
    ("tests", &["filetest", "ir", "kernel", "rabot", "rewrite", "target", "tensor"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file that is ours, with its path from the root: not what was built or fetched, nor what tools keep.
fn files() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    collect(&root(), "", &mut found);
    found.sort();
    assert!(found.len() > 100, "only {} files found", found.len());
    found
}

fn collect(folder: &Path, prefix: &str, found: &mut Vec<(String, PathBuf)>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (name, path) = (format!("{prefix}{name}"), entry.path());
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if hidden || matches!(name.as_str(), "target" | "shared") || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(&path, &format!("{name}/"), found);
        } else {
            found.push((name, path));
        }
    }
}

fn rust_files() -> impl Iterator<Item = (String, String)> {
    files().into_iter().filter(|(name, _)| name.ends_with(".rs")).map(|(name, path)| (name, read(&path)))
}

fn none(what: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{what}:\n{}", problems.join("\n"));
}

#[test]
fn crates_depend_only_on_what_they_may() {
    let mut problems = Vec::new();
    let workspace: toml::Table = toml::from_str(&read(&root().join("Cargo.toml"))).unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let members: BTreeSet<&str> = members.iter().filter_map(|m| m.as_str()).collect();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(member, _)| *member).collect();
    for member in members.symmetric_difference(&known) {
        problems.push(format!("{member} is a member of the workspace or of this list, but not of both"));
    }
    for (member, allowed) in ARROWS.iter().filter(|(member, _)| members.contains(member)) {
        let manifest: toml::Table = toml::from_str(&read(&root().join(member).join("Cargo.toml"))).unwrap();
        for section in ["dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(|d| d.as_table()) else { continue };
            for name in
                dependencies.keys().filter(|name| name.as_str() == "rabot" || name.starts_with("rabot-"))
            {
                let short = name.strip_prefix("rabot-").unwrap_or(name);
                if !allowed.contains(&short) {
                    problems.push(format!("{member} depends on {name}"));
                }
            }
        }
    }
    none("dependencies that are not agreed on", &problems);
}

#[test]
fn unsafe_code_is_forbidden_elsewhere() {
    let mut problems = Vec::new();
    for (member, _) in ARROWS {
        let text = read(&root().join(member).join("src/lib.rs"));
        let forbids = text.lines().any(|line| line == "#![forbid(unsafe_code)]");
        if forbids == UNSAFE.contains(member) {
            problems
                .push(format!("{member}: {}", if forbids { "has no unsafe code" } else { "may have it" }));
        }
    }
    none("`#![forbid(unsafe_code)]` in src/lib.rs", &problems);
}

/// Lines before the unit tests.
fn without_tests(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let starts_tests =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    let end = lines.windows(2).position(starts_tests).unwrap_or(lines.len());
    lines[..end].to_vec()
}

#[test]
fn files_are_short() {
    // Files below a `tests` folder, and `tests.rs`, hold tests only.
    let is_test = |name: &str| name.contains("/tests/") || name.ends_with("/tests.rs");
    let long = rust_files().filter(|(name, _)| !is_test(name)).filter_map(|(name, text)| {
        let lines = without_tests(&text).len();
        (lines > FILE_LINES).then(|| format!("{name}: {lines} lines"))
    });
    none(&format!("files of more than {FILE_LINES} lines before their tests"), &long.collect::<Vec<_>>());
}

/// Line and name of each function, and how many lines it has. Relies on rustfmt: a body ends with the first `}` that
/// stands as far to the right as `fn`'s line begins.
fn functions<'a>(lines: &[&'a str]) -> Vec<(usize, &'a str, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let words = code.split("fn ").next().unwrap_or("");
        let qualifiers = ["pub", "const", "unsafe", "extern", "\"C\"", "async"];
        let is_qualifier =
            |word: &str| qualifiers.contains(&word) || (word.starts_with("pub(") && word.ends_with(')'));
        if !code.contains("fn ") || !words.split_whitespace().all(is_qualifier) {
            continue;
        }
        let Some(header) = lines[start..].iter().position(|l| l.ends_with(['{', ';', '}'])) else { continue };
        if !lines[start + header].ends_with('{') {
            continue;
        }
        let close = format!("{indent}}}");
        let body = lines[start + header..].iter().position(|l| *l == close);
        let name = code[words.len() + 3..].split(['(', '<']).next().unwrap_or("");
        found.push((start, name, body.map_or(lines.len() - start, |b| header + b + 1)));
    }
    found
}

#[test]
fn functions_are_short() {
    let mut problems = Vec::new();
    for (name, text) in rust_files() {
        let lines: Vec<&str> = text.lines().collect();
        for (start, function, length) in functions(&lines) {
            let above = lines[..start].iter().rev().take_while(|line| {
                let line = line.trim_start();
                line.starts_with("//") || line.starts_with("#[")
            });
            let reason = above.clone().any(|line| line.trim_start().starts_with(LONG));
            if length > FUNCTION_LINES && !reason {
                problems.push(format!("{name}:{}: {function} has {length} lines", start + 1));
            }
            if length <= FUNCTION_LINES && reason {
                problems.push(format!("{name}:{}: {function} is not long", start + 1));
            }
        }
    }
    none(&format!("functions of more than {FUNCTION_LINES} lines without `{LONG}…`"), &problems);
}

#[test]
fn functions_are_found() {
    let text = "pub(crate) fn a<T>(x: T) {\n    b();\n}\n\nfn c() -> usize;\nfn d() {}\n    const fn e(\n        x: u8,\n    ) -> u8 {\n        x\n    }";
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(functions(&lines), [(0, "a", 3), (6, "e", 5)]);
}

#[test]
fn nothing_is_left_undone() {
    // In pieces, for this file is searched too.
    let words =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["todo", "!"], ["unimplemented", "!"], ["dbg", "!("]];
    let words = words.map(|parts| parts.concat());
    let mut problems = Vec::new();
    for (name, text) in rust_files() {
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                problems.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    none("things that were left for later", &problems);
}

#[test]
fn every_op_has_a_golden_file() {
    let texts: String = files()
        .iter()
        .filter(|(name, _)| name.starts_with("golden/ops/"))
        .map(|(_, path)| read(path))
        .collect();
    let is_used = |op: &str| texts.contains(&format!("= {op}("));
    let missing = Op::names().into_iter().filter(|op| !matches!(*op, "Input" | "Constant") && !is_used(op));
    none("ops that no file of golden/ops uses", &missing.map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn few_cases_of_onnx_suite_are_excepted() {
    for way in ["compiled", "reference"] {
        let text = read(&root().join(format!("tests/onnx/exceptions-{way}.txt")));
        let names: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        // 1,865 of the 1,884 of nodes must pass, and all of models.
        assert!(names.len() <= 1884 - 1865, "{way}: {} exceptions", names.len());
        let others: Vec<String> =
            names.iter().filter(|name| !name.starts_with("node/")).map(|name| (*name).to_owned()).collect();
        none("models of ONNX's suite that are excepted", &others);
    }
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    const TEXT: [&str; 8] = ["rs", "toml", "md", "py", "rbt", "txt", "c", "sh"];
    let places = ["/wo|rk/", "/ho|me/", "/ro|ot/"].map(|place| place.replace('|', ""));
    let mut problems = Vec::new();
    for (name, path) in files() {
        let extension = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
        if !extension.is_empty() && !TEXT.contains(&extension.as_str()) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            // Only paths that begin there: a folder of the same name elsewhere is nobody's secret.
            let begins = |place: &String| {
                line.match_indices(place.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '}' | '/' | '>'))
                })
            };
            if let Some(place) = places.iter().find(|place| begins(place)) {
                problems.push(format!("{name}:{}: {place}", number + 1));
            }
        }
    }
    none("paths of one machine", &problems);
}

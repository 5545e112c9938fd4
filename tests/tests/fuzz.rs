//! The fuzz targets on the corpus in the repository, and on what they have found: without a fuzzer, in every test run.

#[allow(dead_code, reason = "the targets are called through their table")]
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut files: Vec<PathBuf> = entries.unwrap_or_default();
    files.sort();
    files
}

#[test]
fn targets_take_the_corpus_and_what_was_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for (name, target) in fuzz::TARGETS {
        let corpus = files(&root.join("corpus").join(name));
        assert!(!corpus.is_empty(), "there is no corpus for {name}");
        for file in corpus.iter().chain(&files(&root.join("findings").join(name))) {
            eprintln!("{}", file.display());
            target(&fs::read(file).unwrap());
        }
    }
}

/// Every prefix of a few inputs: cheap, and what readers of formats trip over.
#[test]
fn targets_take_what_is_cut_off() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in fuzz::TARGETS.iter().filter(|(name, _)| *name != "differential") {
        for file in files(&root.join(name)).iter().take(4) {
            let bytes = fs::read(file).unwrap();
            (0..bytes.len().min(400)).for_each(|end| target(&bytes[..end]));
        }
    }
}

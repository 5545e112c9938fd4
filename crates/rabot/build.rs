//! Hands the crate `RABOT_FINGERPRINT`: a hash of the sources that decide what a pass gives, of the lock file and of the
//! compiler. Two builds of one version with different passes have different ones.

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What results of passes depend on, from the root of the workspace.
const SOURCES: [&str; 6] = [
    "passes/src",
    "crates/rewrite/src",
    "crates/ir/src",
    "crates/tensor/src",
    "crates/image/src",
    "Cargo.lock",
];

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut hasher = DefaultHasher::new();
    for source in SOURCES {
        let path = root.join(source);
        println!("cargo:rerun-if-changed={}", path.display());
        add(&path, &mut hasher)?;
    }
    for name in ["RUSTC", "TARGET"] {
        hasher.write(env::var(name).unwrap_or_default().as_bytes());
    }
    let compiler = std::process::Command::new(env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()));
    hasher.write(&version(compiler)?);
    println!("cargo:rustc-env=RABOT_FINGERPRINT={:016x}", hasher.finish());
    Ok(())
}

/// What the compiler says it is.
fn version(mut compiler: std::process::Command) -> io::Result<Vec<u8>> {
    Ok(compiler.arg("-vV").output()?.stdout)
}

/// Adds a file, or all files of a folder in the order of their names.
fn add(path: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    if path.is_dir() {
        let entries: io::Result<Vec<PathBuf>> =
            fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut entries = entries?;
        entries.sort();
        return entries.iter().try_for_each(|entry| add(entry, hasher));
    }
    let contents = fs::read(path)?;
    if let Some(name) = path.file_name() {
        hasher.write(name.as_encoded_bytes());
    }
    hasher.write_usize(contents.len());
    hasher.write(&contents);
    Ok(())
}

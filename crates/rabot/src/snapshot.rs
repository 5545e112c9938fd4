//! Graphs as files: `.rbt` text, and what it only names in a folder beside it.
//!
//! `model.rbt` holds the graph, `model.blobs/` a file for each constant of more than 64 elements, named by its hash.
//! A graph read back is the one that was written, to the bit.

use crate::Error;
use bytes::Bytes;
use rabot_ir::Graph;
use rabot_ir::text::{BlobStore, MemoryBlobs, blobs, parse_module, print};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Prefix of the hashes that text names contents by.
const HASH: &str = "blake3:";

/// True if a path is that of a snapshot.
pub fn is_snapshot(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rbt")
}

/// Reads a graph.
///
/// **Errors**: a file cannot be read, or is not what it should be; lines and columns are told.
pub fn read(path: &Path) -> Result<Graph, Error> {
    let text = fs::read_to_string(path).map_err(|error| failed(path, error))?;
    let store = Folder(folder_of(path));
    let module = parse_module(&text, &store)
        .map_err(|error| Error::Snapshot { path: path.to_owned(), reason: format!("\n{error}") })?;
    Ok(module.graph)
}

/// Writes a graph, with `header` as comments before it. Files are complete or not there.
///
/// **Errors**: a file cannot be written.
pub fn write(path: &Path, graph: &Graph, header: &str) -> Result<(), Error> {
    let contents: MemoryBlobs = blobs(graph);
    let folder = folder_of(path);
    let mut made = false;
    for (hash, bytes) in contents.iter() {
        let Some(name) = file_name(hash) else { continue };
        if !made {
            fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
            made = true;
        }
        let target = folder.join(name);
        // A file is named by what is in it.
        if !target.exists() {
            write_whole(&target, bytes)?;
        }
    }
    let comments: String = header.lines().map(|line| format!("; {line}\n")).collect();
    write_whole(path, format!("{comments}{}", print(graph)).as_bytes())
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::Snapshot { path: path.to_owned(), reason: error.to_string() }
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".rabot-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    write().map_err(|error| failed(path, error))
}

fn folder_of(path: &Path) -> PathBuf {
    path.with_extension("blobs")
}

/// The file that holds the contents of a hash; `None` if it is not one: it could name any file.
fn file_name(hash: &str) -> Option<&str> {
    let digits = hash.strip_prefix(HASH)?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
}

struct Folder(PathBuf);

impl BlobStore for Folder {
    fn get(&self, hash: &str) -> Option<Bytes> {
        fs::read(self.0.join(file_name(hash)?)).ok().map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::text::parse;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.rbt");
        let graph = parse(
            "model \"m\" input %0 \"x\" : f32[n,100]
            %1 = Constant rand(1, -1.0, 1.0) : f32[100,3] \"w\"
            %2 = MatMul(%0, %1)
            output \"y\" = %2",
        )
        .unwrap();
        write(&path, &graph, "two\nlines").unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("; two\n; lines\nmodel"));
        let again = read(&path).unwrap();
        assert_eq!(print(&again), print(&graph));
        let blob = fs::read_dir(folder.path().join("m.blobs")).unwrap().next().unwrap().unwrap().path();
        fs::write(&blob, [0u8; 1200]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("blob"), "contents must have their hash");
    }

    #[test]
    fn a_hash_is_no_path() {
        assert_eq!(file_name("blake3:00ff"), Some("00ff"));
        for name in ["blake3:../x", "blake3:", "sha256:00", "/etc/passwd"] {
            assert_eq!(file_name(name), None, "{name}");
        }
    }
}

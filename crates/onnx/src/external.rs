//! Tensor data in files beside the model.

use crate::error::ExternalProblem;
use crate::limits::Limits;
use crate::wire::StringStringEntryProto;
use bytes::Bytes;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Keys of `external_data` that say where the data are.
const KEYS: [&str; 3] = ["location", "offset", "length"];
/// Keys that are known and not needed: a hash that writers seldom set, and tables of ONNX Runtime for its own kernels.
const IGNORED: [&str; 2] = ["checksum", "prepacked"];

/// The files beside a model, each mapped once.
pub(crate) struct ExternalFiles {
    folder: Option<PathBuf>,
    limit: u64,
    follow_links: bool,
    mapped: HashMap<PathBuf, Bytes>,
}

impl ExternalFiles {
    /// Files within `folder`, within limits.
    pub(crate) fn new(folder: Option<&Path>, limits: &Limits) -> Self {
        let (limit, follow_links) = (limits.file_bytes, limits.follow_links);
        ExternalFiles { folder: folder.map(Path::to_owned), limit, follow_links, mapped: HashMap::new() }
    }

    /// Size of all files that have been mapped.
    pub(crate) fn bytes(&self) -> u64 {
        self.mapped.values().fold(0, |sum, file| sum.saturating_add(file.len() as u64))
    }

    /// The `expected` bytes of a tensor, as its `external_data` entries say where. **Errors**: with the location.
    pub(crate) fn read(
        &mut self,
        entries: &[StringStringEntryProto],
        expected: usize,
    ) -> Result<Bytes, (String, ExternalProblem)> {
        let entry = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let location = entry("location").unwrap_or_default();
        let result = check_keys(entries).and_then(|()| {
            let offset = number("offset", entry("offset"))?.unwrap_or(0);
            self.slice(location, offset, number("length", entry("length"))?, expected as u64)
        });
        result.map_err(|problem| (shortened(location), problem))
    }

    fn slice(
        &mut self,
        location: &str,
        offset: u64,
        length: Option<u64>,
        expected: u64,
    ) -> Result<Bytes, ExternalProblem> {
        if let Some(length) = length.filter(|&length| length != expected) {
            return Err(ExternalProblem::Length { length, expected });
        }
        let file = self.map(location)?;
        let range = ExternalProblem::Range { offset, length: expected, file_bytes: file.len() as u64 };
        let Some(end) = offset.checked_add(expected).filter(|&end| end <= file.len() as u64) else {
            return Err(range);
        };
        // Both fit into usize: they are at most the length of a mapping.
        Ok(file.slice(offset as usize..end as usize))
    }

    fn map(&mut self, location: &str) -> Result<Bytes, ExternalProblem> {
        let within = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !Path::new(location).components().all(|part| within(&part)) {
            return Err(ExternalProblem::Outside);
        }
        // One file has many spellings, and is mapped once.
        let normal = Path::new(location).components().filter(|part| matches!(part, Component::Normal(_)));
        let path: PathBuf = normal.collect();
        if let Some(bytes) = self.mapped.get(&path) {
            return Ok(bytes.clone());
        }
        let folder = self.folder.as_ref().ok_or(ExternalProblem::NoFolder)?;
        let file = match self.follow_links {
            true => {
                // A pipe would be waited for.
                match std::fs::metadata(folder.join(&path))?.is_file() {
                    true => File::open(folder.join(&path))?,
                    false => return Err(ExternalProblem::Kind),
                }
            }
            false => rabot_mmap::open_below(folder, &path)?,
        };
        // Of the file that is open: what was looked at is what is read.
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(ExternalProblem::Kind);
        }
        if metadata.nlink() > 1 && !self.follow_links {
            return Err(ExternalProblem::HardLink(metadata.nlink()));
        }
        if metadata.len() > self.limit {
            return Err(ExternalProblem::Limit { actual: metadata.len(), limit: self.limit });
        }
        let bytes = rabot_mmap::map_open(file)?;
        self.mapped.insert(path, bytes.clone());
        Ok(bytes)
    }
}

/// **Errors**: a key is not known, or there twice, so that two readers could understand two things.
fn check_keys(entries: &[StringStringEntryProto]) -> Result<(), ExternalProblem> {
    let mut seen = [false; KEYS.len()];
    for entry in entries {
        match KEYS.iter().position(|key| *key == entry.key) {
            Some(at) if std::mem::replace(&mut seen[at], true) => {
                return Err(ExternalProblem::Twice(KEYS[at]));
            }
            Some(_) => {}
            None if IGNORED.iter().any(|key| entry.key.starts_with(key)) => {}
            None => return Err(ExternalProblem::Key(shortened(&entry.key))),
        }
    }
    Ok(())
}

/// Text of a file, short enough for a message.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

fn number(key: &'static str, value: Option<&str>) -> Result<Option<u64>, ExternalProblem> {
    let parse = |text: &str| {
        text.parse().map_err(|_| ExternalProblem::Number { key, value: text.chars().take(40).collect() })
    };
    value.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
        let entry = |(k, v): &(&str, &str)| StringStringEntryProto { key: (*k).into(), value: (*v).into() };
        pairs.iter().map(entry).collect()
    }

    #[test]
    fn only_files_within_the_folder_are_read() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("model");
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        std::fs::write(outer.path().join("secret"), [7; 8]).unwrap();
        std::fs::write(folder.join("sub/data"), [1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("link")).unwrap();
        std::os::unix::fs::symlink("sub/data", folder.join("inner")).unwrap();
        std::os::unix::fs::symlink("sub", folder.join("folder")).unwrap();
        std::fs::write(folder.join("first"), [0; 8]).unwrap();
        std::fs::hard_link(folder.join("first"), folder.join("hard")).unwrap();
        let mut files = ExternalFiles::new(Some(&folder), &Limits::default());

        let at = entries(&[("location", "./sub/data"), ("offset", "4"), ("length", "4")]);
        assert_eq!(files.read(&at, 4).unwrap(), [5, 6, 7, 8][..]);
        let secret = outer.path().join("secret");
        for location in ["../secret", "sub/../../secret", secret.to_str().unwrap(), "", "sub/.."] {
            let error = files.read(&entries(&[("location", location)]), 8).unwrap_err();
            assert!(matches!(error.1, ExternalProblem::Outside), "{location}: {error:?}");
        }
        for location in ["link", "inner", "folder/data", "sub/data/", "\0"] {
            let error = files.read(&entries(&[("location", location)]), 8);
            let read = location == "sub/data/";
            assert!(read == error.is_ok(), "{location}: {error:?}");
            assert!(read || matches!(error, Err((_, ExternalProblem::Read(_)))), "{location}: {error:?}");
        }
        assert!(matches!(files.read(&entries(&[("location", "sub")]), 8), Err((_, ExternalProblem::Kind))));
        let hard = files.read(&entries(&[("location", "hard")]), 8);
        assert!(matches!(hard, Err((_, ExternalProblem::HardLink(2)))), "{hard:?}");

        let trusting = Limits { follow_links: true, ..Limits::default() };
        let mut files = ExternalFiles::new(Some(&folder), &trusting);
        for location in ["link", "inner", "folder/data", "hard"] {
            assert_eq!(files.read(&entries(&[("location", location)]), 8).unwrap().len(), 8, "{location}");
        }
        assert!(files.read(&entries(&[("location", "../secret")]), 8).is_err());
    }

    #[test]
    fn entries_are_known_and_there_once() {
        let mut files = ExternalFiles::new(None, &Limits::default());
        let mut read = |pairs: &[(&str, &str)]| files.read(&entries(pairs), 8).unwrap_err().1;
        assert!(matches!(read(&[("location", "x"), ("basepath", "/")]), ExternalProblem::Key(_)));
        assert!(matches!(read(&[("location", "x"), ("location", "y")]), ExternalProblem::Twice("location")));
        assert!(matches!(read(&[("location", "x"), ("checksum", "00")]), ExternalProblem::NoFolder));
        for offset in ["-1", "1e9", "0x10", "99999999999999999999", " 1", ""] {
            let error = read(&[("location", "x"), ("offset", offset)]);
            assert!(matches!(error, ExternalProblem::Number { key: "offset", .. }), "{offset}: {error}");
        }
    }

    #[test]
    fn ranges_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("data"), [0; 8]).unwrap();
        let mut files =
            ExternalFiles::new(Some(folder.path()), &Limits { file_bytes: 8, ..Limits::default() });
        let mut read = |offset: &str, length: &str, expected| {
            let pairs = [("location", "data"), ("offset", offset), ("length", length)];
            files.read(&entries(&pairs), expected).map_err(|e| e.1)
        };
        assert!(read("4", "4", 4).is_ok());
        assert!(matches!(read("5", "4", 4), Err(ExternalProblem::Range { .. })));
        assert!(matches!(read("18446744073709551615", "4", 4), Err(ExternalProblem::Range { .. })));
        assert!(matches!(read("-1", "4", 4), Err(ExternalProblem::Number { .. })));
        assert!(matches!(read("0", "3", 4), Err(ExternalProblem::Length { .. })));
        std::fs::write(folder.path().join("large"), [0; 9]).unwrap();
        let error = files.read(&entries(&[("location", "large")]), 1).unwrap_err();
        assert!(matches!(error.1, ExternalProblem::Limit { .. }));
    }
}

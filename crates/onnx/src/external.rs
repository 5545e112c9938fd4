//! Tensor data in files beside the model.

use crate::error::ExternalProblem;
use crate::wire::StringStringEntryProto;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// The files beside a model, each mapped once.
pub(crate) struct ExternalFiles {
    folder: Option<PathBuf>,
    limit: u64,
    mapped: HashMap<String, Bytes>,
}

impl ExternalFiles {
    /// Files within `folder`, each of at most `limit` bytes.
    pub(crate) fn new(folder: Option<&Path>, limit: u64) -> Self {
        ExternalFiles { folder: folder.map(Path::to_owned), limit, mapped: HashMap::new() }
    }

    /// The `expected` bytes of a tensor, as its `external_data` entries say where. **Errors**: with the location.
    pub(crate) fn read(
        &mut self,
        entries: &[StringStringEntryProto],
        expected: usize,
    ) -> Result<Bytes, (String, ExternalProblem)> {
        let entry = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let location = entry("location").unwrap_or_default();
        let result = number("offset", entry("offset")).and_then(|offset| {
            let length = number("length", entry("length"))?;
            self.slice(location, offset.unwrap_or(0), length, expected as u64)
        });
        result.map_err(|problem| (location.to_owned(), problem))
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
        if let Some(bytes) = self.mapped.get(location) {
            return Ok(bytes.clone());
        }
        let folder = self.folder.as_ref().ok_or(ExternalProblem::NoFolder)?.canonicalize()?;
        let within = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !Path::new(location).components().all(within) {
            return Err(ExternalProblem::Outside);
        }
        // Links are followed first, so that what is checked is what is opened.
        let path = folder.join(location).canonicalize()?;
        if !path.starts_with(&folder) {
            return Err(ExternalProblem::Outside);
        }
        let bytes = rabot_mmap::map_file(&path)?;
        if bytes.len() as u64 > self.limit {
            return Err(ExternalProblem::Limit { actual: bytes.len() as u64, limit: self.limit });
        }
        self.mapped.insert(location.to_owned(), bytes.clone());
        Ok(bytes)
    }
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
        let mut files = ExternalFiles::new(Some(&folder), 1 << 20);

        let at = entries(&[("location", "./sub/data"), ("offset", "4"), ("length", "4")]);
        assert_eq!(files.read(&at, 4).unwrap(), [5, 6, 7, 8][..]);
        assert_eq!(files.read(&entries(&[("location", "inner")]), 8).unwrap().len(), 8);
        let secret = outer.path().join("secret");
        for location in ["../secret", "sub/../../secret", secret.to_str().unwrap(), "link", ""] {
            let error = files.read(&entries(&[("location", location)]), 8).unwrap_err();
            assert!(matches!(error.1, ExternalProblem::Outside), "{location}: {error:?}");
        }
        assert!(matches!(
            files.read(&entries(&[("location", "sub")]), 8),
            Err((_, ExternalProblem::Read(_)))
        ));
    }

    #[test]
    fn ranges_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("data"), [0; 8]).unwrap();
        let mut files = ExternalFiles::new(Some(folder.path()), 8);
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

//! Real models, where they have been fetched.

use std::path::{Path, PathBuf};

/// Names and files of the models in `$RABOT_ZOO`, or in `~/.cache/rabot-zoo/models`. None, with a note, if there is
/// no such folder.
pub fn models() -> Vec<(String, PathBuf)> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let default = || Path::new(&home).join(".cache/rabot-zoo/models");
    let folder = std::env::var_os("RABOT_ZOO").map_or_else(default, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("SKIPPED: no models in {}; fetch them, or set RABOT_ZOO", folder.display());
        return Vec::new();
    };
    let file = |entry: std::fs::DirEntry| {
        let path = entry.path().join("model.onnx");
        path.is_file().then(|| (entry.file_name().to_string_lossy().into_owned(), path))
    };
    let mut models: Vec<_> = entries.flatten().filter_map(file).collect();
    models.sort();
    models
}

//! Recipes: how a model is compiled, as a TOML file that is kept beside it.
//!
//! ```toml
//! pipeline = "fold,fuse,quantize,group"   # or: level = 2
//! target = "x86-64-v3"
//! strict = true
//! calibrate = "samples/"                  # from the folder of the recipe
//! without = ["gelu@/layer1/Mul"]          # changes that are left out
//!
//! [dims]
//! batch = 1
//!
//! [budget]
//! seconds = 60
//! memory_bytes = 2000000000
//! ```

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How a model is compiled. What is absent is as without a recipe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The passes, as text.
    pub pipeline: Option<String>,
    /// A standard pipeline, 0 to 3, in place of `pipeline`.
    pub level: Option<u8>,
    /// Profile of the machine to compile for.
    pub target: Option<String>,
    /// Leaves out rules that only hold for finite values.
    #[serde(default)]
    pub strict: bool,
    /// Inputs to calibrate on: an npz file or a folder of them. Relative paths are from the recipe's folder.
    pub calibrate: Option<PathBuf>,
    /// Changes that are left out, as `RULE@NODE`.
    #[serde(default)]
    pub without: Vec<String>,
    /// Sizes of symbolic dims.
    #[serde(default)]
    pub dims: BTreeMap<String, usize>,
    /// What compiling may cost.
    #[serde(default)]
    pub budget: Budget,
}

/// What compiling may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Seconds of the whole program.
    pub seconds: Option<u64>,
    /// Bytes of memory that it may hold.
    pub memory_bytes: Option<u64>,
}

/// A recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read recipe `{}`: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The text is no recipe.
    #[error("recipe `{}`: {reason}", .path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// **Errors**: the file cannot be read, a key is unknown or of another type, or both `pipeline` and `level` are
    /// given.
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| RecipeError::Read { path: path.to_owned(), error })?;
        let wrong = |reason: String| RecipeError::Text { path: path.to_owned(), reason };
        let mut recipe: Recipe = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if recipe.pipeline.is_some() && recipe.level.is_some() {
            return Err(wrong("`pipeline` and `level` both name the passes; keep one".to_owned()));
        }
        if let Some(calibrate) = &mut recipe.calibrate
            && let Some(folder) = path.parent()
        {
            *calibrate = folder.join(&*calibrate);
        }
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Recipe, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        std::fs::write(&path, text).unwrap();
        let recipe = Recipe::read(&path).map_err(|error| error.to_string())?;
        assert!(recipe.calibrate.as_ref().is_none_or(|calibrate| calibrate.starts_with(folder.path())));
        Ok(recipe)
    }

    #[test]
    fn reads_what_it_shows() {
        let source = include_str!("recipe.rs");
        let header = source.lines().map_while(|line| line.strip_prefix("//!")).map(|l| format!("{l}\n"));
        let text = header.collect::<String>();
        let example = text.split("```").nth(1).and_then(|text| text.strip_prefix("toml")).unwrap();
        let recipe = read(example).unwrap();
        assert_eq!(recipe.dims.get("batch"), Some(&1));
        assert_eq!(recipe.budget.seconds, Some(60));
        assert!(recipe.strict);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(read("pipelin = \"fold\"").unwrap_err().contains("unknown field `pipelin`"));
        assert!(read("level = 2\npipeline = \"fold\"").unwrap_err().contains("keep one"));
        assert!(read("[dims]\nbatch = -1").unwrap_err().contains("batch"));
    }
}

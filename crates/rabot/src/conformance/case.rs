//! Cases on disk.

use super::Tolerance;
use rabot_ir::interp::Data;
use rabot_ir::{Datum, Graph, ValueType};
use rabot_onnx::{ImportError, Limits, read_datum};
use serde::Deserialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const MODEL: &str = "model.onnx";
const SET: &str = "test_data_set_";
/// Levels of folders between the one that is named and those of cases.
const DEPTH: usize = 2;

/// A case cannot be found or read.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// A file or folder cannot be read.
    #[error("cannot read `{}`: {error}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A folder holds no cases.
    #[error("`{}` holds no cases: no folder in it has a {MODEL}", .0.display())]
    NoCases(PathBuf),
    /// A case has no data.
    #[error("the case has no folder {SET}0")]
    NoData,
    /// Files of a data set do not fit the model.
    #[error("{set} has {files} {what}_N.pb, but the model has {model} {what}s")]
    Count {
        /// Name of the data set.
        set: String,
        /// `input` or `output`.
        what: &'static str,
        /// How many files there are.
        files: usize,
        /// How many inputs or outputs the model has.
        model: usize,
    },
    /// The tolerances are no JSON of the form that is expected.
    #[error("`{}`: {error}", path.display())]
    Tolerance {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// A file does not hold a value of the declared type.
    #[error("`{}`: {error}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong; boxed, since a result is as large as its error.
        error: Box<ImportError>,
    },
}

/// A folder with a model and data for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its path below the folder that was asked for; its own name, if it was asked for itself.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
}

/// Cases of a folder: itself, if it holds a model, or those in it, at most two levels down; sorted by name.
///
/// **Errors**: a folder cannot be read, or there is no case.
pub fn find_cases(folder: &Path) -> Result<Vec<Case>, ConformanceError> {
    if folder.join(MODEL).is_file() {
        let own = folder.canonicalize().map_err(|error| read_error(folder, error))?;
        let name = own.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        return Ok(vec![Case { name, folder: folder.to_owned() }]);
    }
    let mut cases = Vec::new();
    collect(folder, "", DEPTH, &mut cases)?;
    if cases.is_empty() {
        return Err(ConformanceError::NoCases(folder.to_owned()));
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

fn collect(
    folder: &Path,
    prefix: &str,
    levels: usize,
    cases: &mut Vec<Case>,
) -> Result<(), ConformanceError> {
    for (entry, path) in entries(folder)? {
        if !path.is_dir() {
            continue;
        }
        let name = format!("{prefix}{entry}");
        if path.join(MODEL).is_file() {
            cases.push(Case { name, folder: path });
        } else if levels > 1 {
            collect(&path, &format!("{name}/"), levels - 1, cases)?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, ConformanceError> {
    let failed = |error| read_error(folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(found)
}

fn read_error(path: &Path, error: io::Error) -> ConformanceError {
    ConformanceError::Read { path: path.to_owned(), error }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stated {
    rtol: f64,
    atol: f64,
}

impl Case {
    /// The model's file.
    pub fn model(&self) -> PathBuf {
        self.folder.join(MODEL)
    }

    /// The tolerances of `tolerance.json`, or the suite's own where there is none.
    ///
    /// **Errors**: the file cannot be read.
    pub fn tolerance(&self) -> Result<Tolerance, ConformanceError> {
        let path = self.folder.join("tolerance.json");
        if !path.is_file() {
            return Ok(Tolerance::default());
        }
        let text = fs::read_to_string(&path).map_err(|error| read_error(&path, error))?;
        let Stated { rtol, atol } =
            serde_json::from_str(&text).map_err(|error| ConformanceError::Tolerance { path, error })?;
        Ok(Tolerance { rtol, atol })
    }

    /// Folders of data, in the order of their numbers.
    ///
    /// **Errors**: the folder cannot be read, or there are none.
    pub fn data_sets(&self) -> Result<Vec<PathBuf>, ConformanceError> {
        let mut sets: Vec<(u64, PathBuf)> = entries(&self.folder)?
            .into_iter()
            .filter_map(|(name, path)| Some((name.strip_prefix(SET)?.parse().ok()?, path)))
            .collect();
        sets.sort();
        if sets.is_empty() {
            return Err(ConformanceError::NoData);
        }
        Ok(sets.into_iter().map(|(_, path)| path).collect())
    }
}

/// Values for the inputs of a graph. The model may have more inputs than files; a run tells which one is missing.
///
/// **Errors**: there are more files than inputs, or one cannot be read.
pub(super) fn read_inputs(set: &Path, graph: &Graph, limits: &Limits) -> Result<Data, ConformanceError> {
    let ports = graph.inputs().iter().map(|&id| {
        let node = graph.node(id);
        (node.name.to_string(), &node.outputs[0].fact.ty)
    });
    read_values(set, "input", &ports.collect::<Vec<_>>(), limits)
}

/// Values expected of the outputs of a graph. What a file holds follows from the type that the model declares, where
/// it does; `declared` has those.
///
/// **Errors**: there are not as many files as outputs, or one cannot be read.
pub(super) fn read_outputs(
    set: &Path,
    graph: &Graph,
    declared: &[(String, ValueType)],
    limits: &Limits,
) -> Result<Data, ConformanceError> {
    let ports = graph.outputs().iter().map(|output| {
        let declared = declared.iter().find(|(name, _)| **name == *output.name);
        (output.name.to_string(), declared.map_or(&graph.fact(output.value).ty, |(_, ty)| ty))
    });
    read_values(set, "output", &ports.collect::<Vec<_>>(), limits)
}

fn read_values(
    set: &Path,
    what: &'static str,
    ports: &[(String, &ValueType)],
    limits: &Limits,
) -> Result<Data, ConformanceError> {
    let is_value = |name: &str| name.starts_with(&format!("{what}_")) && name.ends_with(".pb");
    let files = entries(set)?.iter().filter(|(name, _)| is_value(name)).count();
    if files != ports.len() {
        let set = set.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        return Err(ConformanceError::Count { set, what, files, model: ports.len() });
    }
    let mut data = Data::new();
    for (at, (name, ty)) in ports.iter().enumerate() {
        let path = set.join(format!("{what}_{at}.pb"));
        data.insert(name.clone(), read_value(&path, ty, name, limits)?);
    }
    Ok(data)
}

fn read_value(path: &Path, ty: &ValueType, name: &str, limits: &Limits) -> Result<Datum, ConformanceError> {
    let bytes = fs::read(path).map_err(|error| read_error(path, error))?;
    read_datum(bytes.into(), ty, name, limits)
        .map_err(|error| ConformanceError::Value { path: path.to_owned(), error: Box::new(error) })
}

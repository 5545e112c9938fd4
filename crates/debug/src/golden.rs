//! Golden packs: outputs that are kept, and which pass moved them.
//!
//! A pack is a folder: `test_data_set_0/input_N.pb` and `output_N.pb` as ONNX lays out test data, so that other tools
//! read them, and `golden.toml`, a [`Pack`]. The outputs are those of the interpreter on the model as it was
//! imported. The ledger holds, for the imported graph, the graph after each pass and the compiled program, how far
//! the outputs were from them when the pack was recorded.
//!
//! A check runs the recorded pipeline again and compares ledgers. An output has *moved* at a stage where its bits are
//! others than recorded. That is a failure where its error exceeds
//!
//! ```text
//! recorded error + tolerance · max |output|
//! ```
//!
//! with the tolerance of [`crate::tolerance`] for the graph of that stage: less is what another order of summing, another
//! target or another library of functions may do.

use crate::ledger::{self, Entry, EntryOutput};
use crate::trace::{self, TraceOptions, Traced};
use crate::{DebugError, Tensors, digest};
use rabot_ir::Graph;
use rabot_rewrite::{PassCx, Pipeline};
use rabot_target::Profile;
use rabot_tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the form of `golden.toml`.
pub const FORMAT: u32 = 2;

/// Name of the stage that is the compiled program.
pub const COMPILED: &str = "compiled";

/// What `golden.toml` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// Version of the form.
    pub format: u32,
    /// The model file, relative to the pack.
    pub model: String,
    /// Hash of the model file.
    pub model_blake3: String,
    /// The pipeline as text.
    pub pipeline: String,
    /// The target.
    pub target: String,
    /// True if rules that only hold for finite values were left out.
    #[serde(default)]
    pub strict: bool,
    /// Calibration inputs, relative to the pack, if the pipeline had some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<String>,
    /// Why the pack was recorded anew, oldest first.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Sizes that symbolic dims were given.
    #[serde(default)]
    pub dims: BTreeMap<String, usize>,
    /// The inputs.
    pub inputs: Vec<StoredTensor>,
    /// The outputs.
    pub outputs: Vec<StoredOutput>,
    /// The stages.
    pub ledger: Vec<Entry>,
}

/// A tensor beside `golden.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredTensor {
    /// Name of the input or output.
    pub name: String,
    /// File, relative to the pack.
    pub file: String,
    /// Hash of dtype, shape and contents; see [`hash`].
    pub blake3: String,
}

/// An output beside `golden.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOutput {
    /// Name of the output.
    pub name: String,
    /// File, relative to the pack.
    pub file: String,
    /// Hash of dtype, shape and contents; see [`hash`].
    pub blake3: String,
    /// How much further than recorded the output of the compiled program may move, relative to its largest
    /// magnitude; the ledger has that of the other stages.
    pub tolerance: f64,
    /// What the tolerance is derived from.
    pub tolerance_reason: String,
}

/// A run of a pipeline, stage by stage.
#[derive(Clone, Debug)]
pub struct Run {
    /// What errors are measured against.
    pub reference: Tensors,
    /// Tolerance of each output, with its reason.
    pub tolerances: Vec<(f64, String)>,
    /// The stages.
    pub entries: Vec<Entry>,
}

/// Hash of a tensor: blake3 over its dtype, shape and little-endian contents.
pub fn hash(tensor: &Tensor) -> String {
    digest(tensor).to_hex().to_string()
}

/// Hash of a file's bytes.
pub fn hash_bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Runs a pipeline stage by stage and measures the outputs of each against `reference`, or against those of the graph
/// itself if there is none.
///
/// **Errors**: a pass fails, or a graph cannot be evaluated, compiled or run on the inputs.
pub fn run(
    graph: &Graph,
    pipeline: &Pipeline,
    cx: &PassCx<'_>,
    inputs: &Tensors,
    reference: Option<&Tensors>,
    profile: &Profile,
) -> Result<Run, DebugError> {
    let options = TraceOptions::new(profile.clone());
    let Traced { trace, outputs, compiled } =
        trace::run(graph, pipeline, cx, inputs, &options, &mut |_, _| {})?;
    let reference = reference.or(outputs.first()).cloned().unwrap_or_default();
    let tolerance = |name: &String| {
        let row = trace.compiled.comparison.outputs().find(|row| row.name == *name);
        row.map_or((0.0, String::new()), |row| (row.tolerance, row.tolerance_reason.clone()))
    };
    let tolerances = reference.keys().map(tolerance).collect();
    // What is known of this machine alone would make packs differ from machine to machine.
    let portable = profile.name != "host";
    let entries = ledger::against(&trace, &outputs, &compiled, &reference, portable);
    Ok(Run { reference, tolerances, entries })
}

impl Pack {
    /// Reads `golden.toml`.
    ///
    /// **Errors**: it is not TOML, lacks a key, or is of another version.
    pub fn parse(text: &str) -> Result<Pack, DebugError> {
        let pack: Pack = toml::from_str(text).map_err(|error| DebugError::Pack(error.to_string()))?;
        if pack.format != FORMAT {
            let found = pack.format;
            return Err(DebugError::Pack(format!(
                "format is {found}, this version reads {FORMAT}; record it anew"
            )));
        }
        Ok(pack)
    }

    /// Text of `golden.toml`.
    ///
    /// **Errors**: none is known; the writer may refuse.
    pub fn print(&self) -> Result<String, DebugError> {
        toml::to_string(self).map_err(|error| DebugError::Pack(error.to_string()))
    }
}

/// An output that is not what was recorded, at one stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Move {
    /// The stage.
    pub stage: String,
    /// Name of the output.
    pub output: String,
    /// Recorded max |a − b| against the stored output.
    pub recorded_max_abs: f64,
    /// max |a − b| now.
    pub max_abs: f64,
    /// max |a − b| / max |b| now.
    pub relative: f64,
    /// Largest max |a − b| that is no failure.
    pub limit: f64,
    /// True if the limit is exceeded.
    pub beyond: bool,
    /// True at the first stage at which this output moved, or (if any is beyond) the first one beyond its limit.
    pub first: bool,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// Number of stages that were compared.
    pub stages: usize,
    /// Every output that moved, at every stage at which it is not what was recorded.
    pub moves: Vec<Move>,
    /// True if none is beyond its limit.
    pub passed: bool,
}

/// Compares a run with the recorded one.
///
/// **Errors**: the pack's stages or outputs are not those of the run.
pub fn check(pack: &Pack, now: &Run) -> Result<Checked, DebugError> {
    let stages = |entries: &[Entry]| entries.iter().map(|e| e.stage.clone()).collect::<Vec<_>>().join(", ");
    if stages(&pack.ledger) != stages(&now.entries) {
        let (recorded, run) = (stages(&pack.ledger), stages(&now.entries));
        return Err(DebugError::Pack(format!(
            "the ledger has the stages {recorded}, but the pipeline has {run}"
        )));
    }
    let mut moves = Vec::new();
    for (recorded, entry) in pack.ledger.iter().zip(&now.entries) {
        for output in &pack.outputs {
            let find = |entry: &Entry| entry.outputs.iter().find(|o| o.name == output.name).cloned();
            let lacks = || DebugError::Pack(format!("stage {} has no output `{}`", entry.stage, output.name));
            let (old, new) = (find(recorded).ok_or_else(lacks)?, find(entry).ok_or_else(lacks)?);
            moves.extend(moved(&entry.stage, output, &old, &new, now));
        }
    }
    mark_first(&mut moves);
    let passed = !moves.iter().any(|m| m.beyond);
    Ok(Checked { stages: now.entries.len(), moves, passed })
}

fn moved(
    stage: &str,
    output: &StoredOutput,
    old: &EntryOutput,
    new: &EntryOutput,
    now: &Run,
) -> Option<Move> {
    let same = match (&old.blake3, &new.blake3) {
        (Some(old), Some(new)) => old == new,
        // Last bits of compiled code are the target's own.
        _ => new.max_abs <= old.max_abs,
    };
    if same {
        return None;
    }
    let expected = now.reference.get(&output.name);
    let magnitudes = expected.map(|t| t.to_f64s()).unwrap_or_default().into_iter().map(f64::abs);
    let largest = magnitudes.filter(|v| v.is_finite()).fold(0.0, f64::max);
    let limit = old.max_abs + old.tolerance * largest;
    let beyond = new.max_abs > limit;
    if !beyond && old.blake3.is_none() {
        return None;
    }
    Some(Move {
        stage: stage.to_owned(),
        output: output.name.clone(),
        recorded_max_abs: old.max_abs,
        max_abs: new.max_abs,
        relative: new.relative,
        limit,
        beyond,
        first: false,
    })
}

fn mark_first(moves: &mut [Move]) {
    let mut names: Vec<String> = moves.iter().map(|m| m.output.clone()).collect();
    names.dedup();
    for name in names {
        let first = |beyond: bool| moves.iter().position(|m| m.output == name && (m.beyond || !beyond));
        if let Some(first) = first(true).or_else(|| first(false)).and_then(|at| moves.get_mut(at)) {
            first.first = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests::{Sabotage, TEXT, inputs, passes_of};
    use rabot_ir::text::parse;

    fn pipeline(by: f32) -> Pipeline {
        Pipeline::new(vec![passes_of("fold"), Box::new(Sabotage(by)), passes_of("group")])
    }

    fn recorded(text: &str, by: f32, reference: Option<&Tensors>) -> Run {
        let graph = parse(text).unwrap();
        let profile = Profile::host().unwrap();
        run(&graph, &pipeline(by), &PassCx::default(), &inputs(), reference, &profile).unwrap()
    }

    fn pack(ledger: &Run) -> Pack {
        let outputs =
            ledger.reference.iter().zip(&ledger.tolerances).map(|((name, tensor), tolerance)| StoredOutput {
                name: name.clone(),
                file: "test_data_set_0/output_0.pb".to_owned(),
                blake3: hash(tensor),
                tolerance: tolerance.0,
                tolerance_reason: tolerance.1.clone(),
            });
        Pack {
            format: FORMAT,
            model: "model.onnx".to_owned(),
            model_blake3: hash_bytes(b"model"),
            pipeline: "fold,sabotage,group".to_owned(),
            target: "host".to_owned(),
            strict: false,
            calibration: None,
            reasons: vec!["the kernel sums in another order".to_owned()],
            dims: BTreeMap::from([("batch".to_owned(), 1)]),
            inputs: vec![],
            outputs: outputs.collect(),
            ledger: ledger.entries.clone(),
        }
    }

    #[test]
    fn packs_round_trip() {
        let pack = pack(&recorded(TEXT, 0.25, None));
        assert_eq!(Pack::parse(&pack.print().unwrap()).unwrap(), pack);
        assert!(Pack::parse(&pack.print().unwrap().replace("format = 2", "format = 9")).is_err());
        assert!(Pack::parse("format = 2").is_err());
    }

    #[test]
    fn the_same_run_moves_nothing_even_with_an_error_that_was_recorded() {
        let ledger = recorded(TEXT, 0.25, None);
        let pack = pack(&ledger);
        assert!(pack.ledger[2].outputs[0].max_abs > 0.1);
        let again = recorded(TEXT, 0.25, Some(&ledger.reference));
        let found = check(&pack, &again).unwrap();
        assert!(found.passed && found.moves.is_empty(), "{found:?}");
    }

    #[test]
    fn the_pass_that_moved_an_output_is_named() {
        let ledger = recorded(TEXT, 0.0, None);
        let found = check(&pack(&ledger), &recorded(TEXT, 0.5, Some(&ledger.reference))).unwrap();
        assert!(!found.passed);
        let first: Vec<_> =
            found.moves.iter().filter(|m| m.first).map(|m| (&*m.stage, &*m.output, m.max_abs)).collect();
        assert_eq!(first, [("sabotage", "y", 1.0)]);
        let last = found.moves.last().unwrap();
        assert_eq!((last.stage.as_str(), last.beyond), (COMPILED, true));
    }

    #[test]
    fn another_model_moves_at_import() {
        let ledger = recorded(TEXT, 0.0, None);
        let other = recorded(&TEXT.replace("1.0, 2.0, 3.0", "1.0, 2.0, 4.0"), 0.0, Some(&ledger.reference));
        let found = check(&pack(&ledger), &other).unwrap();
        assert_eq!(found.moves.iter().find(|m| m.first).unwrap().stage, "import");
    }
}

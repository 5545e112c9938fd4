//! The ledger: what each pass contributed to error, size and time, and what moved between two of them.
//!
//! `rabot debug --ledger` writes one as JSON, and golden packs hold the same entries. A ledger is compared with a later
//! one by *contributions*: what a pass adds to the error of an output, to the constants, to the kernels and to the time,
//! which is the entry less the one before it. So a pass that got worse shows in one place and not at every pass after it.
//! The last lines are totals.

use crate::golden::{self, COMPILED};
use crate::trace::{OutputError, Trace, TraceRow};
use crate::{DebugError, Difference, Tensors};
use rabot_tensor::Tensor;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{HashMap, HashSet};

/// Version of the form of ledgers.
pub const FORMAT: u32 = 1;

/// What a pipeline did to a model, stage by stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Version of the form.
    pub format: u32,
    /// The model file.
    pub model: String,
    /// The pipeline as text.
    pub pipeline: String,
    /// The target.
    pub target: String,
    /// The stages.
    pub entries: Vec<Entry>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// `import`, the pass with its options, or `compiled`.
    pub stage: String,
    /// Changes that the pass made.
    pub rewrites: usize,
    /// Operators of the graph.
    pub nodes: usize,
    /// Kernels: as groups and nodes without a group make them; of the compiled program, its calls.
    pub kernels: usize,
    /// Bytes of the constants.
    pub constants_bytes: u64,
    /// Time of a run by the model of [`crate::predict`], in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_ms: Option<f64>,
    /// Median time of a run, in milliseconds, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_ms: Option<f64>,
    /// Each output.
    pub outputs: Vec<EntryOutput>,
}

/// An output at one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryOutput {
    /// Name of the output.
    pub name: String,
    /// Hash of the output; none for the compiled program, whose last bits depend on the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// max |a − b| / max |b| against the stage before; of the compiled program, against the interpreter.
    #[serde(deserialize_with = "number")]
    pub added: f64,
    /// max |a − b| against the reference: the original graph's output, or the stored one.
    #[serde(deserialize_with = "number")]
    pub max_abs: f64,
    /// max |a − b| / max |b|.
    #[serde(deserialize_with = "number")]
    pub relative: f64,
    /// Root of the mean square of a − b.
    #[serde(deserialize_with = "number")]
    pub rms: f64,
    /// Signal to noise in dB; none where nothing differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<f64>,
    /// Cosine of the angle between both; none where one has no length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
    /// Elements that differ.
    pub differing: usize,
    /// How much further the output may move, relative to its largest magnitude.
    pub tolerance: f64,
}

/// JSON has no infinity; `null` stands for it.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

impl Ledger {
    /// The ledger of a trace; errors are against the original graph's outputs.
    pub fn of(trace: &Trace, model: &str, pipeline: &str, target: &str) -> Ledger {
        let total = |row: &TraceRow, output: &OutputError| {
            let (added, blake3) = (output.added.relative, output.blake3.clone());
            entry_output(&output.name, blake3, added, &output.total, row_tolerance(row, &output.name))
        };
        let mut entries: Vec<Entry> = trace
            .rows
            .iter()
            .map(|row| entry(row, row.outputs.iter().map(|output| total(row, output)).collect()))
            .collect();
        let outputs = trace.compiled.comparison.outputs().map(|row| {
            entry_output(&row.name, None, row.difference.relative, &row.difference, row.tolerance)
        });
        let compiled = compiled_entry(trace, outputs.collect());
        entries.push(compiled);
        Ledger {
            format: FORMAT,
            model: model.to_owned(),
            pipeline: pipeline.to_owned(),
            target: target.to_owned(),
            entries,
        }
    }

    /// Reads a ledger.
    ///
    /// **Errors**: it is not JSON, lacks a key, or is of another version.
    pub fn parse(text: &str) -> Result<Ledger, DebugError> {
        let ledger: Ledger =
            serde_json::from_str(text).map_err(|error| DebugError::Ledger(error.to_string()))?;
        if ledger.format != FORMAT {
            let found = ledger.format;
            return Err(DebugError::Ledger(format!(
                "format is {found}, this version reads {FORMAT}; write it anew"
            )));
        }
        Ok(ledger)
    }

    /// Text of the ledger: JSON.
    ///
    /// **Errors**: none is known; the writer may refuse.
    pub fn print(&self) -> Result<String, DebugError> {
        let text = serde_json::to_string_pretty(self);
        Ok(text.map_err(|error| DebugError::Ledger(error.to_string()))? + "\n")
    }
}

fn row_tolerance(row: &TraceRow, name: &str) -> f64 {
    row.outputs.iter().find(|output| output.name == name).map_or(0.0, |output| output.tolerance)
}

fn entry(row: &TraceRow, outputs: Vec<EntryOutput>) -> Entry {
    Entry {
        stage: row.pass.clone(),
        rewrites: row.applied.len(),
        nodes: row.nodes,
        kernels: row.kernels,
        constants_bytes: row.constants_bytes,
        predicted_ms: row.predicted.map(|predicted| predicted.ms),
        measured_ms: row.measured.map(|measured| measured.median_ms),
        outputs,
    }
}

fn compiled_entry(trace: &Trace, outputs: Vec<EntryOutput>) -> Entry {
    let last = trace.rows.last();
    Entry {
        stage: COMPILED.to_owned(),
        rewrites: 0,
        nodes: last.map_or(0, |row| row.nodes),
        kernels: trace.compiled.measured.kernels,
        constants_bytes: last.map_or(0, |row| row.constants_bytes),
        predicted_ms: trace.compiled.predicted.map(|predicted| predicted.ms),
        measured_ms: Some(trace.compiled.measured.median_ms),
        outputs,
    }
}

fn entry_output(
    name: &str,
    blake3: Option<String>,
    added: f64,
    difference: &Difference,
    tolerance: f64,
) -> EntryOutput {
    EntryOutput {
        name: name.to_owned(),
        blake3,
        added,
        max_abs: difference.max_abs,
        relative: difference.relative,
        rms: difference.rms,
        sqnr_db: difference.sqnr_db,
        cosine: difference.cosine,
        differing: difference.differing,
        tolerance,
    }
}

/// The entries of a trace with errors against a reference, as golden packs hold them: without times that differ from
/// run to run, and without predicted ones where the target is this machine.
pub(crate) fn against(
    trace: &Trace,
    outputs: &[Tensors],
    compiled: &Tensors,
    reference: &Tensors,
    portable: bool,
) -> Vec<Entry> {
    let one = |now: &Tensors, added: &dyn Fn(&str) -> (f64, f64), hashed: bool| {
        let output = |(name, expected): (&String, &Tensor)| {
            let now = now.get(name);
            let difference = now.and_then(|now| Difference::of(now, expected));
            let difference = difference.unwrap_or(Difference::unlike(expected.len()));
            let (added, tolerance) = added(name);
            entry_output(name, now.filter(|_| hashed).map(golden::hash), added, &difference, tolerance)
        };
        reference.iter().map(output).collect::<Vec<_>>()
    };
    let mut entries = Vec::new();
    for (row, now) in trace.rows.iter().zip(outputs) {
        let added = |name: &str| {
            let output = row.outputs.iter().find(|output| output.name == name);
            output.map_or((f64::INFINITY, 0.0), |output| (output.added.relative, output.tolerance))
        };
        entries.push(entry(row, one(now, &added, true)));
    }
    let added = |name: &str| {
        let row = trace.compiled.comparison.outputs().find(|row| row.name == name);
        row.map_or((f64::INFINITY, 0.0), |row| (row.difference.relative, row.tolerance))
    };
    entries.push(compiled_entry(trace, one(compiled, &added, false)));
    for entry in &mut entries {
        entry.measured_ms = None;
        entry.predicted_ms = entry.predicted_ms.filter(|_| portable);
    }
    entries
}

/// From when on something is worse.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Thresholds {
    /// Error added: so many times as large, and more than one step of f32.
    pub error: f64,
    /// Bytes and kernels: this share of the whole.
    pub size: f64,
    /// Time: this share of the whole.
    pub time: f64,
}

impl Default for Thresholds {
    /// Twice the error, one hundredth in size, one tenth in time.
    fn default() -> Self {
        Thresholds { error: 2.0, size: 0.01, time: 0.1 }
    }
}

/// What a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Turn {
    /// It improved.
    Better,
    /// It moved, within the threshold.
    Moved,
    /// It got worse by more than the threshold.
    Worse,
}

/// A contribution that is not what it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LedgerMove {
    /// The stage; `total` for the whole.
    pub stage: String,
    /// The output that an error is of.
    pub output: Option<String>,
    /// `error`, `constants_bytes`, `kernels`, `nodes`, `rewrites`, `predicted_ms` or `measured_ms`.
    pub metric: &'static str,
    /// Contribution in the first ledger; none where the stage is not in it.
    pub before: Option<f64>,
    /// Contribution in the second.
    pub after: Option<f64>,
    /// What it is.
    pub turn: Turn,
}

/// What moved between two ledgers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LedgerDiff {
    /// The moves, in the order of the pipeline.
    pub moves: Vec<LedgerMove>,
    /// From when on something is worse.
    pub thresholds: Thresholds,
    /// True if nothing got worse by more than its threshold.
    pub passed: bool,
}

/// Compares two ledgers.
pub fn diff(before: &Ledger, after: &Ledger, thresholds: Thresholds) -> LedgerDiff {
    let (mut old, mut new) = (contributions(before), contributions(after));
    // Times that only one of them has say nothing.
    let metrics = |list: &[Contribution]| list.iter().map(|(key, ..)| key.2).collect::<HashSet<_>>();
    let (of_old, of_new) = (metrics(&old), metrics(&new));
    old.retain(|(key, ..)| of_new.contains(key.2));
    new.retain(|(key, ..)| of_old.contains(key.2));
    let lookup: HashMap<&Key, (f64, f64)> = old.iter().map(|(key, value, of)| (key, (*value, *of))).collect();
    let mut moves = Vec::new();
    for (key, value, of) in &new {
        let known = lookup.get(key).copied();
        moves.extend(moved(
            key,
            known.map(|(value, _)| value),
            Some(*value),
            known.map_or(*of, |k| k.1),
            thresholds,
        ));
    }
    for (key, value, of) in &old {
        if !new.iter().any(|(other, _, _)| other == key) {
            moves.extend(moved(key, Some(*value), None, *of, thresholds));
        }
    }
    let passed = !moves.iter().any(|m| m.turn == Turn::Worse);
    LedgerDiff { moves, thresholds, passed }
}

/// Stage with its occurrence, output, metric.
type Key = (String, Option<String>, &'static str);

/// A contribution, and the size of the whole that it is a part of.
type Contribution = (Key, f64, f64);

/// Contributions of the stages, each with the size of the whole that it is a part of, and the totals.
fn contributions(ledger: &Ledger) -> Vec<Contribution> {
    let mut found = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let graphs: Vec<&Entry> = ledger.entries.iter().filter(|entry| entry.stage != COMPILED).collect();
    let last = graphs.last().copied();
    let whole = |of: fn(&Entry) -> f64| last.map_or(0.0, of);
    let mut before: Option<&Entry> = None;
    for entry in &graphs {
        let name = entry.stage.split('{').next().unwrap_or_default();
        let count = seen.entry(name.to_owned()).and_modify(|count| *count += 1).or_insert(1);
        let stage = if *count > 1 { format!("{name} #{count}") } else { name.to_owned() };
        let mut note = |metric: &'static str, of: fn(&Entry) -> f64| {
            let value = of(entry) - before.map_or(0.0, of);
            found.push(((stage.clone(), None, metric), value, whole(of)));
        };
        note("kernels", |entry| entry.kernels as f64);
        note("nodes", |entry| entry.nodes as f64);
        note("constants_bytes", |entry| entry.constants_bytes as f64);
        found.push(((stage.clone(), None, "rewrites"), entry.rewrites as f64, 0.0));
        for (metric, of) in TIMES {
            let value = of(entry).map(|now| now - before.and_then(of).unwrap_or(0.0));
            let whole = last.and_then(of).unwrap_or(0.0);
            found.extend(value.map(|value| ((stage.clone(), None, metric), value, whole)));
        }
        errors(&mut found, &stage, entry);
        before = Some(entry);
    }
    let compiled = ledger.entries.iter().find(|entry| entry.stage == COMPILED);
    if let Some(compiled) = compiled {
        errors(&mut found, COMPILED, compiled);
    }
    if let Some(total) = compiled.or(last) {
        let mut note = |metric: &'static str, value: f64| {
            found.push((("total".to_owned(), None, metric), value, value));
        };
        note("kernels", total.kernels as f64);
        note("constants_bytes", total.constants_bytes as f64);
        for (metric, of) in TIMES {
            of(total).into_iter().for_each(|value| note(metric, value));
        }
    }
    found
}

/// A time of an entry.
type TimeOf = fn(&Entry) -> Option<f64>;

const TIMES: [(&str, TimeOf); 2] =
    [("predicted_ms", |entry| entry.predicted_ms), ("measured_ms", |entry| entry.measured_ms)];

fn errors(found: &mut Vec<Contribution>, stage: &str, entry: &Entry) {
    for output in &entry.outputs {
        let key = (stage.to_owned(), Some(output.name.clone()), "error");
        found.push((key, output.added, 1.0));
    }
}

/// One step of f32.
const STEP: f64 = 1.0 / (1u64 << 23) as f64;

fn moved(
    (stage, output, metric): &Key,
    before: Option<f64>,
    after: Option<f64>,
    whole: f64,
    thresholds: Thresholds,
) -> Option<LedgerMove> {
    let (old, new) = (before.unwrap_or(0.0), after.unwrap_or(0.0));
    if old == new {
        return None;
    }
    let by = new - old;
    let turn = match *metric {
        "error" if new > thresholds.error * old && by > STEP => Turn::Worse,
        "kernels" | "constants_bytes" if by > thresholds.size * whole.abs() => Turn::Worse,
        // Times below a microsecond are noise.
        "predicted_ms" | "measured_ms" if by > thresholds.time * whole.abs() && by > 1e-3 => Turn::Worse,
        "rewrites" | "nodes" => Turn::Moved,
        _ if by < 0.0 => Turn::Better,
        _ => Turn::Moved,
    };
    Some(LedgerMove { stage: stage.clone(), output: output.clone(), metric, before, after, turn })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(stage: &str, kernels: usize, bytes: u64, added: f64) -> Entry {
        let difference = Difference::none(4);
        let output = EntryOutput { added, ..entry_output("y", None, added, &difference, 1e-5) };
        Entry {
            stage: stage.to_owned(),
            rewrites: 1,
            nodes: kernels,
            kernels,
            constants_bytes: bytes,
            predicted_ms: Some(kernels as f64),
            measured_ms: None,
            outputs: vec![output],
        }
    }

    fn ledger(fused: usize, added: f64) -> Ledger {
        let entries = vec![
            entry("import", 100, 1000, 0.0),
            entry("fuse", fused, 1000, added),
            entry("dce", fused, 1000, 0.0),
        ];
        Ledger {
            format: FORMAT,
            model: "m".into(),
            pipeline: "fuse,dce".into(),
            target: "host".into(),
            entries,
        }
    }

    #[test]
    fn what_got_worse_is_told_at_its_pass_only() {
        let found = diff(&ledger(50, 1e-7), &ledger(60, 1e-7), Thresholds::default());
        assert!(!found.passed);
        let worse: Vec<(&str, &str)> = found
            .moves
            .iter()
            .filter(|m| m.turn == Turn::Worse)
            .map(|m| (m.stage.as_str(), m.metric))
            .collect();
        let expected = [("fuse", "kernels"), ("fuse", "predicted_ms")];
        assert_eq!(worse[..2], expected);
        assert!(worse[2..].iter().all(|(stage, _)| *stage == "total"), "{worse:?}");
        let better = diff(&ledger(60, 1e-7), &ledger(50, 1e-7), Thresholds::default());
        assert!(better.passed && better.moves.iter().any(|m| m.turn == Turn::Better));
        assert_eq!(diff(&ledger(50, 0.0), &ledger(50, 0.0), Thresholds::default()).moves, []);
        let mut timed = ledger(50, 0.0);
        timed.entries.iter_mut().for_each(|entry| entry.measured_ms = Some(1.0));
        assert_eq!(diff(&ledger(50, 0.0), &timed, Thresholds::default()).moves, []);
    }

    #[test]
    fn errors_have_a_factor_and_a_floor() {
        let turn = |before: f64, after: f64, error: f64| {
            let thresholds = Thresholds { error, ..Thresholds::default() };
            diff(&ledger(50, before), &ledger(50, after), thresholds).moves.first().map(|m| m.turn)
        };
        assert_eq!(turn(1e-6, 1.5e-6, 2.0), Some(Turn::Moved));
        assert_eq!(turn(1e-6, 2.5e-6, 2.0), Some(Turn::Worse));
        assert_eq!(turn(1e-6, 2.5e-6, 3.0), Some(Turn::Moved));
        assert_eq!(turn(0.0, 1e-8, 2.0), Some(Turn::Moved));
        assert_eq!(turn(0.0, f64::INFINITY, 2.0), Some(Turn::Worse));
    }

    #[test]
    fn ledgers_round_trip_with_infinite_errors() {
        let ledger = ledger(50, f64::INFINITY);
        assert_eq!(Ledger::parse(&ledger.print().unwrap()).unwrap(), ledger);
        let other = ledger.print().unwrap().replace("\"format\": 1", "\"format\": 7");
        assert!(Ledger::parse(&other).unwrap_err().to_string().contains("format is 7"));
    }
}

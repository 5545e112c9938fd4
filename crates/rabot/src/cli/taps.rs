//! `--tap`: values from inside the kernels of a compiled model.

use super::summary::Summary;
use super::{Failure, output};
use clap::{Args, ValueHint};
use rabot::ir::Graph;
use rabot::{Options, Program, Tensors};
use rabot_debug::taps::{Proof, Tapped, Taps, proof, tap};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Heading of these options in the help.
const TAPS: &str = "Taps";

/// Which values to look at.
#[derive(Args, Clone, Debug)]
pub(crate) struct TapArgs {
    /// Store this value of the optimized graph too, also from inside a fused kernel; may be given several times
    #[arg(long = "tap", value_name = "NAME", help_heading = TAPS, conflicts_with_all = ["tap_all", "reference"])]
    pub names: Vec<String>,

    /// Store every value that is computed
    #[arg(long, help_heading = TAPS, conflicts_with = "reference")]
    pub tap_all: bool,

    /// Where tapped values go: an npz file, or a folder if --inputs is one
    #[arg(long, value_name = "FILE.npz|DIR", value_hint = ValueHint::AnyPath, help_heading = TAPS)]
    pub taps: Option<PathBuf>,
}

impl TapArgs {
    /// The taps asked for.
    ///
    /// **Errors**: a place for taps without any.
    pub(crate) fn wanted(&self) -> Result<Option<Taps>, Failure> {
        match (self.tap_all, self.names.is_empty()) {
            (true, _) => Ok(Some(Taps::All)),
            (_, false) => Ok(Some(Taps::Named(self.names.clone()))),
            _ if self.taps.is_some() => {
                let failure = Failure::new("--taps without any tap");
                Err(failure.with_help("name values with --tap NAME, or take all with --tap-all"))
            }
            _ => Ok(None),
        }
    }
}

/// The tapped program of an optimized graph, and the names of what it stores.
///
/// **Errors**: there is no such value, or the graph cannot be compiled.
pub(crate) fn compile(
    graph: &Graph,
    taps: &Taps,
    options: &Options,
) -> Result<(Program, Vec<String>), Failure> {
    let Tapped { graph, names } = tap(graph, taps).map_err(|error| {
        Failure::new(error.to_string())
            .with_help("`rabot inspect MODEL --pipeline … --print` shows the names")
    })?;
    let profile = rabot::Profile::by_name(&options.target)?;
    Ok((Program::new(rabot::lower(&graph, &profile)?, &profile)?, names))
}

/// What the taps of one run gave.
#[derive(Serialize)]
pub(crate) struct TapReport {
    /// Values, by name.
    pub values: Vec<Summary>,
    /// The model's outputs with and without taps.
    pub proof: Proof,
    /// The file they are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
}

/// Compares the outputs with those of the program without taps, and writes the tapped values.
///
/// **Errors**: the file cannot be written.
pub(crate) fn report(
    plain: &Tensors,
    tapped: &Tensors,
    names: &[String],
    target: Option<&Path>,
) -> Result<TapReport, Failure> {
    let chosen = names.iter().filter_map(|name| Some((name.clone(), tapped.get(name)?.clone())));
    let chosen: Tensors = chosen.collect();
    if let Some(target) = target {
        output::write_npz(target, &chosen)?;
    }
    Ok(TapReport {
        values: chosen.iter().map(|(name, tensor)| Summary::of(name, tensor)).collect(),
        proof: proof(plain, tapped),
        written: target.map(|path| path.display().to_string()),
    })
}

/// One line on what the taps changed.
pub(crate) fn verdict(proof: &Proof) -> String {
    if proof.holds() {
        return format!(
            "the outputs are the same bits with and without taps (BLAKE3 {})",
            &proof.plain[..16]
        );
    }
    format!(
        "TAPS CHANGED THE OUTPUTS {}: BLAKE3 {} without, {} with",
        proof.differing.join(", "),
        &proof.plain[..16],
        &proof.tapped[..16]
    )
}

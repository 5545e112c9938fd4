//! `convert`: computes in 16-bit floats what bears it, and stores the weights so.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[n,2]
//! %1 = Constant [1.0, 2.0, 3.0, 4.0] : f32[2,2]
//! %2 = MatMul(%0, %1)
//! %3 = Relu(%2)
//! %4 = MatMul(%3, %1)
//! %5 = Softmax(%4)
//! output "y" = %5
//! ; becomes
//! model "g"
//! input %0 "x" : f32[n,2]
//! %1 = Cast(%0) {to="f16"}
//! %2 = Constant [1.0, 2.0, 3.0, 4.0] : f16[2,2]
//! %3 = MatMul(%1, %2)
//! %4 = Relu(%3)
//! %5 = MatMul(%4, %2)
//! %6 = Cast(%5) {to="f32"}
//! %7 = Softmax(%6)
//! output "y" = %7
//! ```
//!
//! | nodes | become narrow |
//! |---|---|
//! | convolutions, matrix products, constant tables of `Gather` | always; sums are f32 inside |
//! | sums, products, activations of bounded slope, `Clip`, `Where` | between narrow values: an operand is one, and the result reaches a product |
//! | views and copies | where all operands are narrow, or all users: a conversion moves to where it meets others |
//! | softmax, norms, reductions, `Exp`, `Log`, `Sqrt`, `Pow`, `Reciprocal` and all else | never |
//!
//! A node stays in f32 where `keep` names it; where one of its constants overflows, or is rounded further than by the
//! narrow type's unit roundoff (its elements are denormal there); and, with calibration inputs, where one of its
//! values overflows. A value is converted once for all its readers, and back only for those that need f32.
//!
//! `what=weights` converts the weights alone: each is stored narrow, and a `Cast` widens it where it is read.
//! Put it behind `fold`, which would compute that `Cast`.
//!
//! Nested graphs stay as they are.
//!
//! **Source**: P. Micikevicius et al., "Mixed precision training", <https://arxiv.org/abs/1710.03740>, for the
//! classes of operators.

mod classes;
mod rewrite;
#[cfg(test)]
mod tests;

use classes::{Class, class};
use rabot_ir::{Graph, Op};
use rabot_rewrite::{
    Exactness, OptionError, OptionInfo, Options, Pass, PassCx, PassError, PassInfo, Report, edit_branches,
    print_options,
};
use rabot_tensor::DType;

const NAME: &str = "convert";

const OPTIONS: &[OptionInfo] = &[
    OptionInfo { name: "to", default: "f16", summary: "the narrow type: f16 or bf16" },
    OptionInfo {
        name: "what",
        default: "all",
        summary: "all: weights and what is computed; weights: only those, widened where they are read",
    },
    OptionInfo {
        name: "keep",
        default: "",
        summary: "what stays in f32: operators or names of nodes, * for any text, | between several",
    },
    OptionInfo {
        name: "io",
        default: "keep",
        summary: "inputs and outputs of the model: keep their types, or convert them too (what=all only)",
    },
];

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: NAME, options: OPTIONS, make };

fn make(options: &Options) -> Result<Box<dyn Pass>, OptionError> {
    let to = match options.text("to") {
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        _ => return Err(options.refuse("to")),
    };
    let what = match options.text("what") {
        "all" => What::All,
        "weights" => What::Weights,
        _ => return Err(options.refuse("what")),
    };
    let convert_io = match (options.text("io"), what) {
        ("keep", _) => false,
        ("convert", What::All) => true,
        _ => return Err(options.refuse("io")),
    };
    let keep = options.text("keep").split('|').map(str::trim).filter(|text| !text.is_empty());
    let keep = keep.map(str::to_owned).collect();
    Ok(Box::new(Convert { to, what, keep, convert_io }))
}

/// What is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Weights and computation.
    All,
    /// Weights, which are widened where they are read.
    Weights,
}

/// Computes in 16-bit floats, or stores the weights so.
#[derive(Clone, Debug)]
pub struct Convert {
    /// The narrow type: f16 or bf16.
    pub to: DType,
    /// What is converted.
    pub what: What,
    /// Operators and names of nodes that stay in f32; `*` is any text.
    pub keep: Vec<String>,
    /// Inputs and outputs of the model change their types too.
    pub convert_io: bool,
}

impl Default for Convert {
    fn default() -> Self {
        Convert { to: DType::F16, what: What::All, keep: Vec::new(), convert_io: false }
    }
}

impl Pass for Convert {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "compute in f16 or bf16 what bears it, or store the weights so"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Changes("accuracy")
    }

    fn options(&self) -> String {
        let what = if self.what == What::All { "all" } else { "weights" };
        let io = if self.convert_io { "convert" } else { "keep" };
        let values = [("to", self.to.name().to_owned()), ("what", what.to_owned())];
        let rest = [("keep", self.keep.join("|")), ("io", io.to_owned())];
        print_options(OPTIONS, &[values, rest].concat())
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let mut report = Report::default();
        edit_branches(NAME, graph, &mut |branch| {
            skip_nested(branch, &mut report);
            Ok(false)
        })?;
        match self.what {
            What::All => rewrite::compute(self, graph, cx, &mut report)?,
            What::Weights => rewrite::weights(self, graph, cx, &mut report)
                .map_err(|error| PassError::Graph { pass: NAME, error })?,
        }
        Ok(report)
    }
}

impl Convert {
    /// The pattern of `keep` that names a node: by its operator, its name, or the name of a source node.
    fn kept_by(&self, node: &rabot_ir::Node) -> Option<&str> {
        let names = |pattern: &str| {
            let sources = node.sources.iter().map(|source| &**source);
            [node.op.name(), &*node.name].into_iter().chain(sources).any(|name| matches(pattern, name))
        };
        self.keep.iter().map(String::as_str).find(|pattern| names(pattern))
    }
}

/// Says of the layers of a nested graph that they stay.
fn skip_nested(graph: &Graph, report: &mut Report) {
    for id in graph.node_ids() {
        let node = graph.node(id);
        let f32 = node.outputs.iter().any(|output| output.fact.dtype() == DType::F32);
        if f32 && class(&node.op) == Class::Contraction {
            report.skip("narrow", node.name.clone(), "it is in a nested graph");
        }
        for (_, region) in Op::regions(&node.op) {
            skip_nested(region, report);
        }
    }
}

/// True if `text` is `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

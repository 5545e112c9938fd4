//! `prune`: removes the weights of convolutions and matrix products that have the smallest magnitude.
//!
//! | pattern | what becomes of the weights |
//! |---|---|
//! | `unstructured` | the smallest fraction `sparsity` becomes 0, of each tensor or (`scope=global`) of all together |
//! | `N:M` | of each M neighbours along the input channels (the k axis of products) at most N stay |
//! | `channel` | whole output channels go, `sparsity` of each layer: tensors get smaller, the neighbours follow |
//!
//! Only constants change, or, with `channel`, their shapes. Run it after `fuse`, so that weights are those that the
//! layer multiplies by, batch norms included.

use super::{channels, mask};
use rabot_ir::{Graph, NodeId, Op, Value};
use rabot_rewrite::{
    Exactness, OptionError, OptionInfo, Options, Pass, PassCx, PassError, PassInfo, Report, edit_branches,
    print_options,
};
use std::fmt;
use std::str::FromStr;

pub(super) const NAME: &str = "prune";

const OPTIONS: &[OptionInfo] = &[
    OptionInfo {
        name: "sparsity",
        default: "0.5",
        summary: "fraction to remove, at least 0 and less than 1; a pattern N:M says it by itself",
    },
    OptionInfo {
        name: "pattern",
        default: "unstructured",
        summary: "unstructured, channel, or N:M (2:4): N of each M inputs stay, 1 ≤ N < M ≤ 64",
    },
    OptionInfo {
        name: "scope",
        default: "layer",
        summary: "layer: the fraction of each layer; global: of all weights together (unstructured only)",
    },
    OptionInfo {
        name: "coupled",
        default: "skip",
        summary: "layers whose channels are added to those of others (channel only): skip them, or joint: \
                  remove the same ones of all, by the sum of their norms",
    },
];

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: NAME, options: OPTIONS, make };

fn make(options: &Options) -> Result<Box<dyn Pass>, OptionError> {
    let sparsity = options.get_if("sparsity", |s: &f64| (0.0..1.0).contains(s))?;
    let pattern: Pattern = options.get("pattern")?;
    if matches!(pattern, Pattern::Grouped { .. }) && sparsity != Prune::default().sparsity {
        return Err(options.refuse("sparsity"));
    }
    let global = match options.text("scope") {
        "layer" => false,
        "global" if pattern == Pattern::Unstructured => true,
        _ => return Err(options.refuse("scope")),
    };
    let joint = match options.text("coupled") {
        "skip" => false,
        "joint" if pattern == Pattern::Channel => true,
        _ => return Err(options.refuse("coupled")),
    };
    Ok(Box::new(Prune { sparsity, pattern, global, joint }))
}

/// Which weights may be removed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Any.
    Unstructured,
    /// At most `keep` of each `of` neighbours along the input channels stay.
    Grouped {
        /// How many stay.
        keep: usize,
        /// Out of how many.
        of: usize,
    },
    /// Whole output channels.
    Channel,
}

impl FromStr for Pattern {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "unstructured" => return Ok(Pattern::Unstructured),
            "channel" => return Ok(Pattern::Channel),
            _ => {}
        }
        let (keep, of) = text.split_once(':').ok_or(())?;
        let (keep, of): (usize, usize) = (keep.parse().map_err(|_| ())?, of.parse().map_err(|_| ())?);
        if 1 <= keep && keep < of && of <= 64 { Ok(Pattern::Grouped { keep, of }) } else { Err(()) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Unstructured => write!(f, "unstructured"),
            Pattern::Grouped { keep, of } => write!(f, "{keep}:{of}"),
            Pattern::Channel => write!(f, "channel"),
        }
    }
}

/// Removes the weights of the smallest magnitude.
#[derive(Clone, Debug)]
pub struct Prune {
    /// Fraction to remove; not used with [`Pattern::Grouped`].
    pub sparsity: f64,
    /// Which weights are removed together.
    pub pattern: Pattern,
    /// The fraction is that of all layers together; with [`Pattern::Unstructured`] only.
    pub global: bool,
    /// Channels that are added to those of other layers go too, the same ones everywhere; with [`Pattern::Channel`]
    /// only.
    pub joint: bool,
}

impl Default for Prune {
    fn default() -> Self {
        Prune { sparsity: 0.5, pattern: Pattern::Unstructured, global: false, joint: false }
    }
}

impl Pass for Prune {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "remove the smallest weights: single ones, N of M, or whole channels with all that follows from it"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Changes("accuracy")
    }

    fn options(&self) -> String {
        let scope = if self.global { "global" } else { "layer" };
        let coupled = if self.joint { "joint" } else { "skip" };
        let values = [
            ("sparsity", self.sparsity.to_string()),
            ("pattern", self.pattern.to_string()),
            ("scope", scope.to_owned()),
            ("coupled", coupled.to_owned()),
        ];
        print_options(OPTIONS, &values)
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let mut report = Report::default();
        self.prune(graph, cx, &mut report)?;
        Ok(report)
    }
}

impl Prune {
    fn prune(&self, graph: &mut Graph, cx: &PassCx<'_>, report: &mut Report) -> Result<(), PassError> {
        edit_branches(NAME, graph, &mut |branch| {
            let before = report.applied.len();
            self.prune(branch, cx, report)?;
            Ok(report.applied.len() > before)
        })?;
        let result = match self.pattern {
            Pattern::Channel => channels::prune(graph, self.sparsity, self.joint, cx, report),
            Pattern::Unstructured => mask::unstructured(graph, self.sparsity, self.global, cx, report),
            Pattern::Grouped { keep, of } => mask::grouped(graph, keep, of, cx, report),
        };
        result.map_err(|error| PassError::Graph { pass: NAME, error })
    }
}

/// The weights of a layer that can be pruned; `None` for any other node.
pub(super) fn weights(graph: &Graph, id: NodeId) -> Option<Value> {
    match graph.node(id).op {
        Op::Conv(_) | Op::Gemm(_) | Op::MatMul(_) => graph.node(id).inputs.get(1).copied().flatten(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_rewrite::Pipeline;

    #[test]
    fn options_round_trip_and_contradictions_are_refused() {
        for text in [
            "prune",
            "prune{sparsity=0.8}",
            "prune{pattern=2:4}",
            "prune{sparsity=0.25,pattern=channel}",
            "prune{scope=global}",
            "prune{pattern=channel,coupled=joint}",
        ] {
            assert_eq!(Pipeline::parse(text, &[INFO]).unwrap().to_string(), text);
        }
        for text in [
            "prune{sparsity=1}",
            "prune{sparsity=-0.1}",
            "prune{sparsity=NaN}",
            "prune{pattern=4:4}",
            "prune{pattern=0:4}",
            "prune{pattern=2}",
            "prune{sparsity=0.25,pattern=2:4}",
            "prune{pattern=channel,scope=global}",
            "prune{coupled=joint}",
        ] {
            assert!(Pipeline::parse(text, &[INFO]).is_err(), "{text}");
        }
    }
}

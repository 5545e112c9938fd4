//! `channels`: cuts the output channels of convolutions and matrix products that nobody reads.
//!
//! A `Slice`, `Gather` or `Split` behind a layer may take some of its channels only; the others are cut from its weights,
//! and from all that lies between. With `zeros`, a channel that the next layer multiplies by zeros only is not read
//! either: pruning leaves such weights. That is right for finite values, and sums have fewer terms then.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[n,2]
//! %1 = Constant [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[2,3]
//! %2 = Constant [0.5, 0.25, 0.125] : f32[3]
//! %3 = MatMul(%0, %1)
//! %4 = Add(%3, %2)
//! %5 = Constant [2, 1] : i64[2]
//! %6 = Gather(%4, %5) {axis=1}
//! output "y" = %6
//! ; becomes
//! model "g"
//! input %0 "x" : f32[n,2]
//! %1 = Constant [2.0, 3.0, 5.0, 6.0] : f32[2,2]
//! %2 = MatMul(%0, %1)
//! %3 = Constant [0.25, 0.125] : f32[2]
//! %4 = Add(%2, %3)
//! %5 = Constant [1, 0] : i64[2]
//! %6 = Gather(%4, %5) {axis=1}
//! output "y" = %6
//! ```

use super::cut;
use super::walk::{Edit, Reads, Space, Walk};
use rabot_ir::{Graph, GraphError};
use rabot_rewrite::{
    Exactness, OptionError, OptionInfo, Options, Pass, PassCx, PassError, PassInfo, Report, edit_branches,
    print_options,
};

const NAME: &str = "channels";
const RULE: &str = "unread-channel";

const OPTIONS: &[OptionInfo] = &[OptionInfo {
    name: "zeros",
    default: "false",
    summary: "channels that the next layer multiplies by zeros only go too: for finite values, sums are shorter",
}];

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: NAME, options: OPTIONS, make };

fn make(options: &Options) -> Result<Box<dyn Pass>, OptionError> {
    Ok(Box::new(Channels { zeros: options.get("zeros")? }))
}

/// Cuts the output channels that nobody reads.
#[derive(Clone, Debug, Default)]
pub struct Channels {
    /// A channel that is multiplied by zeros only is not read. Off under [`PassCx::strict`].
    pub zeros: bool,
}

impl Pass for Channels {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "cut the output channels of convolutions and matrix products that nobody reads"
    }

    fn exactness(&self) -> Exactness {
        match self.zeros {
            // A sum without its zeros may be added up in other blocks.
            true => Exactness::Rel { rtol: 1e-4, atol: 1e-6 },
            false => Exactness::Bitwise,
        }
    }

    fn options(&self) -> String {
        print_options(OPTIONS, &[("zeros", self.zeros.to_string())])
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let mut report = Report::default();
        self.cut(graph, cx, &mut report)?;
        Ok(report)
    }
}

impl Channels {
    fn cut(&self, graph: &mut Graph, cx: &PassCx<'_>, report: &mut Report) -> Result<(), PassError> {
        edit_branches(NAME, graph, &mut |branch| {
            let before = report.applied.len();
            self.cut(branch, cx, report)?;
            Ok(report.applied.len() > before)
        })?;
        let zeros = self.zeros && !cx.strict;
        let result = unread(graph, if zeros { Reads::Nonzero } else { Reads::Taken }, cx, report);
        result.map_err(|error| PassError::Graph { pass: NAME, error })
    }
}

fn unread(graph: &mut Graph, reads: Reads, cx: &PassCx<'_>, report: &mut Report) -> Result<(), GraphError> {
    let walk = Walk::new(graph, reads)?;
    let mut chosen: Vec<(Space, Vec<usize>)> = Vec::new();
    for space in walk.spaces() {
        let unread = space.size.saturating_sub(space.read.len());
        // What nobody reads at all goes with its readers.
        if space.frozen.is_some() || unread == 0 || space.read.is_empty() {
            continue;
        }
        let producers = || space.producers.iter().map(|(node, ..)| graph.node(*node).name.clone());
        if let Some(shared) = shared(graph, space) {
            for name in producers() {
                report.skip(RULE, name, format!("{unread} of its channels are not read, but {shared}"));
            }
            continue;
        }
        if !producers().all(|name| cx.admits(RULE, &name)) {
            continue;
        }
        chosen.push((space.clone(), space.read.iter().copied().collect()));
        for name in producers() {
            report.apply(RULE, name, format!("{unread} of {} output channels are not read", space.size));
        }
    }
    match chosen.is_empty() {
        true => Ok(()),
        false => cut::apply(graph, &chosen),
    }
}

/// Weights to be cut that others read too: there would be two of them.
fn shared(graph: &Graph, space: &Space) -> Option<String> {
    let constants = space.edits.iter().filter_map(|edit| match *edit {
        Edit::Cut { node, slot: 1, .. } => super::magnitude::weights(graph, node),
        _ => None,
    });
    let mut shared = constants.filter(|&value| graph.use_count(value) > 1);
    shared.next().map(|value| format!("`{}` is used elsewhere too", graph.value_name(value)))
}

#[cfg(test)]
mod tests;

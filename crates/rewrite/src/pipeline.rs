//! Pipelines: passes in order, as text that round-trips.

use crate::options::{OptionError, OptionInfo, Options};
use crate::pass::{Exactness, Pass, PassCx, PassError, Report, Stats};
use rabot_ir::Graph;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

/// A pass that pipelines can name.
#[derive(Clone, Copy)]
pub struct PassInfo {
    /// Name of the pass.
    pub name: &'static str,
    /// Options it takes.
    pub options: &'static [OptionInfo],
    /// Makes it from its options.
    pub make: fn(&Options) -> Result<Box<dyn Pass>, OptionError>,
}

impl fmt::Debug for PassInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PassInfo({})", self.name)
    }
}

/// The text is no pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// The text cannot be read.
    #[error("pipeline `{text}`, at byte {at}: expected {expected}")]
    Syntax {
        /// The whole pipeline.
        text: String,
        /// Where reading stopped.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// There is no such pass.
    #[error("there is no pass `{name}`; there are {known}")]
    UnknownPass {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// An option is not right.
    #[error(transparent)]
    Option(#[from] OptionError),
}

/// Passes in order.
#[derive(Debug, Default)]
pub struct Pipeline {
    passes: Vec<Box<dyn Pass>>,
}

/// What one pass of a pipeline did.
#[derive(Debug, Clone)]
pub struct Step {
    /// The pass with its options, as the pipeline spells it.
    pub pass: String,
    /// What the pass promises.
    pub exactness: Exactness,
    /// What it did.
    pub report: Report,
    /// Number of the pipeline's first change by this pass, from 1; the others follow in the order of the report.
    pub first_change: usize,
}

impl Pipeline {
    /// The pipeline of these passes.
    pub fn new(passes: Vec<Box<dyn Pass>>) -> Self {
        Pipeline { passes }
    }

    /// Reads a pipeline: `fold,fuse,prune{sparsity=0.8}`. An empty text is the empty pipeline.
    ///
    /// **Errors**: syntax, an unknown pass or option, or a value the option does not take.
    pub fn parse(text: &str, registry: &[PassInfo]) -> Result<Self, PipelineError> {
        let mut pipeline = Pipeline::default();
        let mut at = 0;
        let rest = |at: usize| text.get(at..).unwrap_or("");
        let error = |at, expected| PipelineError::Syntax { text: text.to_owned(), at, expected };
        while at < text.len() {
            let end = rest(at).find([',', '{', '}', '=']).map_or(text.len(), |length| at + length);
            let name = rest(at)[..end - at].trim();
            if name.is_empty() {
                return Err(error(at, "a pass"));
            }
            let info = find(name, registry)?;
            let mut options = Options::new(name, info.options);
            at = end;
            if rest(at).starts_with('{') {
                let close = rest(at).find('}').ok_or_else(|| error(text.len(), "`}`"))?;
                for pair in rest(at)[1..close].split(',') {
                    let (key, value) = pair.split_once('=').ok_or_else(|| error(at + 1, "`option=value`"))?;
                    options.set(key.trim(), value.trim())?;
                }
                at += close + 1;
            }
            pipeline.passes.push((info.make)(&options)?);
            at = text.len() - rest(at).trim_start().len();
            if at < text.len() {
                if !rest(at).starts_with(',') || rest(at + 1).trim().is_empty() {
                    return Err(error(at, "`,` and a pass, or the end"));
                }
                at += 1;
            }
        }
        Ok(pipeline)
    }

    /// The passes, in order.
    pub fn passes(&self) -> &[Box<dyn Pass>] {
        &self.passes
    }

    /// Appends a pass.
    pub fn push(&mut self, pass: Box<dyn Pass>) {
        self.passes.push(pass);
    }

    /// Runs the passes in order, verifying the graph before the first and after every one, and shows each result to
    /// `observe`.
    ///
    /// **Errors**: a pass fails, panics, or leaves a graph that is not valid; the graph is then what that pass was
    /// given.
    pub fn run(
        &self,
        graph: &mut Graph,
        cx: &PassCx<'_>,
        observe: &mut dyn FnMut(&Step, &Graph),
    ) -> Result<Vec<Step>, PassError> {
        self.run_from(0, graph, cx, observe)
    }

    /// As [`Pipeline::run`], from the pass at this position on: the graph is what the passes before it give.
    ///
    /// **Errors**: as [`Pipeline::run`].
    pub fn run_from(
        &self,
        first: usize,
        graph: &mut Graph,
        cx: &PassCx<'_>,
        observe: &mut dyn FnMut(&Step, &Graph),
    ) -> Result<Vec<Step>, PassError> {
        verify(graph, None)?;
        let mut steps = Vec::with_capacity(self.passes.len());
        let mut first_change = 1;
        let mut index = first;
        while let Some(step) = self.run_one(index, graph, cx)? {
            let step = Step { first_change, ..step };
            first_change += step.report.applied.len();
            observe(&step, graph);
            steps.push(step);
            index += 1;
        }
        Ok(steps)
    }

    /// Runs the pass at this position on a graph that was verified, and verifies what it leaves; `None` after the last
    /// pass. The changes of the step count from 1.
    ///
    /// **Errors**: as [`Pipeline::run`].
    pub fn run_one(
        &self,
        index: usize,
        graph: &mut Graph,
        cx: &PassCx<'_>,
    ) -> Result<Option<Step>, PassError> {
        let Some(pass) = self.passes.get(index) else { return Ok(None) };
        if let Some(gate) = cx.gate {
            gate.start(index);
        }
        let before = Stats::of(graph);
        let start = Instant::now();
        let given = graph.clone();
        let text = format!("{}{}", pass.name(), pass.options());
        let outcome = caught(&**pass, graph, cx);
        let elapsed = start.elapsed();
        let outcome = outcome.and_then(|report| verify(graph, Some(&text)).map(|()| report));
        match outcome {
            Ok(mut report) => {
                report.elapsed = elapsed;
                report.before = before;
                report.after = Stats::of(graph);
                Ok(Some(Step { pass: text, exactness: pass.exactness(), report, first_change: 1 }))
            }
            Err(error) => {
                *graph = given;
                Err(error)
            }
        }
    }
}

fn find<'a>(name: &str, registry: &'a [PassInfo]) -> Result<&'a PassInfo, PipelineError> {
    registry.iter().find(|info| info.name == name).ok_or_else(|| {
        let known = registry.iter().map(|info| info.name).collect::<Vec<_>>().join(", ");
        PipelineError::UnknownPass { name: name.to_owned(), known }
    })
}

/// Runs a pass. A panic is an error: the caller keeps the graph that the pass was given.
fn caught(pass: &dyn Pass, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
    let run = AssertUnwindSafe(|| pass.run(graph, cx));
    std::panic::catch_unwind(run).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(PassError::Panic { pass: pass.name(), message: text.unwrap_or_else(|| "no message".to_owned()) })
    })
}

fn verify(graph: &Graph, after: Option<&str>) -> Result<(), PassError> {
    rabot_ir::verify::verify(graph).map_err(|errors| {
        let lines: Vec<String> = errors.0.iter().map(|error| format!("  {error}")).collect();
        PassError::Verify { after: after.map(str::to_owned), errors: lines.join("\n") }
    })
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pass) in self.passes.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}{}", pass.name(), pass.options())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::print_options;
    use rabot_ir::Fact;
    use rabot_tensor::DType;

    #[derive(Debug)]
    struct Nothing {
        level: f64,
    }

    const OPTIONS: &[OptionInfo] =
        &[OptionInfo { name: "level", default: "0.5", summary: "a number from 0 to 1" }];

    impl Pass for Nothing {
        fn name(&self) -> &'static str {
            "nothing"
        }
        fn summary(&self) -> &'static str {
            "does nothing"
        }
        fn exactness(&self) -> Exactness {
            Exactness::Bitwise
        }
        fn options(&self) -> String {
            print_options(OPTIONS, &[("level", self.level.to_string())])
        }
        fn run(&self, _: &mut Graph, _: &PassCx<'_>) -> Result<Report, PassError> {
            Ok(Report::default())
        }
    }

    fn make(options: &Options) -> Result<Box<dyn Pass>, OptionError> {
        let level = options.get_if("level", |v: &f64| (0.0..=1.0).contains(v))?;
        Ok(Box::new(Nothing { level }))
    }

    const PASSES: &[PassInfo] = &[PassInfo { name: "nothing", options: OPTIONS, make }];

    #[test]
    fn round_trips() {
        for text in ["", "nothing", "nothing{level=0.25}", "nothing,nothing{level=1},nothing"] {
            assert_eq!(Pipeline::parse(text, PASSES).unwrap().to_string(), text);
        }
        let spaced = Pipeline::parse(" nothing { level = 0.5 } , nothing", PASSES);
        assert_eq!(spaced.map(|p| p.to_string()), Ok("nothing,nothing".to_owned()));
    }

    #[test]
    fn refuses_and_says_what_there_is() {
        let error = |text| Pipeline::parse(text, PASSES).unwrap_err().to_string();
        assert_eq!(error("noting"), "there is no pass `noting`; there are nothing");
        assert_eq!(error("nothing{lvl=1}"), "pass `nothing` has no option `lvl`; it takes level");
        assert_eq!(error("nothing{level=7}"), "pass `nothing`: level=7: a number from 0 to 1");
        assert_eq!(error("nothing{level=1,level=1}"), "pass `nothing`: option `level` is given twice");
        for text in ["nothing,", ",", "nothing{level}", "nothing{level=1", "nothing nothing", "nothing}"] {
            assert!(Pipeline::parse(text, PASSES).is_err(), "{text}");
        }
    }

    /// Changes the graph, then gives up.
    #[derive(Debug)]
    struct Panics;

    impl Pass for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }

        fn summary(&self) -> &'static str {
            "panics"
        }

        fn exactness(&self) -> Exactness {
            Exactness::Bitwise
        }

        fn run(&self, graph: &mut Graph, _: &PassCx<'_>) -> Result<Report, PassError> {
            graph.name = "spoiled".to_owned();
            panic!("at {}", graph.name);
        }
    }

    #[test]
    fn a_panic_is_an_error_and_the_graph_stays() {
        let mut graph = Graph::new("g");
        let pipeline = Pipeline::new(vec![Box::new(Panics)]);
        let error = pipeline.run(&mut graph, &PassCx::default(), &mut |_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), "pass `panics` panicked: at spoiled");
        assert_eq!(graph.name, "g");
    }

    #[test]
    fn shows_each_step() {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", Fact::of_type(DType::F32, vec![2.into()]));
        graph.add_output("y", x);
        let mut seen = Vec::new();
        let pipeline = Pipeline::parse("nothing{level=0},nothing", PASSES).unwrap();
        let steps = pipeline
            .run(&mut graph, &PassCx::default(), &mut |step, _| seen.push(step.pass.clone()))
            .unwrap();
        assert_eq!(seen, ["nothing{level=0}", "nothing"]);
        assert_eq!(steps.len(), 2);
    }
}

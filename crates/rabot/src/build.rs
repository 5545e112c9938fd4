//! The way of a model: import, optimize, plan, generate.

use crate::{Error, Options, cache, snapshot};
use rabot_ir::{Dim, Fact, Graph, ValueType};
use rabot_kernel::Staged;
use rabot_onnx::{ExportOptions, Model};
use rabot_passes::{default_pipeline, pipeline};
use rabot_rewrite::{Admit, Gate, PassCx, PassError, Pipeline, Step};
use rabot_runtime::Program;
use rabot_target::Profile;
use std::path::{Path, PathBuf};

/// A program, and what became of the model on the way.
#[derive(Debug)]
pub struct Compiled {
    /// Ready to be run.
    pub program: Program,
    /// The optimized graph.
    pub graph: Graph,
    /// What each pass did.
    pub steps: Vec<Step>,
}

/// Compiles a model file for this machine, or another one that is like it enough to run here.
///
/// **Errors**: the file cannot be imported, the options do not fit it, or something in it cannot be compiled; all
/// that is unsupported is listed at once.
pub fn compile(path: impl AsRef<Path>, options: &Options) -> Result<Program, Error> {
    let model = import(path, options)?;
    Ok(compile_graph(model.graph, options)?.program)
}

/// Imports a model file, ONNX or `.rbt`, with the dims that the options give.
///
/// **Errors**: the file cannot be imported, or a named dim is not one of its.
pub fn import(path: impl AsRef<Path>, options: &Options) -> Result<Model, Error> {
    let path = path.as_ref();
    let mut model = if snapshot::is_snapshot(path) {
        Model::of_graph(snapshot::read(path)?)
    } else {
        rabot_onnx::import_file(path, &options.limits)?
    };
    specialize(&mut model.graph, &options.dims)?;
    Ok(model)
}

/// Compiles a graph.
///
/// **Errors**: as [`compile`].
pub fn compile_graph(mut graph: Graph, options: &Options) -> Result<Compiled, Error> {
    let steps = optimize(&mut graph, options, &mut |_, _| {})?;
    let profile = Profile::by_name(&options.target)?;
    let program = Program::new(lower(&graph, &profile)?, &profile)?;
    Ok(Compiled { program, graph, steps })
}

/// Runs the pipeline of the options on a graph, and shows each result to `observe`.
///
/// **Errors**: the pipeline's text is wrong, or a pass fails.
pub fn optimize(
    graph: &mut Graph,
    options: &Options,
    observe: &mut dyn FnMut(&Step, &Graph),
) -> Result<Vec<Step>, Error> {
    let pipeline = match &options.pipeline {
        None => default_pipeline(),
        Some(text) => pipeline(text)?,
    };
    let calibration = (!options.calibration.is_empty()).then_some(&options.calibration[..]);
    let cx = PassCx { calibration, strict: options.strict, ..PassCx::default() };
    if !options.without.is_empty() {
        // Kept results are those of all rewrites.
        return run_without(&pipeline, graph, cx, options, observe);
    }
    let Some(folder) = &options.cache else {
        return pipeline.run(graph, &cx, observe).map_err(|error| keep(error, graph, options));
    };
    std::fs::create_dir_all(folder)
        .map_err(|error| Error::Snapshot { path: folder.clone(), reason: error.to_string() })?;
    cache::run(&pipeline, graph, &cx, folder, observe).map_err(|error| match error {
        Error::Pass(error) => keep(error, graph, options),
        other => other,
    })
}

/// Runs a pipeline without the rewrites that the options leave out.
fn run_without(
    pipeline: &Pipeline,
    graph: &mut Graph,
    cx: PassCx<'_>,
    options: &Options,
    observe: &mut dyn FnMut(&Step, &Graph),
) -> Result<Vec<Step>, Error> {
    let gate = Gate::new(Admit::WithoutAt(options.without.iter().cloned().collect()));
    let steps = pipeline.run(graph, &PassCx { gate: Some(&gate), ..cx }, observe);
    let steps = steps.map_err(|error| keep(error, graph, options))?;
    all_left_out(&gate, options)?;
    Ok(steps)
}

/// Checks that there were all the rewrites that the options leave out.
///
/// **Errors**: the first that a pass did not ask for.
pub fn all_left_out(gate: &Gate, options: &Options) -> Result<(), Error> {
    let refused = gate.refused();
    let there =
        |(rule, node): &&(String, String)| refused.iter().any(|key| key.rule == *rule && key.node == *node);
    match options.without.iter().find(|rewrite| !there(rewrite)) {
        Some((rule, node)) => Err(Error::NoRewrite { rule: rule.clone(), node: node.clone() }),
        None => Ok(()),
    }
}

/// Keeps the graph that a pass of rabot's own could not do right, so that it can be looked at and made smaller.
fn keep(error: PassError, graph: &Graph, options: &Options) -> Error {
    let pass = match &error {
        PassError::Panic { pass, .. } | PassError::Budget { pass, .. } => (*pass).to_owned(),
        PassError::Verify { after: Some(pass), .. } => pass.clone(),
        _ => return Error::Pass(error),
    };
    let Some(folder) = &options.reproducers else { return Error::Pass(error) };
    let name = pass.split('{').next().unwrap_or("pass");
    let path = folder.join(format!("rabot-reproducer-{name}.rbt"));
    let header =
        format!("{error}\nrabot reduce {} --random 1 --pipeline '{pass}' -o reduced", path.display());
    match snapshot::write(&path, graph, &header) {
        Ok(()) => Error::Reproducible { error, path },
        Err(_) => Error::Pass(error),
    }
}

/// Plans a graph, in stages where sizes depend on data or values are no tensors.
///
/// **Errors**: every node that cannot be compiled.
pub fn lower(graph: &Graph, profile: &Profile) -> Result<Staged, Error> {
    Ok(rabot_kernel::stages(graph, profile)?)
}

/// Writes a model to an ONNX file, its graph as it is: as imported, or after any passes. Gives the version of ONNX's
/// operator set that the file is in, and the files: the model, and `NAME.data` if weights are beside it.
///
/// **Errors**: a node has no form in the operator set, or a file cannot be written; then what was there is as it was.
pub fn export(
    model: &Model,
    path: impl AsRef<Path>,
    options: &ExportOptions,
) -> Result<(i64, Vec<PathBuf>), Error> {
    Ok(rabot_onnx::export_file(model, path.as_ref(), options)?)
}

/// Replaces symbolic dims of the inputs by sizes, and infers all types again.
///
/// **Errors**: the model has no such dim, or an op refuses the size.
pub fn specialize(graph: &mut Graph, dims: &[(String, usize)]) -> Result<(), Error> {
    if dims.is_empty() {
        return Ok(());
    }
    let inputs = graph.inputs().to_vec();
    let mut known: Vec<String> = Vec::new();
    for &input in &inputs {
        for dim in graph.node(input).outputs[0].fact.shape() {
            dim.for_each_symbol(&mut |name| known.push(name.to_string()));
        }
    }
    if let Some((name, _)) = dims.iter().find(|(name, _)| !known.contains(name)) {
        known.sort();
        known.dedup();
        return Err(Error::UnknownDim { name: name.clone(), known: known.join(", ") });
    }
    let size = |name: &str| dims.iter().find(|(n, _)| n == name).map(|(_, size)| Dim::from(*size));
    for input in inputs {
        let fact = &graph.node(input).outputs[0].fact;
        let shape: Vec<Dim> = fact.shape().iter().map(|dim| dim.substitute(&size)).collect();
        let fact = Fact::of(ValueType { shape, ..fact.ty.clone() });
        graph.set_input_fact(input, fact);
    }
    graph.refresh()?;
    Ok(())
}

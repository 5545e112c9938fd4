//! Inputs: from files, or made up from a seed.

use super::Failure;
use super::failure::quoted;
use super::output::note;
use clap::{Args, ValueHint};
use rabot::ir::text::SplitMix64;
use rabot::ir::{Dim, Graph, ValueType};
use rabot::{DType, Tensor, Tensors, npz};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Heading of these options in the help.
const INPUTS: &str = "Inputs";

/// Most bytes of a made-up input.
const MAX_RANDOM_BYTES: usize = 16 << 30;

/// What the model is run on.
#[derive(Args, Clone, Debug)]
pub(crate) struct InputArgs {
    /// Inputs by name: an npz file, or a folder of them, each a run of its own
    #[arg(long, value_name = "FILE.npz|DIR", value_hint = ValueHint::AnyPath, help_heading = INPUTS)]
    pub inputs: Option<PathBuf>,

    /// One input: NAME=FILE.npy; may be given several times, and goes before --inputs
    #[arg(long, value_name = "NAME=FILE.npy", value_parser = parse_input, help_heading = INPUTS)]
    pub input: Vec<(String, PathBuf)>,

    /// Make up the inputs that are not given; the same seed makes the same ones
    #[arg(long, value_name = "SEED", help_heading = INPUTS)]
    pub random: Option<u64>,
}

/// One set of inputs that can be read.
#[derive(Clone, Debug)]
pub(crate) struct InputSet<'a> {
    args: &'a InputArgs,
    /// The npz file; absent if there is none.
    pub path: Option<PathBuf>,
}

impl InputArgs {
    /// True if nothing says what the inputs are.
    pub(crate) fn is_empty(&self) -> bool {
        self.inputs.is_none() && self.input.is_empty() && self.random.is_none()
    }

    /// The sets of inputs, one per file of a folder, by name.
    ///
    /// **Errors**: the folder cannot be read, or holds no npz file.
    pub(crate) fn sets(&self) -> Result<Vec<InputSet<'_>>, Failure> {
        let set = |path: Option<PathBuf>| InputSet { args: self, path };
        match &self.inputs {
            Some(path) if path.is_dir() => Ok(npz_files(path)?.into_iter().map(|p| set(Some(p))).collect()),
            path => Ok(vec![set(path.clone())]),
        }
    }

    /// The inputs, where only one set is of use.
    ///
    /// **Errors**: there are several, or as [`InputSet::load`].
    pub(crate) fn load_one(&self, graph: &Graph) -> Result<Tensors, Failure> {
        let sets = self.sets()?;
        match &sets[..] {
            [set] => set.load(graph),
            sets => {
                let folder = self.inputs.clone().unwrap_or_default();
                let message = format!("`{}` holds {} sets of inputs", folder.display(), sets.len());
                Err(Failure::new(message).with_help("name one of its files"))
            }
        }
    }
}

impl InputSet<'_> {
    /// Name of the file without its folder, for outputs to be called like it.
    pub(crate) fn file_name(&self) -> Option<&Path> {
        self.path.as_ref().and_then(|path| path.file_name()).map(Path::new)
    }

    /// Reads the inputs, makes up those that are to be made up, and checks them against the graph. Arrays in the file
    /// that are no inputs are left out, with a note.
    ///
    /// **Errors**: a file cannot be read, or an input is missing, unknown or not of its type.
    pub(crate) fn load(&self, graph: &Graph) -> Result<Tensors, Failure> {
        let (given, others) = self.read(graph)?;
        if let Some(path) = self.path.as_ref().filter(|_| !others.is_empty()) {
            note(&format!("`{}` also holds {}, not inputs of the model", path.display(), others.join(", ")));
        }
        Ok(given)
    }

    /// The inputs, and the names of arrays that are none.
    fn read(&self, graph: &Graph) -> Result<(Tensors, Vec<String>), Failure> {
        let mut given = match &self.path {
            Some(path) => npz::read_npz(path)?,
            None => Tensors::new(),
        };
        let names = input_names(graph);
        let mut others: Vec<String> = given.keys().filter(|name| !names.contains(*name)).cloned().collect();
        given.retain(|name, _| names.contains(name));
        for (name, path) in &self.args.input {
            if !names.contains(name) {
                return Err(unknown_input(name, &names));
            }
            given.insert(name.clone(), npz::read_npy(path)?);
        }
        if let Some(seed) = self.args.random {
            fill_random(graph, &mut given, seed)?;
        }
        if let Err(failure) = check(graph, &given) {
            return Err(match &self.path {
                Some(path) => failure.about(&format!("`{}`", path.display())),
                None => failure,
            });
        }
        others.sort();
        Ok((given, others))
    }
}

fn unknown_input(name: &str, names: &[String]) -> Failure {
    let failure =
        Failure::new(format!("the model has no input {}; its inputs are {}", quoted(name), names.join(", ")));
    failure.with_help("`rabot inspect MODEL` lists the inputs with their dtypes and shapes")
}

/// The npz files of a folder, by name.
fn npz_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot read folder `{}`: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "npz") {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Failure::new(format!("folder `{}` holds no npz file", folder.display())));
    }
    files.sort();
    Ok(files)
}

/// Input sets to calibrate on: of each file, the arrays that are inputs of the model.
///
/// **Errors**: a file cannot be read, or an input is missing or not of its type.
pub(crate) fn calibration(path: &Path, graph: &Graph) -> Result<Vec<Tensors>, Failure> {
    let args = InputArgs { inputs: Some(path.to_owned()), input: Vec::new(), random: None };
    let sets = args.sets()?;
    sets.iter().map(|set| Ok(set.read(graph)?.0)).collect()
}

/// Name and type of each input, in order.
pub(crate) fn input_types(graph: &Graph) -> Vec<(&str, &ValueType)> {
    let inputs = graph.inputs().iter().map(|&id| graph.node(id));
    inputs.filter_map(|node| Some((&*node.name, &node.outputs.first()?.fact.ty))).collect()
}

fn input_names(graph: &Graph) -> Vec<String> {
    input_types(graph).iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// Checks inputs against the model: names, dtypes, shapes, and that equal dims are equal.
///
/// **Errors**: all that is wrong, at once.
pub(crate) fn check(graph: &Graph, inputs: &Tensors) -> Result<(), Failure> {
    let mut problems = Vec::new();
    let mut sizes: HashMap<String, (usize, &str)> = HashMap::new();
    for (name, ty) in input_types(graph) {
        let Some(tensor) = inputs.get(name) else {
            problems.push(format!("input `{name}` ({ty}) is missing"));
            continue;
        };
        let given = format!("{}{:?}", tensor.dtype(), tensor.shape());
        if tensor.dtype() != ty.dtype {
            problems.push(format!("input `{name}` is {given}, but its dtype must be {}", ty.dtype));
        }
        if tensor.rank() != ty.rank() {
            problems.push(format!("input `{name}` is {given}, but must have {} dims: {ty}", ty.rank()));
            continue;
        }
        for (axis, (dim, &size)) in ty.shape.iter().zip(tensor.shape()).enumerate() {
            if let Some(expected) = dim.as_usize().filter(|&expected| expected != size) {
                problems.push(format!("input `{name}` is {given}, but dim {axis} must be {expected}: {ty}"));
            } else if let Some(symbol) = dim.as_symbol() {
                let &mut (first, other) = sizes.entry(symbol.to_owned()).or_insert((size, name));
                if first != size {
                    problems.push(format!(
                        "dim `{symbol}` is {size} in input `{name}`, but {first} in `{other}`"
                    ));
                }
            }
        }
    }
    let names = input_names(graph);
    problems.extend(
        inputs
            .keys()
            .filter(|name| !names.contains(*name))
            .map(|name| format!("the model has no input `{name}`; its inputs are {}", names.join(", "))),
    );
    if problems.is_empty() {
        return Ok(());
    }
    let help = "`rabot inspect MODEL` lists the inputs with their dtypes and shapes";
    Err(Failure::new(problems.join("\n")).with_help(help))
}

/// Makes up the inputs that are not given. Symbolic dims are as in the inputs that are given, else 1, with a note.
///
/// Floats are uniform in [-1, 1), integers in 0..=4 so that they can be indices, booleans either.
///
/// **Errors**: an input would be too large, or is of strings.
pub(crate) fn fill_random(graph: &Graph, inputs: &mut Tensors, seed: u64) -> Result<(), Failure> {
    let mut sizes: HashMap<String, usize> = HashMap::new();
    for (name, ty) in input_types(graph) {
        if let Some(tensor) = inputs.get(name) {
            let dims = ty.shape.iter().zip(tensor.shape());
            sizes.extend(dims.filter_map(|(dim, &size)| Some((dim.as_symbol()?.to_owned(), size))));
        }
    }
    let mut assumed = Vec::new();
    for (index, (name, ty)) in input_types(graph).into_iter().enumerate() {
        if inputs.contains_key(name) {
            continue;
        }
        let shape: Vec<usize> = ty.shape.iter().map(|dim| size_of(dim, &sizes, &mut assumed)).collect();
        // Each input has a seed of its own, so that giving one does not change the others.
        let mut random =
            SplitMix64::new(seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        inputs.insert(name.to_owned(), random_tensor(name, ty.dtype, &shape, &mut random)?);
    }
    if !assumed.is_empty() {
        let dims: Vec<String> = assumed.iter().map(|name| format!("{name}=1")).collect();
        note(&format!("made-up inputs have {}; --dim NAME=SIZE changes that", dims.join(", ")));
    }
    Ok(())
}

/// Size of a dim; symbols that are not known are 1 and listed.
fn size_of(dim: &Dim, sizes: &HashMap<String, usize>, assumed: &mut Vec<String>) -> usize {
    dim.for_each_symbol(&mut |symbol| {
        if !sizes.contains_key(&**symbol) && !assumed.iter().any(|name| **name == **symbol) {
            assumed.push(symbol.to_string());
        }
    });
    let known = |symbol: &str| Some(sizes.get(symbol).map_or(1, |&size| size as i64));
    dim.eval(&known).ok().and_then(|size| usize::try_from(size).ok()).unwrap_or(1)
}

fn random_tensor(
    name: &str,
    dtype: DType,
    shape: &[usize],
    random: &mut SplitMix64,
) -> Result<Tensor, Failure> {
    if dtype == DType::String {
        return Err(Failure::new(format!(
            "input `{name}` is of strings, which cannot be made up; give it with --input"
        )));
    }
    let too_large = || Failure::new(format!("input `{name}`, {dtype}{shape:?}, is too large to make up"));
    let elements =
        shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim)).ok_or_else(too_large)?;
    // The numbers are made as f64, whatever the dtype.
    elements.checked_mul(8).filter(|&bytes| bytes <= MAX_RANDOM_BYTES).ok_or_else(too_large)?;
    let mut values: Vec<f64> = Vec::new();
    values.try_reserve_exact(elements).map_err(|_| too_large())?;
    values.extend((0..elements).map(|_| match dtype {
        DType::Bool => random.below(2) as f64,
        dtype if dtype.is_int() => random.below(5) as f64,
        _ => random.uniform(-1.0, 1.0),
    }));
    Ok(Tensor::from_f64s(dtype, shape, &values))
}

fn parse_input(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(file)))
        }
        _ => Err("expected NAME=FILE.npy".to_owned()),
    }
}

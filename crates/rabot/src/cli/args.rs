//! Options that verbs share.

use super::Failure;
use super::failure::quoted;
use super::inputs;
use super::limits::LimitArgs;
use clap::{Args, ValueHint};
use rabot::onnx::Model;
use rabot::recipe::{Recipe, RecipeError};
use rabot::{Options, Profile, Session};
use std::path::{Path, PathBuf};

/// Heading of these options in the help.
const COMPILING: &str = "Compiling";

/// How to compile.
#[derive(Args, Clone, Debug)]
pub(crate) struct BuildArgs {
    /// Machine to compile for: host, x86-64-v2, x86-64-v3, x86-64-v4, x86-64-amx, aarch64, riscv64 [default: host]
    #[arg(long, value_name = "NAME", help_heading = COMPILING)]
    pub target: Option<String>,

    /// Threads to run on; outputs do not depend on how many
    #[arg(long, value_name = "N", default_value = "1", help_heading = COMPILING,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,

    /// Passes, as text: fold,fuse,prune{sparsity=0.5}. Empty for none; `rabot passes` lists them
    #[arg(long, value_name = "PASSES", help_heading = COMPILING)]
    pub pipeline: Option<String>,

    /// Optimization level: 0 nothing, 1 clean-up and kernels without changing a bit, 2 the default, 3 also reorders sums
    #[arg(short = 'O', value_name = "LEVEL", help_heading = COMPILING, conflicts_with = "pipeline",
          value_parser = clap::value_parser!(u8).range(0..=3))]
    pub level: Option<u8>,

    /// Leave out rules that only hold for finite values; `rabot passes --rules` tells which
    #[arg(long, help_heading = COMPILING)]
    pub strict: bool,

    /// Leave a rewrite out: its rule and node, as `rabot bisect` and `debug --explain` name them; may be given several times
    #[arg(long, value_name = "RULE@NODE", help_heading = COMPILING, value_parser = parse_rewrite)]
    pub without: Vec<(String, String)>,

    /// How to compile, as a TOML file; options given here go before it
    #[arg(long, value_name = "FILE.toml", value_hint = ValueHint::FilePath, help_heading = COMPILING,
          value_parser = parse_recipe)]
    pub recipe: Option<Recipe>,

    /// Keep results of slow passes in this folder, and begin at the first pass that changed
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = COMPILING)]
    pub cache: Option<PathBuf>,

    /// Precision of floating-point arithmetic: f32
    #[arg(long, value_name = "NAME", default_value = "f32", help_heading = COMPILING)]
    pub precision: String,
}

impl BuildArgs {
    /// The options of the library that these say.
    ///
    /// **Errors**: there is no such target or precision.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        self.check_precision()?;
        // Asked here so that a wrong name is told before a large model is read.
        let recipe = self.recipe();
        let target = self.target.clone().or(recipe.target).unwrap_or_else(|| "host".to_owned());
        Profile::by_name(&target)?;
        let level = self.level.and_then(rabot::passes::level);
        let of_recipe = |level: u8| {
            let unknown = || Failure::new(format!("recipe: there is no level {level}; levels are 0 to 3"));
            rabot::passes::level(level).ok_or_else(unknown)
        };
        let recipe_level = recipe.level.map(of_recipe).transpose()?;
        let pipeline = self.pipeline.clone().or(level).or(recipe.pipeline).or(recipe_level);
        let mut without = self.without.clone();
        for text in &recipe.without {
            let rewrite = parse_rewrite(text);
            without
                .push(rewrite.map_err(|error| Failure::new(format!("recipe: without `{text}`: {error}")))?);
        }
        if let Some(text) = &pipeline {
            rabot::passes::pipeline(text)?;
        }
        Ok(Options {
            target,
            pipeline,
            strict: self.strict || recipe.strict,
            without,
            cache: self.cache.clone(),
            reproducers: Some(PathBuf::from(".")),
            ..Options::default()
        })
    }

    /// Checks that code for the target runs on this machine, before anything long is begun.
    ///
    /// **Errors**: what is missing.
    pub(crate) fn check_runs_here(&self) -> Result<(), Failure> {
        Ok(Profile::by_name(&self.options()?.target)?.runs_here()?)
    }

    /// The recipe; an empty one if none is given.
    fn recipe(&self) -> Recipe {
        self.recipe.clone().unwrap_or_default()
    }

    /// Number of threads.
    pub(crate) fn threads(&self) -> usize {
        usize::from(self.threads)
    }

    fn check_precision(&self) -> Result<(), Failure> {
        let name = &self.precision;
        match name.as_str() {
            "f32" => Ok(()),
            "f32-fast" | "bf16" | "f16" | "int8" => {
                let failure =
                    Failure::new(format!("--precision {name} is not supported yet; this version has f32"));
                Err(failure.with_help("weights become int8 with a pass: `rabot passes` shows quantize"))
            }
            _ => Err(Failure::new(format!("unknown precision {}; this version has f32", quoted(name)))),
        }
    }
}

/// A model, and how to compile it.
#[derive(Args, Clone, Debug)]
pub(crate) struct ModelArgs {
    /// The model: an ONNX file
    #[arg(value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub model: PathBuf,

    #[command(flatten)]
    pub build: BuildArgs,

    /// Size of a symbolic dim, as batch=4; may be given several times
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = parse_dim, help_heading = COMPILING)]
    pub dims: Vec<(String, usize)>,

    /// Inputs to calibrate quantization on: an npz file, or a folder of them
    #[arg(long, value_name = "FILE.npz|DIR", value_hint = ValueHint::AnyPath, help_heading = COMPILING)]
    pub calibrate: Option<PathBuf>,

    #[command(flatten)]
    pub limits: LimitArgs,
}

impl ModelArgs {
    /// The options of the library that these say.
    ///
    /// From here on the process is held to the limits of memory and time.
    ///
    /// **Errors**: there is no such target or precision, a dim is given twice, or calibration inputs cannot be read.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let mut options = self.build.options()?;
        let recipe = self.build.recipe();
        options.limits = self.limits.start(recipe.budget)?;
        for (at, (name, _)) in self.dims.iter().enumerate() {
            if self.dims.iter().take(at).any(|(other, _)| other == name) {
                return Err(Failure::new(format!("--dim {name} is given twice")));
            }
        }
        options.dims = self.dims.clone();
        let given = |name: &String| self.dims.iter().any(|(other, _)| other == name);
        options.dims.extend(recipe.dims.into_iter().filter(|(name, _)| !given(name)));
        Ok(options)
    }

    /// Imports the model and, if the options name calibration inputs, reads those that are inputs of the model.
    ///
    /// **Errors**: the model cannot be imported, or has other dims or inputs.
    pub(crate) fn import(&self, options: &mut Options) -> Result<Model, Failure> {
        let model = rabot::import(&self.model, options).map_err(|error| self.about_model(error))?;
        let recipe = self.build.recipe();
        if let Some(path) = self.calibrate.as_ref().or(recipe.calibrate.as_ref()) {
            options.calibration = inputs::calibration(path, &model.graph)?;
        }
        Ok(model)
    }

    /// Starts a session of a program on as many threads as asked for.
    ///
    /// **Errors**: a thread cannot be started.
    pub(crate) fn session(&self, program: &rabot::Program) -> Result<Session, Failure> {
        Ok(Session::with_threads(program, self.build.threads())?)
    }

    /// An error that names the model file.
    pub(crate) fn about_model(&self, error: rabot::Error) -> Failure {
        Failure::from(error).about(&self.model.display().to_string())
    }
}

fn parse_recipe(path: &str) -> Result<Recipe, RecipeError> {
    Recipe::read(Path::new(path))
}

fn parse_rewrite(text: &str) -> Result<(String, String), String> {
    match text.split_once('@') {
        Some((rule, node)) if !rule.is_empty() && !node.is_empty() => Ok((rule.to_owned(), node.to_owned())),
        _ => Err("expected RULE@NODE, as int8@conv1".to_owned()),
    }
}

fn parse_dim(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.split_once('=').ok_or("expected NAME=SIZE, as batch=4")?;
    let name = name.trim();
    if name.is_empty() {
        return Err("the name of the dim is missing; expected NAME=SIZE, as batch=4".to_owned());
    }
    // Larger ones could not be told apart from errors in sums of sizes.
    let limit = 1usize << 40;
    let size = size.trim().parse::<usize>().ok().filter(|&size| size <= limit);
    let size = size.ok_or_else(|| format!("the size of a dim is a number from 0 to {limit}"))?;
    Ok((name.to_owned(), size))
}

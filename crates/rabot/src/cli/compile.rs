//! `rabot compile`: a model as text, as code to read, or as an object file.

use super::args::ModelArgs;
use super::progress::Progress;
use super::{Failure, Status, output};
use clap::{Args, ValueEnum, ValueHint};
use rabot::Profile;
use rabot::codegen::{CodegenError, ObjectFile, asm_text, clif_text, emit_object};
use rabot::ir::text::print;
use rabot::kernel::Plan;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

const AFTER: &str = "Forms:
  text   the optimized graph as .rbt text
  clif   Cranelift's intermediate code of every kernel
  asm    assembly of every kernel
  obj    an object file and a C header beside it; every dim must have a size

Examples:
  rabot compile model.onnx --emit text
  rabot compile model.onnx --emit asm --target x86-64-v3 -o model.s
  rabot compile model.onnx --dim batch=1 --target aarch64 --emit obj -o build/model.o";

/// Compile a model and write the result: text, clif, asm, or an object file with a C header
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct CompileArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Form of the result
    #[arg(long, value_enum)]
    emit: Emit,

    /// File to write; `-` or none for standard output. For obj, NAME.o and NAME.h are written
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,

    /// Print JSON that says what was written
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// The optimized graph
    Text,
    /// Cranelift's intermediate code
    Clif,
    /// Assembly
    Asm,
    /// Object file and C header
    Obj,
}

impl Emit {
    fn name(self) -> &'static str {
        match self {
            Emit::Text => "text",
            Emit::Clif => "clif",
            Emit::Asm => "asm",
            Emit::Obj => "obj",
        }
    }
}

/// Compiles a model.
///
/// **Errors**: the model cannot be compiled in this form, or the file cannot be written.
pub(crate) fn run(args: &CompileArgs) -> Result<Status, Failure> {
    let mut options = args.model.options()?;
    let file = args.output.as_deref().filter(|path| *path != Path::new("-"));
    if args.emit == Emit::Obj && file.is_none() {
        return Err(Failure::new("an object file is not written to standard output; name a file with -o"));
    }
    if args.json && file.is_none() {
        return Err(Failure::new("--json tells of the file that is written; name one with -o"));
    }
    let progress = Progress::new("importing");
    let mut graph = args.model.import(&mut options)?.graph;
    progress.now("optimizing");
    rabot::optimize(&mut graph, &options, &mut |_, _| {})?;
    let profile = Profile::by_name(&options.target)?;
    progress.now("compiling");
    let text = match args.emit {
        Emit::Text => print(&graph),
        Emit::Clif => kernels(&rabot::lower(&graph, &profile)?, &profile, ";", clif_text)?,
        Emit::Asm => kernels(&rabot::lower(&graph, &profile)?, &profile, "#", asm_text)?,
        Emit::Obj => {
            let plan = rabot::lower(&graph, &profile)?;
            drop(progress);
            return object(args, &plan, &profile, file.unwrap_or(Path::new("model.o")));
        }
    };
    drop(progress);
    match file {
        None => output::print(&text)?,
        Some(path) => {
            output::write_bytes(path, text.as_bytes())?;
            wrote(args, &[path])?;
        }
    }
    Ok(Status::Done)
}

/// Text of every kernel under its name.
fn kernels(
    plan: &Plan,
    profile: &Profile,
    comment: &str,
    text_of: fn(&Plan, usize, &Profile) -> Result<String, CodegenError>,
) -> Result<String, Failure> {
    let mut text = String::new();
    for (index, name) in plan.kernel_names.iter().enumerate() {
        let code = text_of(plan, index, profile).map_err(rabot::Error::from)?;
        text.push_str(&format!("{comment} kernel {index}: {name}\n{}\n\n", code.trim_end()));
    }
    Ok(text)
}

/// Writes the object file and its header: both or none.
fn object(args: &CompileArgs, plan: &Plan, profile: &Profile, path: &Path) -> Result<Status, Failure> {
    let stem =
        path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).filter(|stem| !stem.is_empty());
    let stem = stem.ok_or_else(|| Failure::new(format!("`{}` is not the name of a file", path.display())))?;
    let ObjectFile { object, header } = emit_object(plan, profile, &stem).map_err(rabot::Error::from)?;
    let (object_path, header_path) = (path.with_extension("o"), path.with_extension("h"));
    let was_there = header_path.exists();
    output::write_bytes(&header_path, header.as_bytes())?;
    if let Err(failure) = output::write_bytes(&object_path, &object) {
        if !was_there {
            // What is left is told of by the failure; that it cannot be removed adds nothing.
            let _ = fs::remove_file(&header_path);
        }
        return Err(failure);
    }
    wrote(args, &[&object_path, &header_path])?;
    Ok(Status::Done)
}

fn wrote(args: &CompileArgs, paths: &[&Path]) -> Result<(), Failure> {
    let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    if args.json {
        let files: Vec<_> =
            paths.iter().map(|p| json!({ "path": p.display().to_string(), "bytes": size(p) })).collect();
        return output::print_json(
            &json!({ "emit": args.emit.name(), "target": args.model.build.target, "files": files }),
        );
    }
    let lines = paths.iter().map(|path| format!("{} ({} bytes)\n", path.display(), size(path)));
    output::print(&lines.collect::<String>())
}

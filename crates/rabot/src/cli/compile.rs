//! `rabot compile`: a model as text, as code to read, as an object file, or as an ONNX file again.

use super::args::ModelArgs;
use super::limits::parse_size;
use super::progress::Progress;
use super::{Failure, Status, output};
use clap::{Args, ValueEnum, ValueHint};
use rabot::Profile;
use rabot::codegen::{CodegenError, ObjectFile, asm_text, clif_text, emit_object};
use rabot::ir::text::print;
use rabot::kernel::{Plan, Staged};
use rabot::onnx::{ExportOptions, Model};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

const AFTER: &str = "Forms:
  text   the optimized graph as .rbt text
  clif   Cranelift's intermediate code of every kernel
  asm    assembly of every kernel
  obj    an object file and a C header beside it; every dim must have a size
  onnx   the optimized graph as an ONNX file, `compact` at the end of the passes unless --pipeline says which;
         --pipeline '' leaves the graph as it was

Examples:
  rabot compile model.onnx --emit text
  rabot compile model.onnx --emit asm --target x86-64-v3 -o model.s
  rabot compile model.onnx --dim batch=1 --target aarch64 --emit obj -o build/model.o
  rabot compile model.onnx --emit onnx --opset 17 -o optimized.onnx";

/// Compile a model and write the result: text, clif, asm, an object file with a C header, or onnx
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

    /// For onnx: version of ONNX's operator set, 7 to 28; if absent that of the model, or the lowest above it that
    /// can say what the graph holds
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    opset: Option<i64>,

    /// For onnx: put weights of at least this many bytes into FILE.data beside the model. If absent, that is done
    /// only for a model that would be larger than 2 GB
    #[arg(long, value_name = "BYTES")]
    external_data: Option<u64>,

    /// For onnx: what the file should not be larger than, as 1000, 64K, 2M. If it would be, types of values between
    /// nodes are left out, then constants of one repeated element are computed by nodes instead of stored. If absent,
    /// the size of the model that was read and 1% more; with --pipeline '' any
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    fit: Option<u64>,

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
    /// ONNX file
    Onnx,
}

impl Emit {
    fn name(self) -> &'static str {
        match self {
            Emit::Text => "text",
            Emit::Clif => "clif",
            Emit::Asm => "asm",
            Emit::Obj => "obj",
            Emit::Onnx => "onnx",
        }
    }
}

/// Compiles a model.
///
/// **Errors**: the model cannot be compiled in this form, or the file cannot be written.
pub(crate) fn run(args: &CompileArgs) -> Result<Status, Failure> {
    let mut options = args.model.options()?;
    let file = args.output.as_deref().filter(|path| *path != Path::new("-"));
    if let (Emit::Obj | Emit::Onnx, None) = (args.emit, file) {
        let what = if args.emit == Emit::Obj { "an object file" } else { "an ONNX file" };
        return Err(Failure::new(format!("{what} is not written to standard output; name a file with -o")));
    }
    if args.emit != Emit::Onnx && (args.opset.is_some() || args.external_data.is_some() || args.fit.is_some())
    {
        return Err(Failure::new("--opset, --external-data and --fit are for --emit onnx"));
    }
    if args.json && file.is_none() {
        return Err(Failure::new("--json tells of the file that is written; name one with -o"));
    }
    let progress = Progress::new("importing");
    let mut model = args.model.import(&mut options)?;
    if args.emit == Emit::Onnx && options.pipeline.is_none() {
        options.pipeline = Some(rabot::passes::file_pipeline());
    }
    progress.now("optimizing");
    rabot::optimize(&mut model.graph, &options, &mut |_, _| {})?;
    let graph = &model.graph;
    let profile = Profile::by_name(&options.target)?;
    progress.now("compiling");
    let text = match args.emit {
        Emit::Text => print(graph),
        Emit::Clif => kernels(&rabot::lower(graph, &profile)?, &profile, ";", clif_text)?,
        Emit::Asm => kernels(&rabot::lower(graph, &profile)?, &profile, "#", asm_text)?,
        Emit::Obj => {
            let profile = profile.without_tiles();
            let staged = rabot::lower(graph, &profile)?;
            drop(progress);
            let plan = only_plan(&staged)?;
            return object(args, plan, &profile, file.unwrap_or(Path::new("model.o")));
        }
        Emit::Onnx => {
            drop(progress);
            return onnx(args, &model, file.unwrap_or(Path::new("model.onnx")));
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

/// The plan of a program that is one.
///
/// **Errors**: the program has stages on the host, which an object file cannot hold; the first is named.
fn only_plan(staged: &Staged) -> Result<&Plan, Failure> {
    staged.single().ok_or_else(|| {
        let first = staged.hosts().first().map_or_else(String::new, |host| {
            format!(": {} `{}` runs on the host, for {}", host.op.name(), host.node, host.reason)
        });
        Failure::new(format!("the model cannot be one object file{first}"))
    })
}

/// Text of every kernel under its name.
fn kernels(
    staged: &Staged,
    profile: &Profile,
    comment: &str,
    text_of: fn(&Plan, usize, &Profile) -> Result<String, CodegenError>,
) -> Result<String, Failure> {
    let mut text = String::new();
    let plans = staged.plans();
    let all =
        plans.iter().flat_map(|plan| plan.kernel_names.iter().enumerate().map(move |named| (plan, named)));
    for (number, (plan, (index, name))) in all.enumerate() {
        let code = text_of(plan, index, profile).map_err(rabot::Error::from)?;
        text.push_str(&format!("{comment} kernel {number}: {name}\n{}\n\n", code.trim_end()));
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

/// Writes an ONNX file, and its weights beside it if they are to be there.
fn onnx(args: &CompileArgs, model: &Model, path: &Path) -> Result<Status, Failure> {
    let unchanged = args.model.build.pipeline.as_ref().is_some_and(|text| text.trim().is_empty());
    let hundredth = model.file_bytes / 100;
    let fit = args.fit.or((!unchanged).then_some(model.file_bytes.saturating_add(hundredth)));
    let options = ExportOptions { opset: args.opset, external_data: args.external_data, fit };
    let (_, files) = rabot::export(model, path, &options)?;
    wrote(args, &files.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    Ok(Status::Done)
}

fn wrote(args: &CompileArgs, paths: &[&Path]) -> Result<(), Failure> {
    let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    if args.json {
        let target = args.model.build.options()?.target;
        let files: Vec<_> =
            paths.iter().map(|p| json!({ "path": p.display().to_string(), "bytes": size(p) })).collect();
        return output::print_json(&json!({ "emit": args.emit.name(), "target": target, "files": files }));
    }
    let lines = paths.iter().map(|path| format!("{} ({} bytes)\n", path.display(), size(path)));
    output::print(&lines.collect::<String>())
}

//! `rabot golden`: outputs that are kept, and which pass moved them.

use super::args::ModelArgs;
use super::compare::{error, need_inputs};
use super::debug::pipeline_of;
use super::inputs::{self, InputArgs};
use super::progress::Progress;
use super::{Failure, Status, output};
use clap::{Args, Subcommand, ValueHint};
use rabot::onnx::{Limits, read_tensor, write_tensor};
use rabot::rewrite::PassCx;
use rabot::{Options, Profile, Tensor, Tensors};
use rabot_debug::golden::{self, Checked, FORMAT, Pack, Run, StoredOutput, StoredTensor};
use std::fs;
use std::path::{Component, Path, PathBuf};

const AFTER: &str = "A pack is a folder: test_data_set_0/input_N.pb and output_N.pb, as ONNX lays out test data, and golden.toml with
the pipeline, the target, a tolerance for each output and its reason, and the error of the outputs after each pass.

Examples:
  rabot golden record model.onnx --inputs in.npz -o golden/model
  rabot golden check golden/model
  rabot golden record model.onnx --inputs in.npz -o golden/model --reason \"the training data grew\"";

const FILE: &str = "golden.toml";
const DATA: &str = "test_data_set_0";

/// Keep outputs of a model, and check later which pass moved them
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct GoldenArgs {
    #[command(subcommand)]
    command: GoldenCommand,
}

#[derive(Debug, Subcommand)]
enum GoldenCommand {
    Record(Box<RecordArgs>),
    Check(CheckArgs),
}

/// Run a model pass by pass and keep inputs, outputs and errors
#[derive(Args, Debug)]
struct RecordArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    inputs: InputArgs,

    /// The folder of the pack
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    output: PathBuf,

    /// Why a pack that is there is replaced; it is kept in the new one
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Run the recorded pipeline again and say which outputs moved, by how much, at which pass
#[derive(Args, Debug)]
struct CheckArgs {
    /// The folder of the pack
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pack: PathBuf,

    /// The model, if it is not where it was
    #[arg(value_name = "MODEL", value_hint = ValueHint::FilePath)]
    model: Option<PathBuf>,

    /// Another target than the recorded one
    #[arg(long, value_name = "NAME")]
    target: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Records or checks.
///
/// **Errors**: the model, its inputs or the pack.
pub(crate) fn run(args: &GoldenArgs) -> Result<Status, Failure> {
    match &args.command {
        GoldenCommand::Record(args) => record(args),
        GoldenCommand::Check(args) => check(args),
    }
}

fn record(args: &RecordArgs) -> Result<Status, Failure> {
    let reasons = reasons(args)?;
    let mut options = args.model.options()?;
    if let Some((rule, node)) = options.without.first() {
        let failure =
            Failure::new(format!("--without {rule}@{node} is not for this verb: a pack has every rewrite"));
        return Err(
            failure.with_help("run, bench, compare, compile, explain, debug, bisect and reduce take it")
        );
    }
    let pipeline = pipeline_of(&options)?;
    let progress = Progress::new("importing");
    let model = args.model.import(&mut options)?;
    need_inputs(&args.inputs, &model.graph)?;
    let inputs = args.inputs.load_one(&model.graph)?;
    let profile = Profile::by_name(&options.target)?;
    progress.now("running pass by pass");
    let calibration = (!options.calibration.is_empty()).then_some(&options.calibration[..]);
    let cx = PassCx { calibration, strict: options.strict, ..PassCx::default() };
    let ledger = golden::run(&model.graph, &pipeline, &cx, &inputs, None, &profile)?;
    progress.now("writing");
    let parent = parent_of(&args.output)?;
    let folder = absolute(&parent)?.join(args.output.file_name().unwrap_or_default());
    let calibration = args.model.calibrate.as_ref().map(|path| relative(&folder, path)).transpose()?;
    let mut pack = Pack {
        format: FORMAT,
        model: relative(&folder, &args.model.model)?,
        model_blake3: hash_file(&args.model.model)?,
        pipeline: pipeline.to_string(),
        target: options.target.clone(),
        strict: options.strict,
        calibration,
        reasons,
        dims: options.dims.iter().cloned().collect(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        ledger: ledger.entries.clone(),
    };
    write(&mut pack, &inputs, &ledger, &args.output, &parent)?;
    drop(progress);
    if args.json {
        output::print_json(
            &serde_json::json!({ "pack": args.output.display().to_string(), "golden": pack }),
        )?;
        return Ok(Status::Done);
    }
    let mut table = output::table(&["output", ">tolerance", "derived from"]);
    for stored in &pack.outputs {
        table.add_row([stored.name.clone(), error(stored.tolerance), stored.tolerance_reason.clone()]);
    }
    let place = args.output.display();
    output::print(&format!("{table}\n{} stages recorded in {place}\n", pack.ledger.len()))?;
    Ok(Status::Done)
}

/// The reasons of the pack that is there, and the new one.
///
/// **Errors**: there is a pack and no reason is given, or something that is no pack.
fn reasons(args: &RecordArgs) -> Result<Vec<String>, Failure> {
    let place = args.output.display();
    if fs::symlink_metadata(&args.output).is_err() {
        return Ok(args.reason.iter().cloned().collect());
    }
    let file = args.output.join(FILE);
    if !file.is_file() {
        let empty = fs::read_dir(&args.output).is_ok_and(|mut entries| entries.next().is_none());
        let failure = Failure::new(format!("`{place}` is there and is no golden pack; nothing is written"));
        return if empty { Ok(Vec::new()) } else { Err(failure.with_help("name a new folder with -o")) };
    }
    let Some(reason) = args.reason.as_ref().filter(|reason| !reason.trim().is_empty()) else {
        let failure = Failure::new(format!("`{place}` is a golden pack; recording it anew needs a reason"));
        return Err(failure.with_help("say why with --reason \"TEXT\"; the reason is kept in the pack"));
    };
    // A pack of another version may be replaced; its reasons cannot be read.
    let mut reasons = read_pack(&args.output).map_or(Vec::new(), |pack| pack.reasons);
    reasons.push(reason.clone());
    Ok(reasons)
}

/// Writes the pack to a folder beside its place, and puts that there when it is complete.
fn write(
    pack: &mut Pack,
    inputs: &Tensors,
    ledger: &Run,
    place: &Path,
    parent: &Path,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot write `{}`: {error}", place.display()));
    let building =
        tempfile::Builder::new().prefix(".rabot-").suffix(".tmp").tempdir_in(parent).map_err(failed)?;
    let new = building.path().join("new");
    fs::create_dir_all(new.join(DATA)).map_err(failed)?;
    let store = |kind: &str, at: usize, name: &str, tensor: &Tensor| -> Result<StoredTensor, Failure> {
        let file = format!("{DATA}/{kind}_{at}.pb");
        fs::write(new.join(&file), write_tensor(name, tensor)).map_err(failed)?;
        Ok(StoredTensor { name: name.to_owned(), file, blake3: golden::hash(tensor) })
    };
    for (at, (name, tensor)) in inputs.iter().enumerate() {
        pack.inputs.push(store("input", at, name, tensor)?);
    }
    for (at, ((name, tensor), tolerance)) in ledger.reference.iter().zip(&ledger.tolerances).enumerate() {
        let StoredTensor { name, file, blake3 } = store("output", at, name, tensor)?;
        let (tolerance, tolerance_reason) = tolerance.clone();
        pack.outputs.push(StoredOutput { name, file, blake3, tolerance, tolerance_reason });
    }
    fs::write(new.join(FILE), pack.print()?).map_err(failed)?;
    let old = building.path().join("old");
    let replaced = fs::symlink_metadata(place).is_ok();
    if replaced {
        fs::rename(place, &old).map_err(failed)?;
    }
    if let Err(error) = fs::rename(&new, place) {
        if replaced {
            fs::rename(&old, place).map_err(failed)?;
        }
        return Err(failed(error));
    }
    Ok(())
}

fn check(args: &CheckArgs) -> Result<Status, Failure> {
    let pack = read_pack(&args.pack)?;
    let inputs = pack.inputs.iter().map(|s| load(&args.pack, &s.file, &s.name, &s.blake3));
    let inputs = inputs.collect::<Result<Tensors, Failure>>()?;
    let outputs = pack.outputs.iter().map(|s| load(&args.pack, &s.file, &s.name, &s.blake3));
    let outputs = outputs.collect::<Result<Tensors, Failure>>()?;
    let path = args.model.clone().unwrap_or_else(|| args.pack.join(&pack.model));
    let mut options = Options {
        target: args.target.clone().unwrap_or_else(|| pack.target.clone()),
        pipeline: Some(pack.pipeline.clone()),
        dims: pack.dims.clone().into_iter().collect(),
        strict: pack.strict,
        ..Options::default()
    };
    let profile = Profile::by_name(&options.target)?;
    let pipeline = pipeline_of(&options)?;
    let progress = Progress::new("importing");
    let about = |error: rabot::Error| Failure::from(error).about(&path.display().to_string());
    let model = rabot::import(&path, &options).map_err(about)?;
    if let Some(calibration) = &pack.calibration {
        options.calibration = inputs::calibration(&args.pack.join(calibration), &model.graph)?;
    }
    let same_model = hash_file(&path)? == pack.model_blake3;
    inputs::check(&model.graph, &inputs)?;
    progress.now("running pass by pass");
    let calibration = (!options.calibration.is_empty()).then_some(&options.calibration[..]);
    let cx = PassCx { calibration, strict: options.strict, ..PassCx::default() };
    let ledger = golden::run(&model.graph, &pipeline, &cx, &inputs, Some(&outputs), &profile)?;
    let found = golden::check(&pack, &ledger)?;
    drop(progress);
    if args.json {
        output::print_json(
            &serde_json::json!({ "same_model": same_model, "check": found, "ledger": ledger.entries }),
        )?;
    } else {
        output::print(&text(&pack, &found, same_model))?;
    }
    Ok(if found.passed { Status::Done } else { Status::CheckFailed })
}

fn text(pack: &Pack, found: &Checked, same_model: bool) -> String {
    let mut text = String::new();
    if !same_model {
        text.push_str("the model file is not the recorded one\n");
    }
    if !found.moves.is_empty() {
        let mut table = output::table(&[
            "stage",
            "output",
            ">recorded error",
            ">error now",
            ">allowed",
            ">relative",
            "verdict",
        ]);
        for m in &found.moves {
            let verdict = if m.beyond { "MOVED" } else { "moved, within tolerance" };
            let first = if m.first { " first here" } else { "" };
            table.add_row([
                m.stage.clone(),
                m.output.clone(),
                error(m.recorded_max_abs),
                error(m.max_abs),
                error(m.limit),
                error(m.relative),
                format!("{verdict}{first}"),
            ]);
        }
        text.push_str(&format!("{table}\n"));
    }
    for m in found.moves.iter().filter(|m| m.first) {
        let (stage, by) = (&m.stage, error((m.max_abs - m.recorded_max_abs).abs()));
        let how = if m.beyond { "beyond its tolerance" } else { "within its tolerance" };
        text.push_str(&format!("output `{}` moved at {stage}, by {by}, {how}\n", m.output));
    }
    let verdict = match (found.moves.is_empty(), found.passed) {
        (true, _) => "nothing moved",
        (false, true) => "nothing moved beyond its tolerance",
        (false, false) => "FAILED",
    };
    text.push_str(&format!("{} outputs, {} stages: {verdict}\n", pack.outputs.len(), found.stages));
    text
}

/// Reads `golden.toml` of a pack.
///
/// **Errors**: it is not there, or not valid.
fn read_pack(folder: &Path) -> Result<Pack, Failure> {
    let file = folder.join(FILE);
    let text = fs::read_to_string(&file).map_err(|error| {
        let failure = Failure::new(format!("cannot read `{}`: {error}", file.display()));
        failure.with_help("DIR is a folder that `rabot golden record` wrote")
    })?;
    Pack::parse(&text).map_err(|error| Failure::from(error).about(&folder.display().to_string()))
}

/// Reads a tensor of a pack and checks that it is the recorded one.
///
/// **Errors**: the file is outside the pack, cannot be read, or holds something else.
fn load(pack: &Path, file: &str, name: &str, hash: &str) -> Result<(String, Tensor), Failure> {
    let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Err(Failure::new(format!("golden.toml: `{file}` is not inside the pack")));
    }
    let path = pack.join(file);
    let label = path.display().to_string();
    let bytes = fs::read(&path).map_err(|error| Failure::new(format!("cannot read `{label}`: {error}")))?;
    let (_, tensor) = read_tensor(bytes.into(), &label, &Limits::default())
        .map_err(|error| Failure::from(error).about(&label))?;
    if golden::hash(&tensor) != hash {
        let failure = Failure::new(format!("`{label}` is not what was recorded: its hash differs"));
        return Err(failure.with_help("restore the file, or record the pack anew with --reason"));
    }
    Ok((name.to_owned(), tensor))
}

fn hash_file(path: &Path) -> Result<String, Failure> {
    let bytes =
        fs::read(path).map_err(|error| Failure::new(format!("cannot read `{}`: {error}", path.display())))?;
    Ok(golden::hash_bytes(&bytes))
}

fn parent_of(path: &Path) -> Result<PathBuf, Failure> {
    if path.file_name().is_none() {
        return Err(Failure::new(format!(
            "`{}` cannot be the folder of a pack; name one with -o",
            path.display()
        )));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        let (path, parent) = (path.display(), parent.display());
        return Err(Failure::new(format!("cannot write `{path}`: there is no folder `{parent}`")));
    }
    Ok(parent.to_owned())
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    fs::canonicalize(path).map_err(|error| Failure::new(format!("cannot find `{}`: {error}", path.display())))
}

/// The way from a folder, given absolutely, to a path that is there.
fn relative(from: &Path, to: &Path) -> Result<String, Failure> {
    let to = absolute(to)?;
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to.components().skip(shared)).collect();
    Ok(way.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_model_goes_up_and_down() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("models")).unwrap();
        fs::write(folder.path().join("models/m.onnx"), b"x").unwrap();
        let root = absolute(folder.path()).unwrap();
        let way = relative(&root.join("golden/pack"), &folder.path().join("models/m.onnx")).unwrap();
        assert_eq!(way, "../../models/m.onnx");
    }

    #[test]
    fn files_outside_the_pack_are_refused() {
        for file in ["../x.pb", "/etc/passwd", "a/../../b"] {
            assert!(load(Path::new("pack"), file, "x", "").is_err());
        }
    }
}

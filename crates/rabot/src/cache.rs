//! Results of passes on disk, so that a run that is repeated, or was broken off, begins at the first pass that changed.
//!
//! A result is kept under a key: the hash of the graph that went in (weights included), of calibration inputs, of
//! every pass up to it with its options, and of rabot's version and sources. So what is found is what would be computed,
//! and an entry never has to be thrown away for being old.
//!
//! Kept are the result of the whole pipeline, and that of each pass that took longer than [`KEEP_AFTER`]: writing a
//! graph costs about as much as a fast pass.

use crate::{Error, snapshot};
use rabot_ir::Graph;
use rabot_ir::text::print;
use rabot_rewrite::{PassCx, Pipeline, Step};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Results of passes that took less are computed again.
pub const KEEP_AFTER: Duration = Duration::from_millis(50);

/// What makes two builds of rabot different in what their passes give: the version, and a hash that the build script
/// takes of the sources.
const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("RABOT_FINGERPRINT"));

/// Runs a pipeline, from the last result that `folder` has on. Gives the steps that were run.
///
/// **Errors**: those of the pipeline, and of files that cannot be written. A file that cannot be read is as if it were
/// not there.
pub(crate) fn run(
    pipeline: &Pipeline,
    graph: &mut Graph,
    cx: &PassCx<'_>,
    folder: &Path,
    observe: &mut dyn FnMut(&Step, &Graph),
) -> Result<Vec<Step>, Error> {
    let files = files(BUILD, pipeline, graph, cx, folder);
    let mut first = 0;
    for (index, file) in files.iter().enumerate().rev() {
        if let Some(found) = file.exists().then(|| snapshot::read(file).ok()).flatten() {
            *graph = found;
            first = index + 1;
            break;
        }
    }
    let count = files.len();
    let mut failed = None;
    let mut at = first;
    let steps = pipeline.run_from(first, graph, cx, &mut |step, graph| {
        at += 1;
        if failed.is_none() && (at == count || step.report.elapsed >= KEEP_AFTER) {
            let kept = files.get(at - 1).map(|file| snapshot::write(file, graph, &step.pass));
            failed = kept.and_then(Result::err);
        }
        observe(step, graph);
    });
    let steps = steps?;
    failed.map_or(Ok(steps), Err)
}

/// Where the result of each pass is kept.
fn files(build: &str, pipeline: &Pipeline, graph: &Graph, cx: &PassCx<'_>, folder: &Path) -> Vec<PathBuf> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(build.as_bytes());
    // Text names long constants by their hashes.
    hasher.update(print(graph).as_bytes());
    hasher.update(&[u8::from(cx.strict)]);
    for (name, tensor) in cx.calibration.unwrap_or_default().iter().flatten() {
        hasher.update(name.as_bytes());
        hasher.update(rabot_debug::digest(tensor).as_bytes());
    }
    let mut files = Vec::new();
    for pass in pipeline.passes() {
        hasher.update(format!(",{}{}", pass.name(), pass.options()).as_bytes());
        files.push(folder.join(format!("{}.rbt", hasher.finalize().to_hex())));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::text::parse;
    use rabot_passes::pipeline;

    const TEXT: &str = "model \"m\" input %0 \"x\" : f32[4]
        %1 = Constant [1.0] : f32[1]
        %2 = Mul(%0, %1)
        %3 = Neg(%2)
        %4 = Neg(%3)
        %5 = Relu(%4)
        output \"y\" = %5";

    fn run(text: &str, folder: &Path) -> (String, usize) {
        let mut graph = parse(TEXT).unwrap();
        let steps =
            super::run(&pipeline(text).unwrap(), &mut graph, &PassCx::default(), folder, &mut |_, _| {});
        (print(&graph), steps.map_or(usize::MAX, |steps| steps.len()))
    }

    #[test]
    fn only_what_changed_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let (first, steps) = run("cse,algebra", folder.path());
        assert_eq!(steps, 2);
        assert_eq!(run("cse,algebra", folder.path()), (first.clone(), 0), "all of it was there");
        assert_eq!(run("cse,algebra,dce", folder.path()), (first.clone(), 1), "one pass more");
        assert_eq!(run("algebra", folder.path()), (first, 1), "another pipeline");
    }

    #[test]
    fn another_build_has_other_entries() {
        let (graph, pipeline) = (parse(TEXT).unwrap(), pipeline("cse,algebra").unwrap());
        let files = |build| super::files(build, &pipeline, &graph, &PassCx::default(), Path::new(""));
        assert!(files(BUILD).iter().zip(files("0.1.0 other")).all(|(one, other)| *one != other));
        assert_eq!(files(BUILD), files(BUILD));
        assert!(BUILD.len() > env!("CARGO_PKG_VERSION").len() + 16, "{BUILD}");
    }

    #[test]
    fn a_spoiled_entry_is_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _) = run("algebra", folder.path());
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            std::fs::write(entry.unwrap().path(), "no graph").unwrap();
        }
        assert_eq!(run("algebra", folder.path()), (first, 1));
    }
}

//! Files that try to hurt whoever opens them: each ends in an answer or in one clear error, in `inspect`, `compile` and
//! `run`, in bounded memory and time.
//!
//! Here each call has 256 MiB of memory, 20 seconds of processor time and 2 GiB of addresses, so that only a file that
//! blows up fails. `tests/hostile/measure.py` measures what each takes.

#[path = "hostile/build.rs"]
mod build;
#[path = "hostile/cases.rs"]
mod cases;
#[path = "hostile/external.rs"]
mod external;

use cases::{CASES, Case, Expect};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// How many processor seconds a call may take before it is killed. Machines of tests are slow and busy.
const SECONDS: u32 = 20;
/// Addresses that a call may use, in KiB: what it maps is more than what it takes.
const ADDRESSES: u32 = 4 << 20;

/// Calls rabot, held to limits by the system.
pub fn rabot(args: &[&str]) -> Output {
    let limited = format!("ulimit -t {SECONDS} -v {ADDRESSES}; exec \"$0\" \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &limited, env!("CARGO_BIN_EXE_rabot")]).args(args);
    command.env("RUST_BACKTRACE", "0").output().unwrap()
}

/// What is wrong with the end of a call, if anything: it must end with exit code 0, or 2 and one error.
fn problem(output: &Output, refused_with: Option<&str>) -> Option<String> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let short = |text: &str| text.chars().take(600).collect::<String>();
    match output.status.code() {
        _ if err.contains("panicked") => return Some(format!("panicked: {}", short(&err))),
        // The guard is for what is not foreseen.
        Some(2) if err.contains("this takes more") => return Some(format!("was stopped: {}", short(&err))),
        Some(0 | 2) => {}
        Some(code) => return Some(format!("exit code {code}: {}", short(&err))),
        None => return Some(format!("was killed: {:?} {}", output.status, short(&err))),
    }
    if output.status.code() == Some(2) && err.matches("error: ").count() != 1 {
        return Some(format!("not one error: {}", short(&err)));
    }
    if err.len() > 20_000 {
        return Some(format!("{} bytes of error: {}", err.len(), short(&err)));
    }
    match refused_with {
        Some(text) if !err.contains(text) => Some(format!("no `{text}` in: {} {}", short(&err), short(&out))),
        _ => None,
    }
}

/// The calls that are made with each file.
pub fn calls<'a>(model: &'a str, target: &'a str) -> [(&'static str, Vec<&'a str>); 4] {
    const MEMORY: [&str; 2] = ["--max-memory", "256M"];
    let call = |args: &[&'a str]| args.iter().chain(&MEMORY).copied().collect();
    [
        ("inspect", call(&["inspect", model])),
        ("compile", call(&["compile", model, "--emit", "clif", "-o", target])),
        ("run", call(&["run", model, "--random", "1"])),
        ("reference", call(&["run", model, "--random", "1", "--reference"])),
    ]
}

fn check(case: &Case, folder: &Path) -> Vec<String> {
    let path = folder.join(format!("{}.onnx", case.name));
    fs::write(&path, (case.make)()).unwrap();
    let target = folder.join(format!("{}.clif", case.name));
    let (model, target) = (path.to_str().unwrap(), target.to_str().unwrap());
    let mut problems = Vec::new();
    for (verb, args) in calls(model, target) {
        let output = rabot(&args);
        let running = matches!(verb, "run" | "reference");
        let text = match case.expect {
            Expect::Refused(text) => Some(text),
            Expect::RunRefused(text) if running => Some(text),
            _ => None,
        };
        let failed = matches!(case.expect, Expect::Works) && output.status.code() != Some(0);
        let found = problem(&output, text);
        let found = found.or_else(|| failed.then(|| String::from_utf8_lossy(&output.stderr).into_owned()));
        problems.extend(found.map(|found| format!("{} {verb}: {found}", case.name)));
    }
    fs::remove_file(path).unwrap();
    problems
}

/// Every `step`-th case, so that tests share them.
fn check_all(first: usize, step: usize) {
    let folder = tempfile::tempdir().unwrap();
    let some = CASES.iter().skip(first).step_by(step);
    let problems: Vec<String> = some.flat_map(|case| check(case, folder.path())).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn hostile_files_end_in_an_answer_or_one_error_1() {
    check_all(0, 2);
}

#[test]
fn hostile_files_end_in_an_answer_or_one_error_2() {
    check_all(1, 2);
}

/// Writes the files for `tests/hostile/measure.py`, which names the folder.
#[test]
fn files_are_written_on_request() {
    let Some(folder) = std::env::var_os("RABOT_HOSTILE_DIR") else { return };
    let folder = Path::new(&folder);
    fs::create_dir_all(folder).unwrap();
    for case in CASES {
        fs::write(folder.join(format!("{}.onnx", case.name)), (case.make)()).unwrap();
    }
}

//! The command line: one file per verb, and what they share.
//!
//! A verb is a struct of clap arguments and a function `run` from it to a [`Status`] or a [`Failure`]. It prints its
//! result with [`output`], as text or as JSON, and nothing else goes to standard output.

mod args;
mod failure;
mod inputs;
mod limits;
mod output;
mod progress;
mod stages;
mod summary;
mod taps;

mod bench;
mod bisect;
mod compare;
mod compile;
mod debug;
mod demo;
mod explain;
mod explain_op;
mod golden;
mod inspect;
mod ledger;
mod onnx_test;
mod ops;
mod passes;
mod reduce;
mod report;
mod run;
mod targets;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::process::ExitCode;

/// How a verb ended, if it could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// As asked: exit code 0.
    Done,
    /// Something that was to be checked is not as it should be: exit code 1.
    CheckFailed,
}

const ABOUT: &str = "Compiles trained ONNX models into native code, and shows every step on the way.";

const AFTER: &str = "Exit codes: 0 done, 1 a check failed, 2 wrong usage or input.

Examples:
  rabot demo                                         a trained network, compiled and run
  rabot inspect model.onnx                           what is in a model
  rabot run model.onnx --inputs in.npz --outputs out.npz
  rabot bench model.onnx --dim batch=8 --threads 2";

#[derive(Debug, Parser)]
#[command(name = "rabot", version, about = ABOUT, after_help = AFTER, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Inspect(inspect::InspectArgs),
    Reduce(reduce::ReduceArgs),
    Report(report::ReportArgs),
    Run(run::RunArgs),
    Bench(bench::BenchArgs),
    Bisect(bisect::BisectArgs),
    Compare(compare::CompareArgs),
    Debug(debug::DebugArgs),
    Golden(golden::GoldenArgs),
    Ledger(ledger::LedgerArgs),
    Compile(compile::CompileArgs),
    Explain(explain::ExplainArgs),
    OnnxTest(onnx_test::OnnxTestArgs),
    Ops(ops::OpsArgs),
    Passes(passes::PassesArgs),
    Targets(targets::TargetsArgs),
}

/// Reads the command line, does what it says, and gives the exit code.
pub(crate) fn main() -> ExitCode {
    // Wrong usage ends here, with exit code 2; so does --help, with 0.
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(Status::Done) => ExitCode::SUCCESS,
        Ok(Status::CheckFailed) => ExitCode::from(1),
        Err(failure) => {
            failure.show();
            ExitCode::from(2)
        }
    }
}

fn dispatch(command: Command) -> Result<Status, Failure> {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Reduce(args) => reduce::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Bisect(args) => bisect::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Debug(args) => debug::run(&args),
        Command::Golden(args) => golden::run(&args),
        Command::Ledger(args) => ledger::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::OnnxTest(args) => onnx_test::run(&args),
        Command::Ops(args) => ops::run(&args),
        Command::Passes(args) => passes::run(&args),
        Command::Targets(args) => targets::run(&args),
    }
}

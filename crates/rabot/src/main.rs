//! The command line of rabot; `rabot help` lists the verbs.

#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

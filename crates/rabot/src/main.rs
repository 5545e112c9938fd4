//! The command line of rabot; `rabot help` lists the verbs.

#![forbid(unsafe_code)]

mod cli;

/// Counts, so that `--max-memory` holds.
#[global_allocator]
static ALLOCATOR: rabot_guard::Allocator = rabot_guard::Allocator;

fn main() -> std::process::ExitCode {
    cli::main()
}

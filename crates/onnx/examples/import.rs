//! Imports models and prints what came of them: nodes, and the type of each output.

use rabot_onnx::{Limits, import_file};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let mut failed = false;
    for path in std::env::args().skip(1) {
        let start = Instant::now();
        match import_file(Path::new(&path), &Limits::default()) {
            Ok(model) => {
                let graph = &model.graph;
                println!("{path}: {} nodes, {:.1?}", graph.node_count(), start.elapsed());
                for output in graph.outputs() {
                    println!("  {}: {}", output.name, graph.fact(output.value).ty);
                }
            }
            Err(error) => {
                println!("{path}: {error}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

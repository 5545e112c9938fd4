//! The fault drill: faults are planted in passes and kernels, and bisecting has to name each one: the rewrite, the first
//! tensor that it moves, the quantization parameter where it is one, or the kernel.
//!
//! Every fault is switched on by a wrapper here; the product has none of it. A fault that does not move an output by
//! more than rounding is no fault, and another place is taken for it. `tests/examples/zoo_drill` does the same on real
//! models.

mod faults;
mod half;
mod kernels;
mod models;
mod plant;
mod rewrites;

use faults::{FAULTS, Fault, HALF, PRUNED, QUANTIZED};
use kernels::{KERNELS, kernel_faults};
use models::models;
use plant::{Model, Place, Row, faulty, judge, missed, near_right, places, row, search, show};
use rabot_debug::bisect::Check;
use rabot_passes::{DEFAULT_PIPELINE, default_pipeline_with};
use rewrites::{Kind, rewrites};

/// Places of one fault in one model.
const PLACES: usize = 2;

/// Two independent faults at once.
fn pairs(model: &Model, rows: &mut Vec<Row>) {
    let places = places(model, DEFAULT_PIPELINE);
    let fault: Fault = FAULTS.iter().find(|(name, _)| *name == "missing condition").unwrap().1;
    let works: Vec<&Place> = places
        .iter()
        .filter(|place| {
            let (pipeline, moved) = faulty(DEFAULT_PIPELINE, &[(place, fault)]);
            let found = search(model, &pipeline, &Check::Tolerance, None);
            found.is_ok_and(|found| found.fails && missed(&found, &[place], &moved).is_none())
        })
        .take(6)
        .collect();
    for two in works.chunks(2).filter(|two| two.len() == 2 && two[0].2 != two[1].2) {
        let planted: Vec<(&Place, Fault)> = two.iter().map(|place| (*place, fault)).collect();
        let (pipeline, moved) = faulty(DEFAULT_PIPELINE, &planted);
        let found = search(model, &pipeline, &Check::Tolerance, None).unwrap();
        let missed = missed(&found, two, &moved);
        let place = format!("{} and {}", show(two[0]), show(two[1]));
        rows.push(row("two at once", model, place, missed, &found));
    }
}

#[test]
fn every_planted_fault_is_named() {
    let mut rows = Vec::new();
    let half = DEFAULT_PIPELINE.replace(",group", ",half,group");
    for model in &models() {
        rewrites(model, DEFAULT_PIPELINE, &FAULTS, Kind::Any, &Check::Tolerance, PLACES, &mut rows);
        pairs(model, &mut rows);
        kernel_faults(model, &KERNELS, PLACES, &mut rows);
        if model.name == "convolutions" {
            let int8 = default_pipeline_with("quantize");
            let check = near_right(model, &int8, 3.0);
            rewrites(model, &int8, &QUANTIZED, Kind::Parameter, &check, PLACES, &mut rows);
        }
        if model.name != "elementwise" {
            let check = near_right(model, &half, 6.0);
            rewrites(model, &half, &HALF, Kind::Rule("half"), &check, PLACES, &mut rows);
            let pruned = default_pipeline_with("prune{sparsity=0.3}");
            let check = near_right(model, &pruned, 3.0);
            rewrites(model, &pruned, &PRUNED, Kind::Pass("prune"), &check, PLACES, &mut rows);
        }
    }
    judge(&rows, 40);
}

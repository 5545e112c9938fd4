//! The report: one page that holds the graph after every pass, with the numbers that flowed through it.
//!
//! - [`Recorder`] sees the graph after each pass and keeps what changed in it.
//! - [`page`](page()) puts the data of runs into the page; [`data_of`] takes them out again.
//!
//! The page itself is made from the folder `report` of the repository.

mod data;
mod evaluate;
mod kernels;
mod page;
mod recorder;
mod statistics;
#[cfg(test)]
mod tests;

pub use data::{
    ChangeData, CodeData, ErrorData, KernelData, LedgerRow, NodeData, Number, OutputData, PortData,
    ReportData, Run, Stage, Statistics, VERSION, ValueData,
};
pub use page::{MAX_RUNS, data_of, page};
pub use recorder::{About, Recorder};

//! One turn of a peer that is a Rust library, as a command: `PEER MODEL FOLDER SECONDS`.
//!
//! Tensors are in `FOLDER`: `inputs.txt` has a line `TYPE DIMS NAME` for each, with numpy's name of the type and dims
//! between commas (`-` for a scalar), and the bytes of the N-th, little-endian, are in `inputs-N`. Outputs are written
//! in the same way. What is printed is what `rabot bench --json` calls by the same names.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Runs that are made however long they take.
const FEWEST_RUNS: usize = 5;

/// The error of a library, or of the files.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A tensor outside of any library.
pub struct Tensor {
    /// As the model calls it.
    pub name: String,
    /// As numpy calls it.
    pub dtype: String,
    /// Its shape.
    pub dims: Vec<usize>,
    /// Elements, little-endian.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// The elements, from `N` bytes each.
    pub fn elements<T, const N: usize>(&self, from: fn([u8; N]) -> T) -> Vec<T> {
        self.bytes.as_chunks::<N>().0.iter().map(|chunk| from(*chunk)).collect()
    }
}

/// A library with a model in it.
pub trait Peer: Sized {
    /// Loads a model for inputs of these shapes.
    fn load(model: &Path, inputs: &[Tensor]) -> Result<Self>;

    /// Sets the inputs.
    fn bind(&mut self, inputs: &[Tensor]) -> Result<()>;

    /// Runs once.
    fn run(&mut self) -> Result<()>;

    /// The outputs of the last run.
    fn outputs(&self) -> Result<Vec<Tensor>>;
}

/// Does what the command line says, and ends the process if that fails.
pub fn main<P: Peer>() {
    if let Err(error) = turn::<P>() {
        let mut cause: Option<&dyn Error> = Some(error.as_ref());
        while let Some(error) = cause {
            eprintln!("{error}");
            cause = error.source();
        }
        std::process::exit(2);
    }
}

fn turn<P: Peer>() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, folder, seconds] = arguments.as_slice() else {
        return Err("want MODEL FOLDER SECONDS".into());
    };
    let (folder, limit) = (PathBuf::from(folder), Duration::try_from_secs_f64(seconds.parse()?)?);
    let inputs = read(&folder)?;
    let start = Instant::now();
    let mut peer = P::load(Path::new(model), &inputs)?;
    let compile_ms = ms(start.elapsed());
    peer.bind(&inputs)?;
    peer.run()?;
    let peak = peak_rss_mb()?;
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < FEWEST_RUNS || start.elapsed() < limit {
        let before = Instant::now();
        peer.run()?;
        times.push(before.elapsed());
    }
    times.sort_unstable();
    let quantile = |percent: usize| ms(times[(times.len() - 1) * percent / 100]);
    let (median, p99, runs) = (quantile(50), quantile(99), times.len());
    write(&folder, &peer.outputs()?)?;
    print!("{{\"compile_ms\": {compile_ms}, \"median_ms\": {median}, \"p99_ms\": {p99}, ");
    println!("\"runs\": {runs}, \"peak_rss_mb\": {peak}}}");
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Most memory that this process has had, in 2^20 bytes.
fn peak_rss_mb() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}

fn read(folder: &Path) -> Result<Vec<Tensor>> {
    let mut tensors = Vec::new();
    for (number, line) in fs::read_to_string(folder.join("inputs.txt"))?.lines().enumerate() {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let (Some(dtype), Some(dims), Some(name)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("inputs.txt: {line}").into());
        };
        let dims = dims
            .split(',')
            .filter(|dim| *dim != "-")
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
        tensors.push(Tensor { name, dtype, dims, bytes: fs::read(folder.join(format!("inputs-{number}")))? });
    }
    Ok(tensors)
}

fn write(folder: &Path, tensors: &[Tensor]) -> Result<()> {
    let mut lines = String::new();
    for (number, tensor) in tensors.iter().enumerate() {
        let dims: Vec<String> = tensor.dims.iter().map(usize::to_string).collect();
        let dims = if dims.is_empty() { "-".to_owned() } else { dims.join(",") };
        lines += &format!("{} {dims} {}\n", tensor.dtype, tensor.name);
        fs::write(folder.join(format!("outputs-{number}")), &tensor.bytes)?;
    }
    Ok(fs::write(folder.join("outputs.txt"), lines)?)
}

//! What a model may cost: the same flags for every verb that reads one.

use super::Failure;
use clap::Args;
use rabot::ir::budget::{self, Budget};
use rabot::onnx::Limits;
use rabot::recipe;
use std::time::{Duration, Instant};

/// Heading of these options in the help.
const LIMITS: &str = "Limits (sizes as 1000, 64K, 2M, 8G)";

/// What a model may cost.
#[derive(Args, Clone, Debug)]
pub(crate) struct LimitArgs {
    /// Memory that the work may take, in bytes [default: that of this machine]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = LIMITS)]
    max_memory: Option<u64>,

    /// Time that the work may take, in seconds [default: any]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, help_heading = LIMITS)]
    max_time: Option<Duration>,

    /// Largest file, of the model and of external data [default: 64G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = LIMITS)]
    max_file_bytes: Option<u64>,

    /// Memory for nodes, names and lists of attributes [default: 128M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = LIMITS)]
    max_message_bytes: Option<u64>,

    /// Longest name [default: 1M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = LIMITS)]
    max_name_bytes: Option<u64>,

    /// Most nodes, with those of inlined functions [default: 1000000]
    #[arg(long, value_name = "N", value_parser = parse_size, help_heading = LIMITS)]
    max_nodes: Option<u64>,

    /// Deepest nesting of graphs and of calls, at most 256 [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256), help_heading = LIMITS)]
    max_nesting_depth: Option<u64>,

    /// Largest constant [default: 16G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = LIMITS)]
    max_tensor_bytes: Option<u64>,

    /// All sparse constants, made dense [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = LIMITS)]
    max_sparse_bytes: Option<u64>,

    /// Most dims of a tensor [default: 64]
    #[arg(long, value_name = "N", value_parser = parse_size, help_heading = LIMITS)]
    max_rank: Option<u64>,

    /// Constants that operators on constants become while compiling [default: 1G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = LIMITS)]
    max_folded_bytes: Option<u64>,

    /// Let external data be links, which may lead out of the model's folder
    #[arg(long, help_heading = LIMITS)]
    follow_links: bool,
}

impl LimitArgs {
    /// Holds the rest of this process to the limits of memory and time, those of `recipe` where none is given, and gives those of the importer.
    ///
    /// **Errors**: the time cannot be watched.
    pub(crate) fn start(&self, recipe: recipe::Budget) -> Result<Limits, Failure> {
        let memory = self
            .max_memory
            .or(recipe.memory_bytes)
            .or_else(|| rabot_guard::machine_memory().map(|bytes| bytes as u64));
        if let Some(memory) = memory {
            rabot_guard::limit_memory(count(memory));
        }
        let time = self.max_time.or_else(|| recipe.seconds.map(Duration::from_secs));
        if let Some(time) = time {
            // What looks at the time itself can say more: it gets a moment to do so.
            let late = time.saturating_add(Duration::from_millis(200));
            let watched = rabot_guard::limit_time(late);
            watched.map_err(|error| Failure::new(format!("cannot watch the time: {error}")))?;
        }
        let default = Budget::default();
        budget::set(Budget {
            bytes: memory.unwrap_or(default.bytes),
            folded_bytes: self.max_folded_bytes.unwrap_or(default.folded_bytes),
            deadline: time.and_then(|time| Instant::now().checked_add(time)),
        });
        let default = Limits::default();
        Ok(Limits {
            file_bytes: self.max_file_bytes.unwrap_or(default.file_bytes),
            message_bytes: self.max_message_bytes.unwrap_or(default.message_bytes),
            name_bytes: self.max_name_bytes.map_or(default.name_bytes, count),
            nodes: self.max_nodes.map_or(default.nodes, count),
            nesting_depth: self.max_nesting_depth.map_or(default.nesting_depth, count),
            tensor_bytes: self.max_tensor_bytes.unwrap_or(default.tensor_bytes),
            sparse_bytes: self.max_sparse_bytes.unwrap_or(default.sparse_bytes),
            rank: self.max_rank.map_or(default.rank, count),
            follow_links: self.follow_links,
        })
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let units = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.ok_or_else(|| "expected a number, as 1000, 64K, 2M or 8G".to_owned())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 1e9);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected a number of seconds, as 0.5 or 60".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("64K"), Ok(64 << 10));
        assert_eq!(parse_size("3G"), Ok(3 << 30));
        for text in ["", "K", "-1", "1.5M", "1MB", "99999999999T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "1s", "1e300"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}

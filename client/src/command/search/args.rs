//! The flags of `loadgen search`.

use crate::cli::RunArgs;
use clap::Args;
use loadgen_core::search::Slo;
use loadgen_core::units;

#[derive(Args, Debug)]
#[command(after_help = "Example: loadgen search --slo 'p99<5ms' --slo 'errors=0' --target http://127.0.0.1:8080/")]
pub struct SearchArgs {
    /// What has to hold, e.g. 'p99<5ms' 'errors=0' 'error_share<0.1%'; may be repeated
    ///
    /// In quotes, or the shell takes the rest for a file. Percentiles of response times are found best: their share of
    /// slow requests tells how far away the limit is (docs/search.md).
    #[arg(long, value_name = "LIMIT", value_delimiter = ',', required = true, value_parser = Slo::parse)]
    pub slo: Vec<Slo>,
    /// The first rate [default: a quarter of what a second of a closed loop achieves]
    #[arg(long, value_name = "R", value_parser = units::parse_count)]
    pub from: Option<u64>,
    /// Stop when the interval reaches no further than this to either side
    #[arg(long, value_name = "P", default_value = "5%")]
    pub precision: String,
    /// Stop after this long, however wide the interval is
    #[arg(long, value_name = "T", default_value = "5m", value_parser = units::parse_duration_ns)]
    pub budget: u64,
    /// Stop after N probes
    #[arg(long, value_name = "N", default_value = "100", value_parser = units::parse_count)]
    pub probes: u64,
    /// Exit with 1 when the answer is surely below this rate, with 8 under --strict when that cannot be told
    #[arg(long, value_name = "R", value_parser = units::parse_count)]
    pub at_least: Option<u64>,
    #[command(flatten, next_help_heading = "Each probe")]
    pub run: RunArgs,
    /// The flags of `run` that were typed.
    #[arg(skip)]
    pub run_flags: Vec<String>,
}

//! `loadgen report`: report files in another format.

use crate::cli::ReportArgs;
use crate::failure::{Exit, Failure};
use crate::plan::choose_format;
use loadgen_core::result::read;

pub fn run(args: &ReportArgs) -> Result<Exit, Failure> {
    let format = choose_format(&args.format)?;
    for file in &args.files {
        let report = read::read(file).map_err(|error| Failure::usage(error.to_string()))?;
        super::run::print(&(format.render)(&report))?;
    }
    Ok(Exit::Done)
}

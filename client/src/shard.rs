//! Which part of a run on several processes this one is: typed, or from the variables of what started them.

use crate::failure::Failure;
use crate::plan::Plan;
use loadgen_core::result::Shard;
use loadgen_core::units::parse_whole;

/// Processes of one run, at most.
const SHARDS_MAX: u64 = 100_000;

/// Variables that say an index and a count. The first pair with an index decides.
const PAIRS: &[Pair] = &[
    Pair { index: "LOADGEN_SHARD", count: "LOADGEN_SHARDS", ours: true },
    // An indexed job of Kubernetes tells each pod its index and none the count.
    Pair { index: "JOB_COMPLETION_INDEX", count: "LOADGEN_SHARDS", ours: true },
    Pair { index: "OMPI_COMM_WORLD_RANK", count: "OMPI_COMM_WORLD_SIZE", ours: false },
    Pair { index: "PMI_RANK", count: "PMI_SIZE", ours: false },
    // Only srun sets the count of the step. In the body of an sbatch script SLURM_PROCID and SLURM_NTASKS are set,
    // and one copy runs.
    Pair { index: "SLURM_PROCID", count: "SLURM_STEP_NUM_TASKS", ours: false },
];

struct Pair {
    index: &'static str,
    count: &'static str,
    /// Set for loadgen. The others are there for any program, and one process alone is no shard by them.
    ours: bool,
}

/// Every variable that can make a process a shard.
pub fn variables() -> impl Iterator<Item = &'static str> {
    PAIRS.iter().flat_map(|pair| [pair.index, pair.count])
}

/// A shard, and the variables that said so; none: it was typed.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub shard: Shard,
    pub variables: Option<(&'static str, &'static str)>,
}

/// `2/4`, the third of four.
pub fn parse(text: &str) -> Result<Shard, String> {
    let (index, count) = text.split_once('/').ok_or("write index/count, e.g. 0/4 to 3/4")?;
    let number = |text: &str| parse_whole(text).ok_or_else(|| format!("'{text}' is no whole number"));
    shard(number(index)?, number(count)?)
}

fn shard(index: u64, count: u64) -> Result<Shard, String> {
    if count == 0 || count > SHARDS_MAX {
        return Err(format!("{count} shards are out of range; it takes 1 to {SHARDS_MAX}"));
    }
    if index >= count {
        let last = count - 1;
        return Err(format!("there is no shard {index} of {count}: they are counted from 0, and the last is {last}"));
    }
    Ok(Shard { index, count, ..Shard::default() })
}

/// What was typed; else what the environment says, variable by variable (`lookup`). `None`: the whole run.
pub fn find(typed: Option<&Shard>, lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Found>, Failure> {
    if let Some(shard) = typed {
        return Ok(Some(Found { shard: shard.clone(), variables: None }));
    }
    // Templates leave empty what they have no value for.
    let value = |name: &str| lookup(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    for pair in PAIRS {
        match (value(pair.index), value(pair.count)) {
            (Some(index), Some(count)) => return from_variables(pair, &index, &count),
            (None, _) => {}
            (Some(_), None) if pair.index == "SLURM_PROCID" => {}
            (Some(index), None) => return Err(no_count(pair, &index)),
        }
    }
    match value("LOADGEN_SHARDS") {
        None => Ok(None),
        Some(count) => {
            let message = format!("LOADGEN_SHARDS={count} is set, and nothing says which of them this process is");
            Err(Failure::usage(message).help("set LOADGEN_SHARD from 0 on, or give --shard; or unset LOADGEN_SHARDS"))
        }
    }
}

fn from_variables(pair: &Pair, index: &str, count: &str) -> Result<Option<Found>, Failure> {
    let number = |name: &str, text: &str| {
        parse_whole(text).ok_or_else(|| Failure::usage(format!("{name}={text} is no whole number")))
    };
    let (index, count) = (number(pair.index, index)?, number(pair.count, count)?);
    let shard = shard(index, count).map_err(|why| {
        Failure::usage(format!("{}={index} and {}={count}: {why}", pair.index, pair.count))
            .help("mend the variables, or give --shard, which goes before them")
    })?;
    let found = Found { shard, variables: Some((pair.index, pair.count)) };
    Ok((pair.ours || count > 1).then_some(found))
}

/// The whole load from each of several processes would be another load than the one that was asked for.
fn no_count(pair: &Pair, index: &str) -> Failure {
    let Pair { index: name, count, .. } = pair;
    let message = format!("{name}={index} makes this process one of several, and {count} does not say of how many");
    Failure::usage(message).help(format!(
        "set {count} to their number (an indexed job of Kubernetes: its completions), or give --shard; --shard 0/1 \
         puts the whole load on in each"
    ))
}

impl Plan {
    /// Makes this the plan of one shard only.
    ///
    /// # Errors
    /// If it cannot be divided so that the shards together are the load that was asked for.
    pub fn divide(&mut self, shard: Shard) -> Result<(), Failure> {
        let Shard { index, count, .. } = shard;
        let of = format!("shard {index} of {count}");
        if count > 1 && self.is_embedded() {
            let message = format!("{of} has no target, and each shard would start a server of its own");
            return Err(Failure::usage(message).help("start one loadgen-server, and give all of them its --target"));
        }
        if count > 1 && !self.until_ci.is_empty() {
            let message = "--until-ci does not go with shards: each would end at a time of its own";
            return Err(Failure::usage(message).help("give all of them the same --duration"));
        }
        let own = shard.share(self.connections);
        if own < self.threads {
            let (conns, threads) = (self.connections, self.threads);
            let message = format!("{of} has {own} of --conns {conns}, and --threads {threads}");
            return Err(Failure::usage(message).help("use more --conns, fewer shards or fewer --threads"));
        }
        let workers = count * self.threads;
        for (flag, value) in [("--in-flight", self.in_flight_max), ("--connect-rate", self.connect_rate)] {
            if let Some(value) = value.filter(|value| *value < workers && count > 1) {
                let message = format!("{flag} {value} cannot be divided among {workers} threads ({count} shards)");
                return Err(Failure::usage(message).help("give at least one for each thread of each shard"));
            }
        }
        self.shard = Some(shard);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Result<Option<Found>, Failure> {
        find(None, |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    fn part(variables: &[(&str, &str)]) -> Option<(u64, u64)> {
        found(variables).unwrap().map(|found| (found.shard.index, found.shard.count))
    }

    #[test]
    fn typed_shards_are_read_and_refused() {
        let shard = parse("2/4").unwrap();
        assert_eq!((shard.index, shard.count), (2, 4));
        assert!(parse("0/1").is_ok());
        for wrong in ["", "1", "4/4", "0/0", "-1/4", "1/4/2", "a/4", "1/", "0/100001", "1.0/4"] {
            let problem = parse(wrong).unwrap_err();
            assert!(!problem.contains('\n'), "{wrong}: {problem}");
        }
    }

    #[test]
    fn the_first_pair_decides_and_what_is_typed_goes_before_all() {
        let all = [
            ("LOADGEN_SHARD", "1"),
            ("LOADGEN_SHARDS", "4"),
            ("JOB_COMPLETION_INDEX", "2"),
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_SIZE", "5"),
            ("PMI_RANK", "4"),
            ("PMI_SIZE", "6"),
            ("SLURM_PROCID", "5"),
            ("SLURM_STEP_NUM_TASKS", "7"),
        ];
        assert_eq!(part(&all), Some((1, 4)));
        assert_eq!(part(&all[1..]), Some((2, 4)));
        assert_eq!(part(&all[3..]), Some((3, 5)));
        assert_eq!(part(&all[5..]), Some((4, 6)));
        assert_eq!(part(&all[7..]), Some((5, 7)));
        assert_eq!(part(&[]), None);
        let typed = parse("0/2").unwrap();
        let found = find(Some(&typed), |_| Some("7".to_owned())).unwrap();
        assert_eq!(found, Some(Found { shard: typed, variables: None }));
    }

    #[test]
    fn an_index_without_a_count_is_never_guessed() {
        for index in ["LOADGEN_SHARD", "JOB_COMPLETION_INDEX", "OMPI_COMM_WORLD_RANK", "PMI_RANK"] {
            let failure = found(&[(index, "0")]).unwrap_err();
            assert!(failure.cause().contains(index) && failure.remedy().is_some(), "{failure}");
        }
        assert!(found(&[("LOADGEN_SHARDS", "4")]).unwrap_err().cause().contains("LOADGEN_SHARDS=4"));
        assert!(found(&[("LOADGEN_SHARD", "4"), ("LOADGEN_SHARDS", "4")]).is_err());
        assert!(found(&[("LOADGEN_SHARD", "x"), ("LOADGEN_SHARDS", "4")]).is_err());
        assert_eq!(part(&[("LOADGEN_SHARD", ""), ("LOADGEN_SHARDS", " ")]), None);
    }

    #[test]
    fn the_body_of_a_batch_script_is_no_shard_and_one_task_alone_is_none() {
        assert_eq!(part(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]), None);
        assert_eq!(part(&[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")]), None);
        assert_eq!(part(&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")]), None);
        assert_eq!(part(&[("JOB_COMPLETION_INDEX", "0"), ("LOADGEN_SHARDS", "1")]), Some((0, 1)));
        // A size alone says nothing about this process.
        assert_eq!(part(&[("PMI_SIZE", "4")]), None);
    }

    #[test]
    fn shards_connect_from_addresses_of_their_own() {
        let remote = std::net::SocketAddr::from(([127, 0, 0, 1], 9)).into();
        for (conns, alone, each) in [("100", 0, 1), ("40k", 5, 2)] {
            let mut seen = Vec::new();
            for index in 0..4 {
                let words = ["--target=127.0.0.1:9".to_owned(), format!("--conns={conns}")];
                let mut plan = crate::floor::planned(&words).unwrap();
                assert_eq!(plan.sources_for(&remote).len(), alone);
                plan.divide(shard(index, 4).unwrap()).unwrap();
                assert_eq!(plan.sources_for(&remote).len(), each);
                seen.extend(plan.sources_for(&remote));
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 4 * each, "{seen:?}");
        }
    }
}

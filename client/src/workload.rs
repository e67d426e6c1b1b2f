//! What is asked for, beyond one request for all: mixes, commands, keys, and who asks.

use crate::cli::RunArgs;
use crate::failure::Failure;
use crate::headers::{HEADERS_VARIABLE, Headers};
use crate::scenario;
use crate::target::Target;
use clap::Args;
use loadgen_core::files::read;
use loadgen_core::protocol::keyspace::{Keyspace, Spread};
use loadgen_core::protocol::{ClientOptions, PROTOCOLS, Protocol};
use loadgen_core::secrets;
use loadgen_core::units::{self, parse_whole};
use std::path::Path;

/// Where user and password may be, so that they are in no list of processes.
pub const LOGIN_VARIABLE: &str = "LOADGEN_LOGIN";

/// Values may be so long, in bytes: Redis' limit.
const VALUE_MAX: u64 = 512 << 20;

#[derive(Args, Clone, Debug)]
pub struct WorkloadArgs {
    /// What is asked how often, e.g. get=9,set=1 (docs/redis.md, docs/memcached.md)
    #[arg(long, value_name = "LIST", value_delimiter = ',', hide_short_help = true)]
    pub mix: Vec<String>,
    /// A command in place of a mix, e.g. 'INCRBY {key} 5'; N= before it is its weight; may be repeated
    ///
    /// {key} stands for a key, {value} for a value, {counter} for a number that is counted up.
    #[arg(long = "command", value_name = "TEXT", conflicts_with = "mix", hide_short_help = true)]
    pub commands: Vec<String>,
    /// So many different keys
    #[arg(long, value_name = "N", default_value = "10k", value_parser = units::parse_count, hide_short_help = true)]
    pub keys: u64,
    /// How often which key is asked for: uniform, sequential, zipf, zipf:EXPONENT
    #[arg(long, value_name = "NAME", default_value = "uniform", value_parser = Spread::parse, hide_short_help = true)]
    pub key_spread: Spread,
    /// What keys begin with
    #[arg(long, value_name = "TEXT", default_value = "key:", hide_short_help = true)]
    pub key_prefix: String,
    /// Bytes of a value, or from..to [default: --size]
    #[arg(long, value_name = "BYTES", value_parser = sizes, hide_short_help = true)]
    pub value_size: Option<(u64, u64)>,
    /// The protocol's dialect: 2 or 3 (redis), text or meta (memcached)
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub dialect: Option<String>,
}

fn sizes(text: &str) -> Result<(u64, u64), String> {
    let (least, most) = match text.split_once("..") {
        Some((least, most)) => (units::parse_size(least)?, units::parse_size(most)?),
        None => (units::parse_size(text)?, units::parse_size(text)?),
    };
    match (least, most) {
        _ if least > most => Err("the range ends before it begins".into()),
        (_, VALUE_MAX..) => Err("a value has at most 512 MiB".into()),
        sizes => Ok(sizes),
    }
}

impl WorkloadArgs {
    /// Fills in what they mean for the requests.
    pub fn fill(&self, options: &mut ClientOptions, protocol: &Protocol, targets: &[Target]) -> Result<(), Failure> {
        let templates = options.scenario.is_some();
        if protocol.store || templates {
            options.keyspace = self.keyspace(options.size as u64)?;
        }
        if !protocol.store {
            return self.refuse(protocol, targets, templates);
        }
        options.mix = self.mix.iter().map(|word| weighted_word(word)).collect::<Result<_, _>>()?;
        options.commands.extend(self.commands.iter().map(|text| weighted_command(text)));
        if options.commands.iter().any(|(text, weight)| text.trim().is_empty() || *weight == 0) {
            return Err(Failure::usage("--command needs a command, and a weight (if it has one) of 1 or more"));
        }
        options.dialect.clone_from(&self.dialect);
        // Of the targets that have none themselves.
        options.login = login(std::env::var(LOGIN_VARIABLE).ok())?;
        Ok(())
    }

    /// What `{key}` and `{value}` stand for.
    fn keyspace(&self, size: u64) -> Result<Keyspace, Failure> {
        let (least, most) = self.value_size.unwrap_or((size, size));
        if self.keys == 0 {
            return Err(Failure::usage("--keys 0: there must be one"));
        }
        Ok(Keyspace {
            prefix: self.key_prefix.clone(),
            keys: self.keys,
            spread: self.key_spread,
            value_size: (least as usize, most as usize),
        })
    }

    /// Refuses what other protocols do not know, rather than to leave it out without a word.
    fn refuse(&self, protocol: &Protocol, targets: &[Target], templates: bool) -> Result<(), Failure> {
        let typed = [
            (!self.mix.is_empty(), "--mix"),
            (!self.commands.is_empty(), "--command"),
            (self.dialect.is_some(), "--dialect"),
            (self.value_size.is_some() && !templates, "--value-size"),
            (targets.iter().any(|target| target.login.is_some()), "the user in a target"),
        ];
        let Some((_, what)) = typed.into_iter().find(|(typed, _)| *typed) else { return Ok(()) };
        let stores: Vec<&str> = PROTOCOLS.iter().filter(|p| p.store).map(|p| p.name).collect();
        let name = protocol.name;
        let failure = Failure::usage(format!("{what} is for stores of keys and values, and {name} is none"));
        if targets.iter().any(|target| target.login.is_some()) && protocol.headers {
            return Err(
                failure.help("a login of HTTP is a header, which -H @FILE takes out of a file: Authorization: ...")
            );
        }
        Err(failure.help(format!("protocols that know it: {}", stores.join(", "))))
    }
}

/// `get=9`; without a number it is 1.
fn weighted_word(text: &str) -> Result<(String, u32), Failure> {
    let (word, weight) = text.split_once('=').unwrap_or((text, "1"));
    match parse_whole(weight).and_then(|weight| u32::try_from(weight).ok()) {
        Some(weight) if weight > 0 && !word.trim().is_empty() => Ok((word.trim().to_ascii_lowercase(), weight)),
        _ => Err(Failure::usage(format!("'{text}' in --mix is not WORD=WEIGHT, such as get=9"))),
    }
}

/// `3=INCR {key}`; without a number it is 1.
fn weighted_command(text: &str) -> (String, u32) {
    let weighted = text.split_once('=').and_then(|(weight, rest)| {
        let weight = parse_whole(weight).and_then(|weight| u32::try_from(weight).ok());
        Some((rest.to_owned(), weight?))
    });
    weighted.unwrap_or_else(|| (text.to_owned(), 1))
}

fn login(text: Option<String>) -> Result<Option<(String, String)>, Failure> {
    let Some(text) = text else { return Ok(None) };
    match text.split_once(':') {
        Some((user, password)) => Ok(Some((user.to_owned(), password.to_owned()))),
        None => Err(Failure::usage(format!("{LOGIN_VARIABLE} is not USER:PASSWORD (the user may be empty)"))),
    }
}

/// What the requests to the first target are, or to an embedded server.
pub fn client_options(
    args: &RunArgs,
    protocol: &Protocol,
    targets: &[Target],
    size: usize,
) -> Result<ClientOptions, Failure> {
    let target = targets.first();
    let given = targets.iter().map(|target| &target.path).chain(&args.path);
    if let Some(path) = given.filter(|path| !matches!(path.as_str(), "" | "/")).find(|_| !protocol.paths) {
        let message = format!("{} has no paths and queries, and was given '{}'", protocol.name, secrets::url(path));
        return Err(Failure::usage(message).help("leave it out, or choose another protocol: http://"));
    }
    let path = args.path.clone().or_else(|| target.map(|t| t.path.clone()).filter(|path| !path.is_empty()));
    let body = match args.body.as_deref() {
        None => Vec::new(),
        Some(text) => match text.strip_prefix('@') {
            None => text.as_bytes().to_vec(),
            Some(file) => read_body(file)?,
        },
    };
    let Headers { lines: headers, hidden: hidden_headers } =
        Headers::new(&args.headers, std::env::var(HEADERS_VARIABLE).ok().as_deref())?;
    let mut options = ClientOptions {
        size,
        // An embedded server's port is not known yet, and the same request should have the same hash each time.
        authority: target.map_or_else(|| "localhost".to_owned(), Target::authority),
        path: path.unwrap_or_else(|| "/".to_owned()),
        method: args.method.clone(),
        headers,
        hidden_headers,
        body,
        seed: args.seed,
        worker: (0, 1),
        ..ClientOptions::default()
    };
    scenario::fill(args, &mut options, protocol)?;
    args.workload.fill(&mut options, protocol, targets)?;
    Ok(options)
}

fn read_body(file: &str) -> Result<Vec<u8>, Failure> {
    read::bytes(Path::new(file), read::DATA_MAX).map_err(|why| Failure::usage(format!("the request body: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadgen_core::protocol::ask::Ask;

    #[test]
    fn weights_are_read() {
        assert_eq!(weighted_word("GET=9").unwrap(), ("get".to_owned(), 9));
        assert_eq!(weighted_word("get").unwrap(), ("get".to_owned(), 1));
        assert!(["get=", "=1", "get=0", "get=x", ""].iter().all(|text| weighted_word(text).is_err()));
        assert_eq!(weighted_command("3=SET a b=c"), ("SET a b=c".to_owned(), 3));
        assert_eq!(weighted_command("SET a b=c"), ("SET a b=c".to_owned(), 1));
        assert_eq!(sizes("1..2KiB"), Ok((1, 2048)));
        assert!(sizes("2..1").is_err() && sizes("1GiB").is_err());
    }

    #[test]
    fn a_counter_says_each_number_once_over_all_threads_and_targets() {
        let words =
            ["--target", "redis://127.0.0.1:1", "--target", "redis://127.0.0.1:2", "--command", "ECHO {counter}"];
        let line = words.into_iter().chain(["--threads", "3"]).map(str::to_owned);
        let plan = crate::floor::planned(&line.collect::<Vec<_>>()).unwrap();
        let mut said = std::collections::BTreeSet::new();
        for client in (0..3).flat_map(|thread| plan.clients(thread).unwrap()) {
            let mut client = client.into_codec().unwrap();
            for _ in 0..50 {
                let mut bytes = Vec::new();
                client.compose(&mut Ask::default(), &mut bytes);
                let text = String::from_utf8(bytes).unwrap();
                // *2 $4 ECHO $<length> <number>
                let number: u64 = text.split_whitespace().nth(4).unwrap().parse().unwrap();
                assert!(said.insert(number), "{number} twice");
            }
        }
        assert_eq!((said.len(), said.first(), said.last()), (300, Some(&0), Some(&299)));
    }
}

//! What is asked for, beyond one request for all: mixes, commands, keys, and who asks.

use crate::failure::Failure;
use crate::target::Target;
use clap::Args;
use loadgen_core::protocol::keyspace::{Keyspace, Spread};
use loadgen_core::protocol::{ClientOptions, PROTOCOLS, Protocol};
use loadgen_core::units::{self, parse_whole};

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
    pub fn fill(
        &self,
        options: &mut ClientOptions,
        protocol: &Protocol,
        target: Option<&Target>,
    ) -> Result<(), Failure> {
        let templates = options.scenario.is_some();
        if protocol.store || templates {
            options.keyspace = self.keyspace(options.size as u64)?;
        }
        if !protocol.store {
            return self.refuse(protocol, target, templates);
        }
        options.mix = self.mix.iter().map(|word| weighted_word(word)).collect::<Result<_, _>>()?;
        options.commands.extend(self.commands.iter().map(|text| weighted_command(text)));
        if options.commands.iter().any(|(text, weight)| text.trim().is_empty() || *weight == 0) {
            return Err(Failure::usage("--command needs a command, and a weight (if it has one) of 1 or more"));
        }
        options.dialect.clone_from(&self.dialect);
        options.login = match target.and_then(|target| target.login.clone()) {
            Some(login) => Some(login),
            None => login(std::env::var(LOGIN_VARIABLE).ok())?,
        };
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
    fn refuse(&self, protocol: &Protocol, target: Option<&Target>, templates: bool) -> Result<(), Failure> {
        let typed = [
            (!self.mix.is_empty(), "--mix"),
            (!self.commands.is_empty(), "--command"),
            (self.dialect.is_some(), "--dialect"),
            (self.value_size.is_some() && !templates, "--value-size"),
            (target.is_some_and(|target| target.login.is_some()), "the user in the target"),
        ];
        let Some((_, what)) = typed.into_iter().find(|(typed, _)| *typed) else { return Ok(()) };
        let stores: Vec<&str> = PROTOCOLS.iter().filter(|p| p.store).map(|p| p.name).collect();
        let name = protocol.name;
        Err(Failure::usage(format!("{what} is for stores of keys and values, and {name} is none"))
            .help(format!("protocols that know it: {}", stores.join(", "))))
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

/// A command line without the passwords in its targets: it goes into the report.
pub fn without_passwords(command: Vec<String>) -> Vec<String> {
    command.into_iter().map(|word| without_password(&word)).collect()
}

/// `redis://user:secret@host` as `redis://user:***@host`.
pub fn without_password(word: &str) -> String {
    match around_login(word).and_then(|(before, login, behind)| Some((before, login.split_once(':')?.0, behind))) {
        Some((before, user, behind)) => format!("{before}{user}:***@{behind}"),
        None => word.to_owned(),
    }
}

/// `redis://user:***@host` as `redis://host`.
pub fn without_login(word: &str) -> String {
    around_login(word).map_or_else(|| word.to_owned(), |(before, _, behind)| format!("{before}{behind}"))
}

/// What stands before the login of a URL, the login, and what stands behind its `@`; `None`: there is none.
fn around_login(word: &str) -> Option<(&str, &str, &str)> {
    let login_at = word.find("://")? + "://".len();
    let (before, rest) = word.split_at(login_at);
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    let end = authority.rfind('@')?;
    Some((before, &rest[..end], &rest[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_left_out() {
        for (word, shown) in [
            ("redis://u:p@h:1/2", "redis://u:***@h:1/2"),
            ("--target=redis://:p:q@h", "--target=redis://:***@h"),
            ("http://h/a@b:c", "http://h/a@b:c"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_password(word), shown);
        }
    }

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
        for mut client in (0..3).flat_map(|thread| plan.clients(thread).unwrap()) {
            for _ in 0..50 {
                let mut bytes = Vec::new();
                client.compose(&mut bytes);
                let text = String::from_utf8(bytes).unwrap();
                // *2 $4 ECHO $<length> <number>
                let number: u64 = text.split_whitespace().nth(4).unwrap().parse().unwrap();
                assert!(said.insert(number), "{number} twice");
            }
        }
        assert_eq!((said.len(), said.first(), said.last()), (300, Some(&0), Some(&299)));
    }
}

//! What may be chosen about a ring, and the words for it: `--ring cq=4096,buffers=64x64KiB`.

use crate::units;
use std::fmt::Write;

/// Choices. The defaults are what measured best (docs/io_uring.md); what is off by default is an experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Submission queue entries.
    pub submissions: u32,
    /// Completion queue entries; `None`: by the number of connections.
    pub completions: Option<u32>,
    /// Buffers to receive into, a power of two, and their size.
    pub buffers: u16,
    pub buffer_bytes: u32,
    /// The most that a multishot receive brings before it ends by itself, where the kernel can count that (Linux
    /// 6.17); 0: no bound.
    /// Not a word of the command line: it is what bounds the memory of a server's connection.
    pub receive_limit: u32,
    /// Sends by send(2) at once, and through the ring only what that does not take. Needs ordinary descriptors, so
    /// that connections are bounded by `ulimit -n` again.
    pub inline_send: bool,
    /// Receives that fill several buffers with one completion.
    pub bundles: bool,
    /// Buffers that are filled bit by bit.
    pub incremental: bool,
    /// Sends of at least so many bytes without a copy. (Loopback copies all the same.)
    pub zero_copy: Option<u32>,
    /// After the first completion, wait so long for more (microseconds).
    pub min_wait_us: u32,
    /// A kernel thread that submits, and sleeps after so many idle milliseconds.
    pub sqpoll_idle_ms: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            submissions: 512,
            completions: None,
            buffers: 64,
            buffer_bytes: 64 << 10,
            receive_limit: 0,
            inline_send: false,
            bundles: false,
            incremental: false,
            zero_copy: None,
            min_wait_us: 0,
            sqpoll_idle_ms: None,
        }
    }
}

/// A look takes no more, however large the buffers.
const LOOK_BYTES: u32 = 64 << 10;
/// The smallest send that goes without a copy, where nothing else is said: below, the bookkeeping costs more.
const ZERO_COPY_BYTES: u32 = 4096;
const SQPOLL_IDLE_MS: u32 = 1000;
/// The five requests that make a connection leave together, so a queue must have room for all of them; a power of two.
const ENTRIES_MIN: u64 = 8;

/// One word of `--ring`.
struct Word {
    name: &'static str,
    about: &'static str,
    set: fn(&mut Options, Option<&str>) -> Result<(), String>,
}

/// The table: a newcomer is an entry here.
const WORDS: &[Word] = &[
    Word {
        name: "sq",
        about: "=N: submission queue entries",
        set: |o, v| number(v, ENTRIES_MIN, 32768).map(|n| o.submissions = n),
    },
    Word {
        name: "cq",
        about: "=N: completion queue entries",
        set: |o, v| number(v, ENTRIES_MIN, 65536).map(|n| o.completions = Some(n)),
    },
    Word { name: "buffers", about: "=NxBYTES: buffers to receive into", set: set_buffers },
    Word {
        name: "inline-send",
        about: ": send(2) first, the ring for the rest",
        set: |o, v| none(v).map(|()| o.inline_send = true),
    },
    Word { name: "bundles", about: ": several buffers a completion", set: |o, v| none(v).map(|()| o.bundles = true) },
    Word {
        name: "incremental",
        about: ": buffers are filled bit by bit",
        set: |o, v| none(v).map(|()| o.incremental = true),
    },
    Word { name: "zero-copy", about: "[=BYTES]: sends from this size on without a copy", set: set_zero_copy },
    Word { name: "min-wait", about: "=TIME: wait for more completions this long", set: set_min_wait },
    Word { name: "sqpoll", about: "[=TIME]: a kernel thread submits; it sleeps when idle so long", set: set_sqpoll },
];

impl Options {
    /// Reads `cq=16,buffers=8x64,bundles`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, value) = item.split_once('=').map_or((item, None), |(name, value)| (name, Some(value)));
            let word = WORDS.iter().find(|word| word.name == name);
            let word = word.ok_or_else(|| format!("'{name}' is not known; there are {}", Self::help()))?;
            (word.set)(&mut options, value).map_err(|error| format!("{name}: {error}"))?;
        }
        if options.bundles && options.incremental {
            return Err("bundles and incremental do not go together".into());
        }
        Ok(options)
    }

    /// How much a look takes, if there is as much: one that brings less has emptied the socket.
    pub fn look_bytes(&self) -> u32 {
        self.buffer_bytes.min(LOOK_BYTES)
    }

    /// The word of an option that datagrams cannot have, if one was given: they are received one by one, each into a
    /// buffer, and sent at once.
    pub fn about_streams(&self) -> Option<&'static str> {
        let given = [
            ("inline-send", self.inline_send),
            ("bundles", self.bundles),
            ("incremental", self.incremental),
            ("zero-copy", self.zero_copy.is_some()),
        ];
        given.iter().find(|(_, given)| *given).map(|(word, _)| *word)
    }

    /// The words and what they mean, on one line.
    pub fn help() -> String {
        WORDS.iter().fold(String::new(), |mut text, word| {
            let separator = if text.is_empty() { "" } else { "; " };
            // Writing to a String does not fail.
            let _ = write!(text, "{separator}{}{}", word.name, word.about);
            text
        })
    }

    /// What differs from the defaults, in words, for reports.
    pub fn describe(&self) -> Vec<String> {
        let default = Self::default();
        let mut words = Vec::new();
        let mut say = |differs: bool, word: String| words.extend(differs.then_some(word));
        say(self.submissions != default.submissions, format!("sq={}", self.submissions));
        say(self.completions.is_some(), format!("cq={}", self.completions.unwrap_or(0)));
        let buffers = (self.buffers, self.buffer_bytes);
        say(buffers != (default.buffers, default.buffer_bytes), format!("buffers={}x{}", buffers.0, buffers.1));
        say(self.inline_send, "inline-send".into());
        say(self.bundles, "bundles".into());
        say(self.incremental, "incremental".into());
        say(self.zero_copy.is_some(), format!("zero-copy={}", self.zero_copy.unwrap_or(0)));
        say(self.min_wait_us > 0, format!("min-wait={}us", self.min_wait_us));
        say(self.sqpoll_idle_ms.is_some(), format!("sqpoll={}ms", self.sqpoll_idle_ms.unwrap_or(0)));
        words
    }
}

fn number(value: Option<&str>, least: u64, most: u64) -> Result<u32, String> {
    let n = units::parse_size(value.ok_or("a number is missing")?)?;
    if (least..=most).contains(&n) { Ok(n as u32) } else { Err(format!("{n} is out of range; {least} to {most}")) }
}

fn none(value: Option<&str>) -> Result<(), String> {
    value.map_or(Ok(()), |value| Err(format!("takes no value, but has '{value}'")))
}

fn set_buffers(options: &mut Options, value: Option<&str>) -> Result<(), String> {
    let (count, bytes) = value.and_then(|v| v.split_once('x')).ok_or("give COUNTxBYTES, such as 64x64KiB")?;
    let count = number(Some(count), 1, 32768)?;
    if !count.is_power_of_two() {
        return Err(format!("{count} is not a power of two"));
    }
    options.buffers = count as u16;
    options.buffer_bytes = number(Some(bytes), 16, 1 << 24)?;
    Ok(())
}

fn set_zero_copy(options: &mut Options, value: Option<&str>) -> Result<(), String> {
    options.zero_copy = Some(value.map_or(Ok(ZERO_COPY_BYTES), |_| number(value, 1, 1 << 30))?);
    Ok(())
}

fn set_min_wait(options: &mut Options, value: Option<&str>) -> Result<(), String> {
    let ns = units::parse_duration_ns(value.ok_or("a time is missing")?)?;
    if !(1_000..=1_000_000_000).contains(&ns) {
        return Err("give 1us to 1s".into());
    }
    options.min_wait_us = (ns / 1_000) as u32;
    Ok(())
}

fn set_sqpoll(options: &mut Options, value: Option<&str>) -> Result<(), String> {
    let ms =
        value.map_or_else(|| Ok(SQPOLL_IDLE_MS.into()), |v| units::parse_duration_ns(v).map(|ns| ns / 1_000_000))?;
    if !(1..=60_000).contains(&ms) {
        return Err("give 1ms to 60s".into());
    }
    options.sqpoll_idle_ms = Some(ms as u32);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_said_again() {
        let text = "cq=16,buffers=8x64,zero-copy=4096,min-wait=50us,sqpoll=20ms,inline-send,bundles";
        let options = Options::parse(text).unwrap();
        assert_eq!((options.buffers, options.buffer_bytes, options.completions), (8, 64, Some(16)));
        let described = options.describe();
        assert_eq!(Options::parse(&described.join(",")).unwrap(), options);
        assert_eq!(described.len(), 7);
        assert!(Options::default().describe().is_empty() && Options::parse("").unwrap() == Options::default());
    }

    #[test]
    fn nonsense_is_refused_with_its_place() {
        let refused = [
            "sq=4",
            "cq=4",
            "cq",
            "cq=1",
            "buffers=3x64",
            "buffers=8",
            "bundles=1",
            "min-wait=0s",
            "bundles,incremental",
        ];
        for text in refused {
            assert!(Options::parse(text).is_err(), "{text}");
        }
        assert!(Options::parse("turbo").unwrap_err().contains("'turbo' is not known; there are sq=N"));
    }
}

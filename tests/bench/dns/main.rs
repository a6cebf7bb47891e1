//! The programs of `cargo xtask bench dns`: an upstream that answers any name, generators that ask at a fixed rate or as
//! fast as they are answered, and clients that connect to what they were told. Each prints what it measured, one line of
//! `key=value` words; `begin`, `mark N` and `end` lines say when, for who looks at the process that is measured.

mod batch;
mod clients;
mod fixed;
mod message;
mod outstanding;
mod saturated;
mod upstream;

use std::{
    collections::HashMap,
    io::{self, Write as _},
    net::SocketAddr,
    str::FromStr,
};

use anyhow::{Context as _, Result, bail};

/// What is to be asked, of whom, and how much of it.
#[derive(Clone, Debug)]
struct Plan {
    /// The server.
    server: SocketAddr,
    /// The query type: A or AAAA.
    query_type: u16,
    /// TTL of the answers.
    ttl: u32,
    /// Names that are asked again and again; 0: each name is asked once.
    names: u64,
    /// Number of the first name.
    from: u64,
    /// Questions a second, for those at a fixed rate.
    rate: u32,
    /// Questions without an answer at a time, for those that go as fast as they can.
    outstanding: usize,
    /// Questions altogether.
    questions: u64,
    /// Seconds after which it ends whatever the count.
    seconds: u64,
    /// Where clients connect: the port.
    port: u16,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["upstream", address] => upstream::serve(address.parse().context("the address is none")?),
        ["accept", port] => clients::accept(port.parse().context("the port is none")?),
        ["fixed", rest @ ..] => fixed::run(&Plan::parse(rest)?),
        ["saturated", rest @ ..] => saturated::run(&Plan::parse(rest)?),
        ["clients", rest @ ..] => clients::run(&Plan::parse(rest)?),
        _ => bail!("usage: dns-bench upstream ADDRESS | accept PORT | fixed|saturated|clients KEY=VALUE…"),
    }
}

impl Plan {
    fn parse(words: &[&str]) -> Result<Self> {
        let mut given = HashMap::new();
        for word in words {
            let (key, value) = word.split_once('=').with_context(|| format!("`{word}` is not KEY=VALUE"))?;
            given.insert(key, value);
        }
        let plan = Self {
            server: take(&mut given, "server", None)?,
            query_type: take(&mut given, "type", Some(message::A))?,
            ttl: take(&mut given, "ttl", Some(300))?,
            names: take(&mut given, "names", Some(0))?,
            from: take(&mut given, "from", Some(0))?,
            rate: take(&mut given, "rate", Some(1))?,
            outstanding: take(&mut given, "outstanding", Some(1))?,
            questions: take(&mut given, "questions", Some(u64::MAX))?,
            seconds: take(&mut given, "seconds", Some(60))?,
            port: take(&mut given, "port", Some(443))?,
        };
        match given.keys().next() {
            Some(unknown) => bail!("no such key: `{unknown}`"),
            None => Ok(plan),
        }
    }

    /// The question with this number.
    fn question(&self, number: u64) -> message::Question {
        let name = if self.names == 0 { self.from + number } else { number % self.names };
        message::Question { ttl: self.ttl, name, query_type: self.query_type }
    }
}

fn take<T: FromStr>(given: &mut HashMap<&str, &str>, key: &str, default: Option<T>) -> Result<T> {
    match given.remove(key) {
        Some(value) => value.parse().ok().with_context(|| format!("`{key}={value}` is no value")),
        None => default.with_context(|| format!("`{key}=` is missing")),
    }
}

/// Prints a line at once.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // Who measures sees a line that is missing.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The value below which the given share of the sorted values lies.
fn quantile(sorted: &[u64], share: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let at = (sorted.len() as f64 * share) as usize;
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a benchmark fit a float's mantissa")]
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |value| *value as f64)
}

//! `egress why`: reads the events of a run and says in sentences what was refused, why, and what would allow it.

use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};

use super::{Output, policy::print_json};
use crate::{
    observe::escape::plain_text,
    why::{self, Findings, Found, Subject},
};

#[derive(Args, Debug)]
pub(super) struct Why {
    /// File that `egress run --events` wrote.
    file: PathBuf,
    /// A name or an address, with :PORT if only one port is meant, or the path of a unix socket (@NAME for an abstract
    /// one). Without it: the last refusal.
    destination: Option<Subject>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn main(arguments: &Why) -> ExitCode {
    let subject = arguments.destination.as_ref();
    let findings = match why::search(subject, || open(&arguments.file)) {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("egress: cannot read events from {}: {error}", arguments.file.display());
            return ExitCode::from(2);
        }
    };
    match arguments.output {
        Output::Text => print(&arguments.file, subject, &findings),
        Output::Json => print_json(&as_json(&arguments.file, subject, &findings)),
    }
    ExitCode::from(u8::from(findings.found.is_none()))
}

/// It is read twice, so a pipe will not do.
fn open(path: &Path) -> io::Result<BufReader<File>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(BufReader::new(file))
}

fn print(file: &Path, subject: Option<&Subject>, findings: &Findings) {
    for sentence in findings.sentences() {
        println!("{sentence}");
    }
    if findings.found.is_none() {
        let what = subject.map_or("no refusal".to_owned(), |subject| {
            format!("nothing about {}", plain_text(&subject.to_string()))
        });
        eprintln!("egress: there is {what} in {}", file.display());
    }
    for remark in findings.remarks() {
        eprintln!("egress: note: {remark}");
    }
}

fn as_json(file: &Path, subject: Option<&Subject>, findings: &Findings) -> Value {
    let event = findings.found.as_ref().map(|found| match found {
        Found::Attempt(attempt) => &attempt.line,
        Found::Escape(escape) => &escape.line,
        Found::Question(question) => &question.line,
    });
    let names = findings.names();
    json!({
        "version": 1,
        "file": file,
        "destination": subject.map(ToString::to_string),
        "found": findings.found.is_some(),
        "event": event,
        "question": findings.question.as_ref().map(|question| &question.line),
        "attempts": findings.attempts,
        "questions": findings.questions,
        "escapes": findings.escapes,
        "names": names,
        "shared": names.len() > 1,
        "explanation": findings.sentences(),
        "remedy": findings.remedy(),
        "setting": findings.setting(),
        "notes": findings.remarks(),
    })
}

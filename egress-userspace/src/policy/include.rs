//! A policy file with what it includes: receives a path, gives its settings and the rules of all files. Reads a file
//! once, however often it is included, and refuses loops.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Fault, Problem, Source,
    file::{self, Located},
    settings::Settings,
};

/// Most files of one policy.
const FILES_MAX: usize = 64;

/// What a file and all that it includes say.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) settings: Option<Settings>,
    /// Of the file from top to bottom, then of each include in order.
    pub(super) rules: Vec<Located>,
    pub(super) files: Vec<PathBuf>,
}

/// Reads a file and its includes.
pub(super) fn load(path: &Path, problems: &mut Vec<Problem>) -> Loaded {
    match Source::read(path) {
        Ok(source) => of_source(source, problems),
        Err(problem) => {
            problems.push(*problem);
            Loaded::default()
        }
    }
}

/// Reads a text as if it were a file, and its includes.
pub(super) fn of_source(source: Source, problems: &mut Vec<Problem>) -> Loaded {
    let mut loader = Loader { loaded: Loaded::default(), seen: Vec::new(), problems };
    loader.file(source, &mut Vec::new());
    loader.loaded
}

struct Loader<'a> {
    loaded: Loaded,
    /// Canonical paths of the files read.
    seen: Vec<PathBuf>,
    problems: &'a mut Vec<Problem>,
}

impl Loader<'_> {
    /// `open` are the files whose includes are being read: canonical path, and path as written.
    fn file(&mut self, source: Source, open: &mut Vec<(PathBuf, PathBuf)>) {
        let path = source.path.as_ref().clone();
        let canonical = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let source = Arc::new(source);
        let shape = file::read(&source, !open.is_empty(), self.problems);
        self.seen.push(canonical.clone());
        self.loaded.files.push(path.clone());
        self.loaded.rules.extend(shape.rules);
        if open.is_empty() {
            self.loaded.settings = shape.settings;
        }
        open.push((canonical, path));
        for (include, span) in shape.includes {
            if let Err(fault) = self.include(&include, &source, open) {
                self.problems.push(Problem::new(&source, span, fault));
            }
        }
        open.pop();
    }

    fn include(
        &mut self,
        include: &Path,
        from: &Source,
        open: &mut Vec<(PathBuf, PathBuf)>,
    ) -> Result<(), Fault> {
        let path = from.path.parent().unwrap_or(Path::new("")).join(include);
        let unreadable = |error: &str| Fault::Unreadable { path: path.clone(), error: error.into() };
        let canonical = fs::canonicalize(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => unreadable("no such file"),
            _ => unreadable(&error.to_string()),
        })?;
        if let Some(at) = open.iter().position(|(other, _)| *other == canonical) {
            let names = open[at..].iter().map(|(_, path)| path).chain([&path]);
            let chain: Vec<String> = names.map(|path| path.display().to_string()).collect();
            return Err(Fault::IncludeLoop(chain.join(" -> ")));
        }
        if self.seen.contains(&canonical) {
            return Ok(());
        }
        if self.seen.len() >= FILES_MAX {
            return Err(Fault::TooManyFiles(FILES_MAX));
        }
        // A pipe would block, a device never end.
        if !fs::metadata(&canonical).is_ok_and(|metadata| metadata.is_file()) {
            return Err(unreadable("it is no regular file"));
        }
        match Source::read(&path) {
            Ok(source) => {
                self.file(source, open);
                Ok(())
            }
            // Shown at the line that includes it, unless there is a line of its own to show.
            Err(problem) => match problem.location() {
                Some(_) => {
                    self.seen.push(canonical);
                    self.problems.push(*problem);
                    Ok(())
                }
                None => Err(problem.fault),
            },
        }
    }
}

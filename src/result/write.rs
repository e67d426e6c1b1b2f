//! A report, a bundle, and whatever else we write, into a file: whole or not at all.

use super::bundle::Bundle;
use super::schema::Report;
use super::{integers, pipe};
use crate::files::sweep;
use crate::sys::errno;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tempfile::NamedTempFile;

/// The folder for reports whose place nobody chose; the only one that is created when it is missing.
const DEFAULT_FOLDER: &str = "results";

/// The time in the form of `Report::started_at`: RFC 3339, UTC, milliseconds.
pub fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Where the report of a run goes if nobody said: `results/20261123T130240.123Z-what.json`.
///
/// `started_at` is the report's (RFC 3339, UTC); of `what`, everything but letters, digits, `.` and `_` becomes `-`.
pub fn default_path(started_at: &str, what: &str) -> PathBuf {
    let time: String = started_at.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c } else { '-' };
    let what: String = what.chars().map(keep).collect();
    Path::new(DEFAULT_FOLDER).join(format!("{time}-{what}.json"))
}

/// A file that is where it should be.
#[derive(Debug)]
#[must_use]
pub struct Written {
    pub path: PathBuf,
    /// Why nobody knows whether it would survive a power failure: the system refuses to synchronise files.
    pub unsynced: Option<io::Error>,
}

impl Written {
    /// What somebody should know about it, in a line.
    pub fn warning(&self) -> Option<String> {
        let error = self.unsynced.as_ref()?;
        Some(format!("warning: {} is written, but not synchronised with the disk: {error}", self.path.display()))
    }
}

/// Writes `report` to `path` as indented JSON: a temporary file beside it, synchronised, then renamed over it, so that
/// no reader ever sees a part. Pipes, terminals and devices are written directly.
///
/// # Errors
/// If it cannot be written; a file that was there before is then untouched. The error does not name `path`.
pub fn write_atomically(path: &Path, report: &Report) -> io::Result<Written> {
    json_atomically(path, &report.to_json())
}

/// Writes a bundle likewise.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_bundle_atomically(path: &Path, bundle: &Bundle) -> io::Result<Written> {
    json_atomically(path, &bundle.to_json())
}

/// Likewise to a name of our own choice: where there is a file already (another run of the same millisecond), to that
/// name with a number behind it. Says where it is.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_new(path: &Path, report: &Report) -> io::Result<Written> {
    new_json(path, &report.to_json())
}

/// Writes a bundle likewise; its default place is `default_path(started_at, "ab")`.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_new_bundle(path: &Path, bundle: &Bundle) -> io::Result<Written> {
    new_json(path, &bundle.to_json())
}

/// Writes the JSON of another file of ours (a search, the counters of a server) as [`write_atomically`] does.
///
/// # Errors
/// As [`write_atomically`]; and where a number in it is one that other programs cannot read exactly.
pub fn json_atomically(path: &Path, json: &str) -> io::Result<Written> {
    integers::check(json).map_err(io::Error::other)?;
    atomically(path, |to| to.write_all(json.as_bytes()))
}

/// Writes what `fill` writes, as [`write_atomically`] does.
///
/// # Errors
/// As [`write_atomically`].
pub fn atomically(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Written> {
    let unsynced = match Sink::of(path)? {
        Sink::Stream if is_pipe(path) => {
            let mut text = Vec::new();
            fill(&mut text)?;
            pipe::write(path, &text)?;
            None
        }
        Sink::Stream => {
            filled(open_stream(path)?, fill)?;
            None
        }
        Sink::File { file, folder } => {
            let temporary = temporary_in(&folder)?;
            filled(temporary.as_file(), fill)?;
            let unsynced = synchronised(temporary.as_file())?;
            temporary.persist(file).map_err(|failed| failed.error)?;
            keep_name(&folder);
            unsynced
        }
    };
    Ok(Written { path: path.to_owned(), unsynced })
}

/// Writes such JSON as [`write_new`] does.
///
/// # Errors
/// As [`json_atomically`].
pub fn new_json(path: &Path, json: &str) -> io::Result<Written> {
    integers::check(json).map_err(io::Error::other)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut temporary = temporary_in(folder)?;
    filled(temporary.as_file(), |to| to.write_all(json.as_bytes()))?;
    let unsynced = synchronised(temporary.as_file())?;
    let mut chosen = path.to_owned();
    for number in 2_u32.. {
        match temporary.persist_noclobber(&chosen) {
            Ok(_) => break,
            Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => temporary = failed.file,
            Err(failed) => return Err(failed.error),
        }
        chosen = path.with_extension(format!("{number}.json"));
    }
    keep_name(folder);
    Ok(Written { path: chosen, unsynced })
}

/// Checks that a report can be written to `path`, before a run that would be lost otherwise. Creates nothing that
/// stays, except the default folder.
///
/// # Errors
/// If [`write_atomically`] would fail now; a disk that fills up later is not foreseen.
pub fn probe(path: &Path) -> io::Result<()> {
    match Sink::of(path) {
        // Opening a pipe and closing it again would be the end of the file for whoever reads it.
        Ok(Sink::Stream) if is_pipe(path) => Ok(()),
        Ok(Sink::Stream) => open_stream(path).map(drop),
        Ok(Sink::File { folder, .. }) => temporary_in(&folder).map(drop),
        Err(cause) => Err(cause),
    }
}

/// How a path is written.
enum Sink {
    /// A pipe, a terminal, a device.
    Stream,
    File {
        file: PathBuf,
        folder: PathBuf,
    },
}

impl Sink {
    fn of(path: &Path) -> io::Result<Self> {
        // `/dev/stdout` may lead to a regular file, but that file belongs to whoever redirected our output.
        let kernel_made = path.starts_with("/dev") && !path.starts_with("/dev/shm") || path.starts_with("/proc");
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(io::Error::other("it is a folder, and a file name is needed")),
            Ok(found) if kernel_made || !found.is_file() => return Ok(Self::Stream),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = named_by(path)?;
        let Some(parent) = file.parent().filter(|_| file.file_name().is_some()) else {
            return Err(io::Error::other("this is not a file name"));
        };
        let folder = if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() };
        if folder == Path::new(DEFAULT_FOLDER) {
            fs::create_dir_all(&folder)?;
        } else if !folder.is_dir() {
            return Err(io::Error::other(format!("there is no folder {}", folder.display())));
        }
        Ok(Self::File { file, folder })
    }
}

/// Through symbolic links: the file that they name is written, whether it is there already or not, and they stay.
fn named_by(path: &Path) -> io::Result<PathBuf> {
    if let Ok(file) = fs::canonicalize(path) {
        return Ok(file);
    }
    let mut file = path.to_owned();
    // As many as the kernel follows.
    for _ in 0..40 {
        match fs::read_link(&file) {
            Ok(target) => file = file.parent().unwrap_or_else(|| Path::new("")).join(target),
            // It is no link: it is yet to be made.
            Err(_) => return Ok(file),
        }
    }
    Err(io::Error::other("too many symbolic links lead to one another"))
}

fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

fn open_stream(path: &Path) -> io::Result<File> {
    // Appending, because behind `/dev/stdout` there may be a file that others have written to.
    OpenOptions::new().append(true).open(path)
}

fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    sweep::sweep(folder);
    // 0666 less the umask, as any other new file; tempfile's own choice would be 0600.
    let permissions = Permissions::from_mode(0o666);
    let prefix = sweep::prefix();
    let mut builder = tempfile::Builder::new();
    let made = builder.prefix(&prefix).suffix(sweep::SUFFIX).permissions(permissions).tempfile_in(folder);
    // tempfile names the temporary file in its error; what people chose is the place.
    let made = made.map_err(|error| error.raw_os_error().map_or(error, io::Error::from_raw_os_error))?;
    sweep::hold(made.as_file());
    Ok(made)
}

fn filled(file: impl Write, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    fill(&mut file)?;
    file.flush()
}

/// Has the content survive a power failure. Where a sandbox or a file system knows no such thing, what is written is
/// written all the same, and that is told; a disk that fails or is full is an error.
fn synchronised(file: &File) -> io::Result<Option<io::Error>> {
    match file.sync_all() {
        Ok(()) => Ok(None),
        Err(error) if errno::is_refusal(&error) => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

/// The new name, too, should survive a crash.
fn keep_name(folder: &Path) {
    // Not every file system lets a folder be synchronised, and then there is nothing to be done: the file is there.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

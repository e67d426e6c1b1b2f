//! A report or a bundle into a file: whole or not at all.

use super::bundle::Bundle;
use super::pipe;
use super::schema::Report;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
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

/// Writes `report` to `path` as indented JSON: a temporary file beside it, synchronised, then renamed over it, so that
/// no reader ever sees a part. Pipes, terminals and devices are written directly.
///
/// # Errors
/// If it cannot be written; a file that was there before is then untouched. The error does not name `path`.
pub fn write_atomically(path: &Path, report: &Report) -> io::Result<()> {
    text_atomically(path, &report.to_json())
}

/// Writes a bundle likewise.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_bundle_atomically(path: &Path, bundle: &Bundle) -> io::Result<()> {
    text_atomically(path, &bundle.to_json())
}

/// Likewise to a name of our own choice: where there is a file already (another run of the same millisecond), to that
/// name with a number behind it. Says where it is.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_new(path: &Path, report: &Report) -> io::Result<PathBuf> {
    new_text(path, &report.to_json())
}

/// Writes a bundle likewise; its default place is `default_path(started_at, "ab")`.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_new_bundle(path: &Path, bundle: &Bundle) -> io::Result<PathBuf> {
    new_text(path, &bundle.to_json())
}

/// Writes the text of another file of ours (a search) as [`write_atomically`] does.
///
/// # Errors
/// As [`write_atomically`].
pub fn text_atomically(path: &Path, text: &str) -> io::Result<()> {
    match Place::of(path) {
        Ok(Place::Stream) if is_pipe(path) => pipe::write(path, text),
        Ok(Place::Stream) => open_stream(path).and_then(|mut stream| stream.write_all(text.as_bytes())),
        Ok(Place::File { file, folder }) => replace(&file, &folder, text),
        Err(cause) => Err(cause),
    }
}

/// Writes such a text as [`write_new`] does.
///
/// # Errors
/// As [`write_atomically`].
pub fn new_text(path: &Path, text: &str) -> io::Result<PathBuf> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut temporary = filled(folder, text)?;
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
    Ok(chosen)
}

/// Checks that a report can be written to `path`, before a run that would be lost otherwise. Creates nothing that
/// stays, except the default folder.
///
/// # Errors
/// If [`write_atomically`] would fail now; a disk that fills up later is not foreseen.
pub fn probe(path: &Path) -> io::Result<()> {
    match Place::of(path) {
        // Opening a pipe and closing it again would be the end of the file for whoever reads it.
        Ok(Place::Stream) if is_pipe(path) => Ok(()),
        Ok(Place::Stream) => open_stream(path).map(drop),
        Ok(Place::File { folder, .. }) => temporary_in(&folder).map(drop),
        Err(cause) => Err(cause),
    }
}

/// How a path is written.
enum Place {
    /// A pipe, a terminal, a device.
    Stream,
    File {
        file: PathBuf,
        folder: PathBuf,
    },
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        // `/dev/stdout` may lead to a regular file, but that file belongs to whoever redirected our output.
        let kernel_made = path.starts_with("/dev") && !path.starts_with("/dev/shm") || path.starts_with("/proc");
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(io::Error::other("it is a folder, and a file name is needed")),
            Ok(found) if kernel_made || !found.is_file() => return Ok(Self::Stream),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Through a symbolic link: the file that it names is replaced, not the link.
        let file = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
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

fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

fn open_stream(path: &Path) -> io::Result<File> {
    // Appending, because behind `/dev/stdout` there may be a file that others have written to.
    OpenOptions::new().append(true).open(path)
}

fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    // 0666 less the umask, as any other new file; tempfile's own choice would be 0600.
    let permissions = Permissions::from_mode(0o666);
    let made = tempfile::Builder::new().prefix(".loadgen-").suffix(".tmp").permissions(permissions).tempfile_in(folder);
    // tempfile names the temporary file in its error; what people chose is the place.
    made.map_err(|error| error.raw_os_error().map_or(error, io::Error::from_raw_os_error))
}

/// A temporary file with this content, safe on the disk.
fn filled(folder: &Path, text: &str) -> io::Result<NamedTempFile> {
    let mut temporary = temporary_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

fn replace(file: &Path, folder: &Path, text: &str) -> io::Result<()> {
    filled(folder, text)?.persist(file).map_err(|failed| failed.error)?;
    keep_name(folder);
    Ok(())
}

/// The new name, too, should survive a crash; not every file system lets a folder be synchronised.
fn keep_name(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

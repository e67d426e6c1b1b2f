//! What somebody names to be read: within a bound of size, and of time where a pipe has nobody at its other end.

use crate::encoding;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Certificates and keys: the issuers that a system trusts are some 200 KiB.
pub const PEM_MAX: u64 = 16 << 20;
/// Bodies of requests, and traces of service times.
pub const DATA_MAX: u64 = 64 << 20;

/// A pipe is given up when nobody has begun to write to it for so long,
const NOBODY: Duration = Duration::from_secs(10);
/// and when somebody is there, and nothing has come for so long.
const SILENCE: Duration = Duration::from_secs(60);
/// How often it is looked at.
const PIPE_NAP: Duration = Duration::from_millis(5);

/// The bytes of the file `path`, as they are: `most` at most. Pipes (`<(…)`) are read, too.
///
/// # Errors
/// One line that names the file, and the limit where there is more.
pub fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let content = content(path, most).map_err(|error| format!("cannot read {shown}: {error}"))?;
    if content.len() as u64 > most {
        return Err(format!("{shown} is longer than {} MiB, the limit for such a file", most >> 20));
    }
    Ok(content)
}

/// Likewise of a file whose content is text, but need not be UTF-8 throughout.
///
/// # Errors
/// As [`bytes`]; and where it is UTF-16.
pub fn text_bytes(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let content = bytes(path, most)?;
    let rest = encoding::without_mark(&content).map_err(|why| format!("{}: {why}", path.display()))?.len();
    Ok(behind(content, rest))
}

/// Likewise of a file that has to be UTF-8.
///
/// # Errors
/// As [`bytes`]; and the line where it is not UTF-8.
pub fn text(path: &Path, most: u64) -> Result<String, String> {
    let content = bytes(path, most)?;
    let shown = path.display();
    encoding::text(&content).map(str::to_owned).map_err(|why| {
        let between = if why.starts_with("line") { "," } else { ":" };
        format!("{shown}{between} {why}")
    })
}

/// The last `rest` bytes.
fn behind(mut content: Vec<u8>, rest: usize) -> Vec<u8> {
    content.drain(..content.len() - rest);
    content
}

/// Up to one byte more than `most`.
///
/// # Errors
/// Those of reading, without the file's name.
pub fn content(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(io::Error::other("it is a folder, not a file"));
    }
    if found.file_type().is_fifo() {
        return piped(path, most);
    }
    let mut content = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// A pipe that nobody writes to would be waited for without end, deaf to everything.
fn piped(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut pipe = OpenOptions::new().read(true).custom_flags(crate::sys::NOT_BLOCKING).open(path)?;
    let (mut content, mut last) = (Vec::new(), Instant::now());
    let mut piece = vec![0; 64 << 10];
    while content.len() as u64 <= most {
        let patience = match pipe.read(&mut piece) {
            // The end; or nobody has opened its other end yet.
            Ok(0) if !content.is_empty() => break,
            Ok(count) if count > 0 => {
                content.extend_from_slice(&piece[..count]);
                last = Instant::now();
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(_) => SILENCE,
            Ok(_) => NOBODY,
        };
        if last.elapsed() > patience {
            let silent = format!("it is a pipe, and nothing has come out of it for {} s", patience.as_secs());
            return Err(io::Error::new(ErrorKind::TimedOut, silent));
        }
        std::thread::sleep(PIPE_NAP);
    }
    content.truncate(most as usize + 1);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    #[cfg_attr(miri, ignore = "touches files")]
    fn what_never_ends_is_read_up_to_the_limit() {
        let why = bytes(Path::new("/dev/zero"), 2 << 20).unwrap_err();
        assert_eq!(why, "/dev/zero is longer than 2 MiB, the limit for such a file");
        assert_eq!(bytes(Path::new("/dev/null"), 1).unwrap(), b"");
        assert!(bytes(Path::new("/"), 1).unwrap_err().contains("it is a folder"));
        assert!(bytes(Path::new("/nowhere/file"), 1).unwrap_err().contains("No such file"));
    }

    #[test]
    #[cfg_attr(miri, ignore = "starts a program")]
    fn a_pipe_is_read_to_its_end_and_not_beyond_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let write = |what: &str| {
            let script = format!("{what} >'{}'", pipe.display());
            Command::new("sh").args(["-c", &script]).stderr(std::process::Stdio::null()).spawn().unwrap()
        };
        let mut writer = write("sleep 0.05; printf 'a\nb'");
        assert_eq!(bytes(&pipe, 100).unwrap(), b"a\nb");
        writer.wait().unwrap();
        let mut writer = write("yes");
        assert!(bytes(&pipe, 1 << 20).unwrap_err().contains("longer than 1 MiB"));
        writer.wait().unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "touches files")]
    fn texts_lose_their_mark() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("text");
        fs::write(&file, b"\xef\xbb\xbfone\r\n").unwrap();
        assert_eq!((text(&file, 99).unwrap(), text_bytes(&file, 99).unwrap()), ("one\r\n".into(), b"one\r\n".to_vec()));
        fs::write(&file, b"\xff\xfeo\0").unwrap();
        assert!(text(&file, 99).unwrap_err().contains("UTF-16"));
        fs::write(&file, b"a\n\xff").unwrap();
        assert!(text(&file, 99).unwrap_err().ends_with("text, line 2: the text is not UTF-8"));
    }
}

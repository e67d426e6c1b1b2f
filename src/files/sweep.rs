//! Temporary files that killed processes left behind: the next one that writes into their folder takes them away, where
//! they are old and nobody's.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

pub(crate) const SUFFIX: &str = ".tmp";
const PREFIX: &str = ".loadgen-";

/// What is younger may belong to a process that has made it and not yet locked it; writing takes seconds.
const OLD: Duration = Duration::from_secs(600);

/// How the temporary files of this process begin.
pub(crate) fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Marks a temporary file as somebody's, for as long as it is open. The kernel forgets that when the process ends,
/// however it ends.
pub(crate) fn hold(file: &File) {
    // Not every file system has locks; there, nobody takes files away either.
    let _ = file.try_lock();
}

/// Removes what is left over in `folder`. Whatever cannot be looked at or removed stays: this is a courtesy, and no
/// reason to fail.
pub(crate) fn sweep(folder: &Path) {
    // A folder that cannot be read is left alone.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if ours && is_nobodys(&entry.path()) {
            // Somebody else may have been faster, or the folder is not ours.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// An old regular file, which no process holds.
fn is_nobodys(path: &Path) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    // Of unknown age, or from the future: it is not old.
    let age = found.modified().ok().and_then(|then| then.elapsed().ok());
    found.is_file() && age.is_some_and(|age| age > OLD) && File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    #[cfg_attr(miri, ignore = "touches files")]
    fn only_what_is_old_and_nobodys_goes() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, age: Duration| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            file
        };
        let day = Duration::from_secs(86_400);
        drop(make(".loadgen-1-abc.tmp", day));
        drop(make(".loadgen-abc.tmp", day));
        drop(make(".loadgen-1-new.tmp", Duration::ZERO));
        drop(make("report.tmp", day));
        drop(make(".loadgen-notes", day));
        let held = make(".loadgen-1-held.tmp", day);
        hold(&held);
        fs::create_dir(folder.path().join(".loadgen-folder.tmp")).unwrap();
        sweep(folder.path());
        let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<String> = left.collect();
        left.sort();
        assert_eq!(
            left,
            [".loadgen-1-held.tmp", ".loadgen-1-new.tmp", ".loadgen-folder.tmp", ".loadgen-notes", "report.tmp"]
        );
        drop(held);
        sweep(folder.path());
        assert!(!folder.path().join(".loadgen-1-held.tmp").exists());
    }
}

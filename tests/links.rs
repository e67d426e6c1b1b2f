//! Where a report is written whose name is a symbolic link.

use loadgen_core::result::{Report, read, write};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn sample() -> Report {
    read::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/result-1.json")).unwrap()
}

#[test]
fn a_link_stays_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("file.json"), folder.path().join("link.json"));
    fs::write(&file, "old").unwrap();
    symlink(&file, &link).unwrap();
    // Twice: what it leads to, and where there is nothing yet.
    for _ in 0..2 {
        write::probe(&link).unwrap();
        assert_eq!(write::write_atomically(&link, &sample()).unwrap().path, link);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read::read(&file).unwrap(), sample());
        fs::remove_file(&file).unwrap();
    }
    // Over several, relative ones; and round in a circle.
    let (second, circle) = (folder.path().join("second.json"), folder.path().join("circle.json"));
    symlink("link.json", &second).unwrap();
    _ = write::write_atomically(&second, &sample()).unwrap();
    assert!(file.is_file() && [&link, &second].iter().all(|link| fs::symlink_metadata(link).unwrap().is_symlink()));
    symlink("circle.json", &circle).unwrap();
    assert!(
        write::write_atomically(&circle, &sample()).is_err() && fs::symlink_metadata(&circle).unwrap().is_symlink()
    );
}

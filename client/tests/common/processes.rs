//! The processes of this machine, by `/proc` (proc(5)).

use std::collections::HashSet;

/// A process. Its id may be given to another one later, but not with the same beginning.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) name: String,
    parent: u32,
    /// In ticks since the machine started.
    began: u64,
}

impl Process {
    /// `None`: there is none of that id, or it has ended and only waits to be asked how.
    fn read(id: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (head, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        if ["Z", "X"].contains(&fields[0]) {
            return None;
        }
        let name = head.split_once('(')?.1.to_owned();
        Some(Self { id, name, parent: fields[1].parse().ok()?, began: fields[19].parse().ok()? })
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::read(self.id).is_some_and(|now| now.began == self.began)
    }
}

/// All that `ancestor` started, and what that started.
pub(crate) fn descendants(ancestor: u32) -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<Process> = ids.filter_map(Process::read).collect();
    let (mut family, mut known) = (Vec::new(), HashSet::from([ancestor]));
    loop {
        let more: Vec<&Process> =
            all.iter().filter(|one| known.contains(&one.parent) && !known.contains(&one.id)).collect();
        if more.is_empty() {
            return family;
        }
        known.extend(more.iter().map(|one| one.id));
        family.extend(more.into_iter().cloned());
    }
}

//! The functions of `linux.rs` for other systems, macOS among them. `docs/operations.md` lists the
//! differences.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// Does nothing: the system chooses the size.
pub(super) fn resize_pipe(_pipe: impl AsFd, _bytes: usize) {}

/// The path from which this binary was started. None if the system does not provide it.
pub(super) fn own_program() -> Option<PathBuf> {
    std::env::current_exe().ok()
}

/// Does nothing: the child sees the end of its stdin when the daemon is killed.
pub(super) fn die_with_parent() -> io::Result<()> {
    Ok(())
}

/// None: containers, where the daemon can be process 1, run Linux.
pub(super) fn ended_children() -> io::Result<BTreeSet<i32>> {
    Ok(BTreeSet::new())
}

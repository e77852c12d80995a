//! The resource limits of this process (open files, processes), and the number of leases that they allow.
//!
//! The soft limit of open files is 1,024 in most shells and under systemd, which is enough for 200 shards. It
//! is raised up to the hard limit, as a JVM does. Record processors run with the original limit; where the
//! launcher cannot restore it, it is not raised.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that the daemon needs regardless of its leases: connections to DynamoDB and CloudWatch, the
/// status page, the runtime.
const RESERVED_FILES: u64 = 64;
/// Open files for each shard: three pipes to the child, a handle of its process, a connection to Kinesis.
const FILES_PER_SHARD: u64 = 5;
/// Open files that each further application of the process needs: its own connections.
const FILES_PER_APPLICATION: u64 = 16;
/// Processes and threads of the daemon itself, and some that record processors start for a short time.
const RESERVED_PROCESSES: u64 = 16;
/// A higher limit of open files has no use, and some systems have no hard limit.
const MOST_FILES: u64 = 1 << 20;

/// The limits of this process, after [`Limits::raise`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_NOFILE` before it was raised, for record processors; none if it was not raised.
    pub original_files: Option<u64>,
    /// `RLIMIT_NOFILE` now: most open files at a time.
    pub files: u64,
    /// Most processes and threads of this user or this control group; none if unlimited. The number of other
    /// processes changes at any time, so a shortage is only noticed when it occurs.
    pub processes: Option<u64>,
}

impl Limits {
    /// The limits as they are.
    pub fn current() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(MOST_FILES);
        Self { original_files: None, files, processes: most_processes() }
    }

    /// Raises the soft limit of open files to the hard one, or as far as the system permits.
    pub fn raise() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let (soft, hard) = (limit.current.unwrap_or(MOST_FILES), limit.maximum.unwrap_or(MOST_FILES));
        let wanted = hard.min(MOST_FILES.max(soft));
        let set =
            |files| setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum });
        let raised = attempts(soft, wanted).any(|files| set(files).is_ok());
        let now = Self::current();
        // macOS may reduce the value without an error.
        let files = if raised { now.files } else { soft };
        Self { original_files: raised.then_some(soft), files, ..now }
    }

    /// The limits that [`Limits::raise`] would set. Leaves them unchanged.
    pub fn look() -> Self {
        let limit = getrlimit(Resource::Nofile);
        if cfg!(target_os = "linux") {
            let hard = limit.maximum.unwrap_or(MOST_FILES).min(MOST_FILES);
            return Self { original_files: limit.current, files: hard, processes: most_processes() };
        }
        // Which values the system permits shows only in an attempt.
        let raised = Self::raise();
        let _unchanged = setrlimit(Resource::Nofile, limit).is_err();
        raised
    }

    /// The number of leases that the limits allow to all applications of the process together, at least 1.
    pub fn leases(&self, applications: usize) -> usize {
        let further = u64::try_from(applications.saturating_sub(1)).unwrap_or(u64::MAX);
        let reserved = RESERVED_FILES.saturating_add(further.saturating_mul(FILES_PER_APPLICATION));
        let files = self.files.saturating_sub(reserved) / FILES_PER_SHARD;
        let processes = self.processes.map_or(u64::MAX, |free| free.saturating_sub(RESERVED_PROCESSES));
        usize::try_from(files.min(processes).max(1)).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} open files", self.files)?;
        if let Some(before) = self.original_files.filter(|before| *before < self.files) {
            write!(f, " (raised from the soft limit of {before})")?;
        }
        if let Some(processes) = self.processes {
            write!(f, ", {processes} processes and threads")?;
        }
        Ok(())
    }
}

/// Values to try for the soft limit, from the highest. Linux permits every value up to the hard limit; macOS
/// has no hard limit by default but rejects values above `kern.maxfilesperproc`.
fn attempts(soft: u64, wanted: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(wanted), |files| Some(files / 2)).take_while(move |files| *files > soft)
}

/// The lower of the user's limit and the control group's.
fn most_processes() -> Option<u64> {
    let of_user = getrlimit(Resource::Nproc).current.filter(|_| !rustix::process::geteuid().is_root());
    of_user.into_iter().chain(most_in_group()).min()
}

/// `pids.max` of this process's control group (version 2). None on other systems than Linux.
fn most_in_group() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = std::path::Path::new("/sys/fs/cgroup").join(path).join("pids.max");
    // "max" means no limit and does not parse.
    std::fs::read_to_string(limit).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(files: u64, processes: Option<u64>) -> usize {
        Limits { original_files: None, files, processes }.leases(1)
    }

    #[test]
    fn lower_limits_are_tried_where_the_highest_is_refused() {
        assert_eq!(attempts(256, 1_024).collect::<Vec<_>>(), [1_024, 512]);
        assert_eq!(attempts(1_024, 1_024).count(), 0);
        assert_eq!(attempts(0, 3).collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn leases_are_bounded_by_the_scarcest_limit() {
        assert_eq!(limits(1_024, None), 192);
        assert_eq!(limits(1_024, Some(116)), 100);
        assert_eq!(limits(20_000, None), 3_987);
        assert_eq!(limits(20, Some(3)), 1, "at least one is tried");
        let several = Limits { original_files: None, files: 1_024, processes: None }.leases(11);
        assert_eq!(several, 160, "each further application has connections");
    }
}

//! What the kernel says of a process: its CPU time, its memory.

use std::{collections::BTreeMap, fs, time::Duration};

/// The resident memory of this process in bytes; `None` where there is no `/proc`.
#[must_use]
pub fn resident() -> Option<u64> {
    // `/proc/self/statm`: pages in all, pages resident.
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The CPU time of this process.
#[must_use]
pub fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The CPU time of processes and of all that they started, as the kernel counts it (in steps of 10 ms).
#[derive(Clone, Debug, Default)]
pub struct CpuTimes(BTreeMap<u32, Duration>);

impl CpuTimes {
    /// Of `roots` and their descendants now; a sentence when one of `roots` does not exist.
    pub fn of(roots: &[u32]) -> Result<Self, String> {
        let mut all: BTreeMap<u32, Stat> = BTreeMap::new();
        let processes = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
        for entry in processes.flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // A process may end between the listing and the reading.
            let stat = fs::read_to_string(entry.path().join("stat")).ok();
            if let Some(stat) = stat.as_deref().and_then(parse_stat) {
                all.insert(pid, stat);
            }
        }
        if let Some(missing) = roots.iter().find(|pid| !all.contains_key(*pid)) {
            return Err(format!(
                "there is no process {missing} here; --pid takes the number of a process on this machine"
            ));
        }
        let belongs = |mut pid: u32| {
            // A chain of parents is never longer than the list: a loop cannot be.
            for _ in 0..all.len() {
                if roots.contains(&pid) {
                    return true;
                }
                match all.get(&pid) {
                    Some(stat) if stat.parent != 0 => pid = stat.parent,
                    _ => return false,
                }
            }
            false
        };
        let ours = all.iter().filter(|(pid, _)| belongs(**pid));
        Ok(Self(ours.map(|(pid, stat)| (*pid, stat.cpu)).collect()))
    }

    /// What was used between `before` and this.
    #[must_use]
    pub fn since(&self, before: &Self) -> Duration {
        let used = self.0.iter().map(|(pid, cpu)| {
            let earlier = before.0.get(pid).copied().unwrap_or_default();
            cpu.saturating_sub(earlier)
        });
        used.sum()
    }
}

#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    cpu: Duration,
}

/// `/proc/PID/stat`: the name in parentheses may hold spaces and parentheses itself.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let each = rustix::param::clock_ticks_per_second().max(1);
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        cpu: Duration::from_nanos(ticks * (1_000_000_000 / each)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_spaces_and_parentheses_is_no_trap() {
        let line = "17 (a) b (c)) S 4 17 17 0 -1 4194560 1 0 0 0 250 50 3 4 20 0 1 0 5 6 7";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.parent, stat.cpu), (4, Duration::from_secs(3)));
        assert_eq!(parse_stat("17 (x"), None);
        assert_eq!(parse_stat("17 (x) S 4"), None);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let me = std::process::id();
        let before = CpuTimes::of(&[me]).unwrap();
        let own = own_cpu();
        let mut x = 1_u64;
        while own_cpu() - own < Duration::from_millis(60) {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        let used = CpuTimes::of(&[me]).unwrap().since(&before);
        assert!(used >= Duration::from_millis(40), "{used:?}");
        assert!(resident() > Some(1 << 20));
        assert!(
            CpuTimes::of(&[u32::MAX])
                .unwrap_err()
                .contains("no process")
        );
    }
}

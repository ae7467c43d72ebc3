//! How many CPUs this process may use: the cgroup's quota, not the host's cores.
//!
//! Inputs: `/proc/self/cgroup`, `/proc/self/mountinfo` and the quota files they lead to (v1 and v2;
//! the tightest limit on the way from our group up to the mount's root counts). Output: a count,
//! rounded up, at least 1, never above the machine's parallelism. Pure but for the reader passed in.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

/// The CPUs this process may use now.
#[must_use]
pub fn available() -> NonZeroUsize {
    let machine = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    quota(&read).map_or(machine, |cpus| rounded_up(cpus).min(machine))
}

fn rounded_up(cpus: f64) -> NonZeroUsize {
    // A quota of 2.001 is two CPUs with somebody's rounding, not three.
    let whole = (cpus - 0.01).ceil().max(1.0);
    NonZeroUsize::new(whole as usize).unwrap_or(NonZeroUsize::MIN)
}

/// The quota in CPUs, `None` when there is none. `read` gives a file's content.
pub fn quota(read: &dyn Fn(&Path) -> Option<String>) -> Option<f64> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let v1 = v1_group(&groups)
        .and_then(|group| directories(&mounts, Hierarchy::V1Cpu, group))
        .and_then(|dirs| tightest(&dirs, &|dir| v1_limit(read, dir)));
    let v2 = v2_group(&groups)
        .and_then(|group| directories(&mounts, Hierarchy::V2, group))
        .and_then(|dirs| tightest(&dirs, &|dir| v2_limit(read, dir)));
    match (v1, v2) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn tightest(dirs: &[PathBuf], limit: &dyn Fn(&Path) -> Option<f64>) -> Option<f64> {
    dirs.iter().filter_map(|dir| limit(dir)).reduce(f64::min)
}

/// `0::/kubepods/pod1/abc`
fn v2_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// `4:cpu,cpuacct:/kubepods/pod1/abc`
fn v1_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let controllers = fields.nth(1)?;
        controllers
            .split(',')
            .any(|c| c == "cpu")
            .then(|| fields.next())?
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Hierarchy {
    V1Cpu,
    V2,
}

/// Our group's directory and its parents up to the mount point, deepest first.
fn directories(mounts: &str, hierarchy: Hierarchy, group: &str) -> Option<Vec<PathBuf>> {
    mounts.lines().find_map(|line| {
        // 36 35 98:0 /root /mount/point rw,noatime shared:1 - cgroup2 cgroup2 rw,cpu
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let kind = right.next()?;
        let is_ours = match hierarchy {
            Hierarchy::V2 => kind == "cgroup2",
            Hierarchy::V1Cpu => {
                kind == "cgroup" && right.nth(1)?.split(',').any(|option| option == "cpu")
            }
        };
        if !is_ours {
            return None;
        }
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, Path::new(left.next()?));
        // Without a cgroup namespace the path starts with the mount's root; what lies outside the
        // mount cannot be read, and the mount point itself is then our group.
        let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
        let below: PathBuf = below.components().filter(is_normal).collect();
        let deepest = point.join(below);
        Some(
            deepest
                .ancestors()
                .take_while(|dir| dir.starts_with(point))
                .map(Path::to_path_buf)
                .collect(),
        )
    })
}

fn is_normal(component: &std::path::Component<'_>) -> bool {
    matches!(component, std::path::Component::Normal(_))
}

/// `cpu.max`: `150000 100000`, or `max 100000`.
fn v2_limit(read: &dyn Fn(&Path) -> Option<String>, dir: &Path) -> Option<f64> {
    let text = read(&dir.join("cpu.max"))?;
    let mut fields = text.split_whitespace();
    let quota: f64 = fields.next()?.parse().ok()?;
    let period: f64 = fields.next().map_or(Some(100_000.0), |p| p.parse().ok())?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// `cpu.cfs_quota_us`: `150000`, or `-1`.
fn v1_limit(read: &dyn Fn(&Path) -> Option<String>, dir: &Path) -> Option<f64> {
    let quota: f64 = read(&dir.join("cpu.cfs_quota_us"))?.trim().parse().ok()?;
    let period: f64 = read(&dir.join("cpu.cfs_period_us"))?.trim().parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2_NAMESPACED: &str = "1204 1180 0:31 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n";
    const V1: &str = "\
1000 999 0:50 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755
1001 1000 0:29 /kubepods/burstable/pod77/abc /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset
1002 1000 0:30 /kubepods/burstable/pod77/abc /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct
";
    const V1_GROUPS: &str = "11:cpuset:/kubepods/burstable/pod77/abc\n4:cpu,cpuacct:/kubepods/burstable/pod77/abc\n1:name=systemd:/x\n";

    fn cpus(files: &[(&str, &str)]) -> Option<f64> {
        quota(&|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, content)| (*content).to_owned())
        })
    }

    #[test]
    fn a_v2_container_reads_its_own_quota() {
        let files = [
            ("/proc/self/cgroup", "0::/\n"),
            ("/proc/self/mountinfo", V2_NAMESPACED),
            ("/sys/fs/cgroup/cpu.max", "150000 100000\n"),
        ];
        assert_eq!(cpus(&files), Some(1.5));
    }

    #[test]
    fn a_v2_group_without_a_limit_has_none() {
        let files = [
            ("/proc/self/cgroup", "0::/\n"),
            ("/proc/self/mountinfo", V2_NAMESPACED),
            ("/sys/fs/cgroup/cpu.max", "max 100000\n"),
        ];
        assert_eq!(cpus(&files), None);
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let files = [
            (
                "/proc/self/cgroup",
                "0::/kubepods.slice/pod1.slice/abc.scope\n",
            ),
            ("/proc/self/mountinfo", V2_NAMESPACED),
            (
                "/sys/fs/cgroup/kubepods.slice/pod1.slice/abc.scope/cpu.max",
                "max 100000",
            ),
            (
                "/sys/fs/cgroup/kubepods.slice/pod1.slice/cpu.max",
                "200000 100000",
            ),
            ("/sys/fs/cgroup/kubepods.slice/cpu.max", "800000 100000"),
        ];
        assert_eq!(cpus(&files), Some(2.0));
    }

    #[test]
    fn a_path_outside_the_namespace_falls_back_to_the_mount_point() {
        let files = [
            ("/proc/self/cgroup", "0::/../../other\n"),
            ("/proc/self/mountinfo", V2_NAMESPACED),
            ("/sys/fs/cgroup/cpu.max", "50000 100000"),
        ];
        assert_eq!(cpus(&files), Some(0.5));
    }

    #[test]
    fn a_v1_container_reads_the_cpu_hierarchy() {
        let files = [
            ("/proc/self/cgroup", V1_GROUPS),
            ("/proc/self/mountinfo", V1),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(cpus(&files), Some(2.5));
    }

    #[test]
    fn a_v1_group_without_a_limit_has_none() {
        let files = [
            ("/proc/self/cgroup", V1_GROUPS),
            ("/proc/self/mountinfo", V1),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(cpus(&files), None);
    }

    #[test]
    fn garbage_is_no_limit() {
        assert_eq!(cpus(&[]), None);
        let files = [
            ("/proc/self/cgroup", "nonsense\n\n::\n"),
            ("/proc/self/mountinfo", "a b - \n - cgroup2\n"),
        ];
        assert_eq!(cpus(&files), None);
    }

    #[test]
    fn parts_of_a_cpu_are_rounded_up_and_one_is_the_least() {
        for (quota, sessions) in [
            (0.1, 1),
            (1.0, 1),
            (1.5, 2),
            (2.001, 2),
            (2.5, 3),
            (16.0, 16),
        ] {
            assert_eq!(rounded_up(quota).get(), sessions, "{quota}");
        }
    }
}

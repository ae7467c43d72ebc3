//! What the process itself takes, read at each look at the metrics, and what it is.

use prometheus_client::{
    metrics::{gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};
use rustix::time::{ClockId, clock_gettime};

use super::families::SecondsCounter;

/// Of the whole process.
#[derive(Default)]
pub(super) struct Process {
    memory: Gauge,
    cpu: SecondsCounter,
    files: Gauge,
}

impl Process {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "build",
            "What runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register_with_unit(
            "resident_memory",
            "Memory of the process",
            Unit::Bytes,
            self.memory.clone(),
        );
        registry.register_with_unit(
            "cpu",
            "Processor time of the process",
            Unit::Seconds,
            self.cpu.clone(),
        );
        registry.register(
            "open_files",
            "File descriptors that the process holds, connections among them",
            self.files.clone(),
        );
    }

    /// What cannot be read keeps its last value.
    pub(super) fn observe(&self) {
        if let Some(bytes) = resident_bytes() {
            self.memory.set(bytes);
        }
        set(&self.cpu, cpu_seconds());
        if let Some(files) = open_files() {
            self.files.set(files);
        }
    }
}

/// The counter stands where the kernel's does.
fn set(counter: &SecondsCounter, seconds: f64) {
    let bits = counter.inner();
    bits.store(seconds.to_bits(), std::sync::atomic::Ordering::Relaxed);
}

/// User and system time of all threads.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// `/proc/self/statm`: pages in all, pages resident.
fn resident_bytes() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * i64::try_from(rustix::param::page_size()).ok()?)
}

fn open_files() -> Option<i64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them is the directory that is being read.
    i64::try_from(entries.count().saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_and_spent_time_are_seen() {
        let process = Process::default();
        let files = || {
            process.observe();
            process.files.get()
        };
        let many: Vec<_> = (0..100)
            .map(|_| std::fs::File::open("/proc/self/statm").unwrap())
            .collect();
        // Other tests open and close files, too, but not a hundred.
        let with = files();
        drop(many);
        assert!(files() <= with - 50, "{with}");
        let before = process.cpu.get();
        let mut sum = 0_u64;
        while cpu_seconds() < before + 0.01 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        process.observe();
        assert!(process.cpu.get() >= before + 0.01);
        assert!(process.memory.get() > 1 << 20);
    }
}

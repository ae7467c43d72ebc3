//! What the process itself takes, read at each look at the metrics, and what it is.

use prometheus_client::{
    metrics::{gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::families::SecondsCounter;
use crate::process::{own_cpu, resident};

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
        if let Some(bytes) = resident().and_then(|bytes| i64::try_from(bytes).ok()) {
            self.memory.set(bytes);
        }
        set(&self.cpu, own_cpu().as_secs_f64());
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
        while own_cpu().as_secs_f64() < before + 0.01 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        process.observe();
        assert!(process.cpu.get() >= before + 0.01);
        assert!(process.memory.get() > 1 << 20);
    }
}

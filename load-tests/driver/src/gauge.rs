//! What is read off a process: processor time, private memory; and what is made of several readings.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::ClockId;
use nix::unistd::Pid;

/// Processor time of a process since it started, all its threads, living and ended, user and system, in nanoseconds.
pub fn cpu(pid: i32) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid))
        .with_context(|| format!("no processor clock for process {pid}"))?;
    Ok(clock.now().with_context(|| format!("process {pid} has ended"))?.into())
}

/// Processor time of several processes.
pub fn cpu_of(pids: &[i32]) -> Result<Duration> {
    pids.iter().map(|pid| cpu(*pid)).sum()
}

/// Processor time of the driver itself.
pub fn own_cpu() -> Result<Duration> {
    Ok(ClockId::CLOCK_PROCESS_CPUTIME_ID.now()?.into())
}

/// Bytes of memory that are this process's alone and written to: `Private_Dirty` of `/proc/PID/smaps_rollup`.
pub fn private_dirty(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    kib_after(&text, "Private_Dirty:").with_context(|| format!("no Private_Dirty in {path}"))
}

fn kib_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// Bytes of anonymous memory: `RssAnon` of `/proc/PID/status`. Reading it is cheap for the process read, unlike its
/// memory map, so that it can be done while latencies are taken.
pub fn anonymous(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    kib_after(&text, "RssAnon:").with_context(|| format!("no RssAnon in {path}"))
}

/// Memory of the whole machine, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// What the kernel keeps its own objects in: sockets, files, readiness sets.
    pub slab: u64,
    /// What nobody uses.
    pub free: u64,
}

/// Reads `/proc/meminfo`. Other work of the machine is in it.
pub fn machine() -> Result<Machine> {
    let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let bytes =
        |name| kib_after(&text, name).with_context(|| format!("no {name} in /proc/meminfo"));
    Ok(Machine { slab: bytes("Slab:")?, free: bytes("MemFree:")? })
}

/// Private memory once it holds still: two readings half a second apart that differ by less than a page, or the last
/// one when `patience` is over. Ends early, too, once `enough` is satisfied.
pub fn settled(pid: i32, patience: Duration, enough: impl Fn(u64) -> bool) -> Result<u64> {
    let pause = Duration::from_millis(500);
    let mut before = private_dirty(pid)?;
    let mut waited = Duration::ZERO;
    loop {
        std::thread::sleep(pause);
        waited += pause;
        let now = private_dirty(pid)?;
        let still = now.abs_diff(before) < 4_096 && waited >= 3 * pause;
        if (still && enough(now)) || waited >= patience {
            return Ok(now);
        }
        before = now;
    }
}

/// The middle one; the mean of the two middle ones of an even number. Zero for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (0, Some(low), Some(high)) => f64::midpoint(*low, *high),
        (_, _, Some(value)) => *value,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_any_order() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn private_memory_is_read_in_bytes() {
        let rollup =
            "5581 ---p 00000000 00:00 0 [rollup]\nRss:  900 kB\nPrivate_Dirty:       128 kB\n";
        assert_eq!(kib_after(rollup, "Private_Dirty:"), Some(131_072));
        assert!(private_dirty(std::process::id().cast_signed()).unwrap() > 0);
    }

    #[test]
    fn the_processor_clock_of_a_process_moves() {
        let pid = std::process::id().cast_signed();
        let before = cpu(pid).unwrap();
        let mut sum = 0_u64;
        while own_cpu().unwrap() < before + Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(cpu(pid).unwrap() > before);
    }
}

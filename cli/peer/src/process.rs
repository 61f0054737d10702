//! What the system says of this process, under the names that client libraries of Prometheus agree on.
//!
//! Read from `/proc` when somebody asks; what cannot be read is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;
use rlimit::Resource;

/// Ticks in a second: `USER_HZ`, which is the same on all machines that this program is built for.
const TICKS: f64 = 100.0;

/// Reads the numbers of this process.
#[derive(Debug, Default)]
pub(crate) struct ProcessGauges;

impl Collector for ProcessGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (stat, boot) = (Stat::parse(&read("/proc/self/stat")), boot_time(&read("/proc/stat")));
        if let Some(Stat { cpu, threads, started, virtual_memory }) = stat {
            let kind = MetricType::Counter;
            show(&mut encoder, "process_cpu_seconds_total", "CPU time spent, in seconds.", kind, &(cpu / TICKS))?;
            gauge(&mut encoder, "process_threads", "Number of threads.", &threads)?;
            let help = "Virtual memory size in bytes.";
            gauge(&mut encoder, "process_virtual_memory_bytes", help, &virtual_memory)?;
            if let Some(boot) = boot {
                let help = "Start time since the Unix epoch in seconds.";
                gauge(&mut encoder, "process_start_time_seconds", help, &(boot + started / TICKS))?;
            }
        }
        if let Some(resident) = resident_memory(&read("/proc/self/status")) {
            gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory size in bytes.", &resident)?;
        }
        // As many as the limit below, at most. One is that of the reading itself.
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let open = open.count().saturating_sub(1) as u64;
            gauge(&mut encoder, "process_open_fds", "Number of open file descriptors.", &open)?;
        }
        if let Ok((soft, _hard)) = Resource::NOFILE.get() {
            gauge(&mut encoder, "process_max_fds", "Maximum number of open file descriptors.", &soft)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: &impl EncodeGaugeValue) -> fmt::Result {
    show(encoder, name, help, MetricType::Gauge, value)
}

fn show(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    value: &impl EncodeGaugeValue,
) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, kind)?.encode_gauge(value)
}

/// What is of interest in `/proc/self/stat`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    /// Ticks of the CPU.
    cpu: f64,
    threads: u64,
    /// Ticks after the start of the machine.
    started: f64,
    /// Bytes.
    virtual_memory: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program is in brackets, and anything may be in it.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The manual counts from 1, and the first one here is its third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu: (field(14)? + field(15)?) as f64,
            threads: field(20)?,
            started: field(22)? as f64,
            virtual_memory: field(23)?,
        })
    }
}

/// When the machine started, in seconds of the Unix epoch: from `/proc/stat`.
fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Bytes, from `/proc/self/status`.
fn resident_memory(text: &str) -> Option<u64> {
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kilobytes.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode_registry;
    use prometheus_client::registry::Registry;

    use super::*;

    const STAT: &str =
        "77 (a (b) c) S 1 77 77 0 -1 4194560 2101 0 0 0 350 150 0 0 20 0 9 0 12345 4096000 521 18446744073709551615 1";

    #[test]
    fn the_texts_of_the_system_are_read() {
        let stat = Stat { cpu: 500.0, threads: 9, started: 12345.0, virtual_memory: 4_096_000 };
        assert_eq!(Stat::parse(STAT), Some(stat));
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 5\n"), Some(1.7e9));
        assert_eq!(resident_memory("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t9\n"), Some(2_097_152));
        for text in ["", ") ", "1 (x) S 1", "VmRSS: 1"] {
            assert_eq!((Stat::parse(text), boot_time(text), resident_memory(text)), (None, None, None), "{text}");
        }
    }

    #[test]
    fn this_process_is_seen() {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(ProcessGauges));
        encode_registry(&mut text, &registry).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0 && value("process_threads") >= 2.0, "{text}");
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"), "{text}");
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"), "{text}");
        assert!(value("process_start_time_seconds") > 1.6e9 && value("process_cpu_seconds_total") >= 0.0, "{text}");
    }
}

//! Figures of the machine, of ourselves and of file systems, in the units the control plane expects.

use super::HostError;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use tokio::sync::Semaphore;

/// How long a file system may take to tell its size.
const STATS_LIMIT: Duration = Duration::from_secs(5);
/// How many questions to file systems may hang at a time; more are refused, so that a hung mount costs few threads.
const STATS_AT_A_TIME: usize = 4;

/// Memory and processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    /// Memory in KiB.
    pub mem_total: u64,
    /// Processors.
    pub num_cpus: u64,
}

/// Memory and processors of the machine.
///
/// # Errors
/// [`HostError::Figures`] if the system does not tell.
pub fn hardware() -> Result<Hardware, HostError> {
    let wanted = RefreshKind::nothing()
        .with_memory(MemoryRefreshKind::nothing().with_ram())
        .with_cpu(CpuRefreshKind::nothing());
    let system = System::new_with_specifics(wanted).map_err(|error| HostError::Figures {
        what: "memory and processors",
        source: error.to_string().into(),
    })?;
    Ok(Hardware {
        mem_total: system.total_memory() / 1024,
        num_cpus: system.cpus().len() as u64,
    })
}

/// Figures of the agent's own process; sizes in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessFigures {
    /// Slots for open files.
    pub fd_size: u64,
    /// Address space.
    pub vm_size: u64,
    /// Largest address space so far.
    pub vm_peak: u64,
    /// Resident memory.
    pub vm_rss: u64,
    /// Largest resident memory so far.
    pub vm_hwm: u64,
    /// Threads.
    pub threads: u64,
}

/// Figures of the agent's own process.
///
/// # Errors
/// [`HostError::Path`] if `/proc` cannot be read, [`HostError::Corrupt`] if a figure is missing.
pub fn process_figures() -> Result<ProcessFigures, HostError> {
    const PATH: &str = "/proc/self/status";
    parse_status(&fs::read_to_string(PATH).map_err(HostError::path("read", PATH))?).map_err(|missing| HostError::Corrupt {
        path: PATH.into(),
        problem: format!("{missing} is missing"),
    })
}

fn parse_status(status: &str) -> Result<ProcessFigures, &'static str> {
    let figure = |name: &'static str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok())
            .ok_or(name)
    };
    Ok(ProcessFigures {
        fd_size: figure("FDSize")?,
        vm_size: figure("VmSize")?,
        vm_peak: figure("VmPeak")?,
        vm_rss: figure("VmRSS")?,
        vm_hwm: figure("VmHWM")?,
        threads: figure("Threads")?,
    })
}

/// Size and use of a file system. The control plane's `total` and `used` are made of these by [`gigabytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesystemStats {
    /// Bytes of a block.
    pub block_size: u64,
    /// Blocks in all.
    pub total_blocks: u64,
    /// Free blocks, those for root among them.
    pub free_blocks: u64,
    /// Free blocks for others than root.
    pub avail_blocks: u64,
}

impl FilesystemStats {
    /// Size in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_blocks.saturating_mul(self.block_size)
    }

    /// Free bytes.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_blocks.saturating_mul(self.block_size)
    }

    /// Used bytes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.total_bytes().saturating_sub(self.free_bytes())
    }

    /// Size in the control plane's GB.
    #[must_use]
    pub fn total(&self) -> f64 {
        gigabytes(self.total_bytes())
    }

    /// Use in the control plane's GB.
    #[must_use]
    pub fn used(&self) -> f64 {
        gigabytes(self.used_bytes())
    }
}

/// Bytes as the control plane wants them: units of 1024^3, two decimals, at least 0.01 unless there is nothing.
#[must_use]
pub fn gigabytes(bytes: u64) -> f64 {
    if bytes == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "two decimals are kept")]
    let exact = bytes as f64 / f64::from(1u32 << 30);
    ((exact * 100.0).round() / 100.0).max(0.01)
}

/// Size and use of the file system that `path` lies on. Answers within a few seconds even when the file system hangs.
///
/// # Errors
/// [`HostError::Path`] names the path, [`HostError::Late`] tells of a file system that does not answer.
pub async fn filesystem_stats(path: &Path) -> Result<FilesystemStats, HostError> {
    static PLACES: OnceLock<Arc<Semaphore>> = OnceLock::new();
    let places = PLACES.get_or_init(|| Arc::new(Semaphore::new(STATS_AT_A_TIME)));
    let late = || HostError::Late {
        what: format!("the file system at {} did not answer", path.display()),
        limit: STATS_LIMIT,
    };
    let asked = path.to_path_buf();
    let ask = async {
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        tokio::task::spawn_blocking(move || {
            // Kept by the thread, not by the caller: it is free again when the file system has answered.
            let _place = place;
            rustix::fs::statvfs(&asked).map_err(|error| HostError::path("look at the file system of", asked)(error.into()))
        })
        .await
        .ok()
    };
    let stat = tokio::time::timeout(STATS_LIMIT, ask)
        .await
        .ok()
        .flatten()
        .ok_or_else(late)??;
    Ok(FilesystemStats {
        block_size: if stat.f_frsize == 0 { stat.f_bsize } else { stat.f_frsize },
        total_blocks: stat.f_blocks,
        free_blocks: stat.f_bfree,
        avail_blocks: stat.f_bavail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gigabytes_are_rounded_as_the_control_plane_does() {
        let cases = [
            (0, 0.0),
            (1, 0.01),
            (1 << 30, 1.0),
            (9_425_756_160, 8.78),
            (11_811_160_064, 11.0),
        ];
        for (bytes, wanted) in cases {
            assert!((gigabytes(bytes) - wanted).abs() < 1e-9, "{bytes}: {}", gigabytes(bytes));
        }
    }

    #[test]
    fn the_machine_and_we_have_figures() {
        let machine = hardware().unwrap();
        assert!(machine.mem_total > 1024 && machine.num_cpus > 0, "{machine:?}");
        let own = process_figures().unwrap();
        assert!(
            own.vm_rss > 100 && own.vm_rss <= own.vm_hwm && own.threads > 0 && own.fd_size > 0,
            "{own:?}"
        );
        assert_eq!(parse_status("FDSize:\t64\n"), Err("VmSize"));
    }

    #[tokio::test]
    async fn a_file_system_has_figures_and_a_wrong_path_is_named() {
        let stats = filesystem_stats(Path::new("/")).await.unwrap();
        assert!(stats.total() > 0.0 && stats.used() <= stats.total(), "{stats:?}");
        let error = filesystem_stats(Path::new("/no/such")).await.unwrap_err();
        assert_eq!(error.to_string(), "could not look at the file system of /no/such");
    }
}

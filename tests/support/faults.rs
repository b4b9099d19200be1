//! Faults of the operating system, switched on and off in a running broker by libfiu (<https://blitiri.com.ar/p/libfiu/>).

use std::path::{Path, PathBuf};
use std::process::Command;

/// The switches of one process.
pub struct Faults {
    pipes: PathBuf,
}

impl Faults {
    /// Has `command` load the library that fails on demand; its pipes are made in `dir`.
    pub fn in_reach_of(command: &mut Command, dir: &Path) -> Self {
        let pipes = dir.join("fiu");
        command.env("LD_PRELOAD", format!("{LIBRARIES}/fiu_run_preload.so {LIBRARIES}/fiu_posix_preload.so"));
        command.env("FIU_CTRL_FIFO", &pipes).env("FIU_ENABLE", "");
        Self { pipes }
    }

    /// Gives orders, such as `enable name=posix/io/sync/*`, to the process `pid`.
    pub fn order(&self, pid: u32, orders: &[String]) {
        let mut control = Command::new("fiu-ctrl");
        for order in orders {
            control.args(["-c", order]);
        }
        let told = control.arg("-f").arg(&self.pipes).arg(pid.to_string()).output().expect("fiu-ctrl runs");
        let (said, wrong) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        // It prints nothing unless it fails, and ends with 0 all the same.
        assert!(told.status.success() && said.is_empty() && wrong.is_empty(), "fiu-ctrl: {said}{wrong}");
    }
}

/// Where Debian has them.
const LIBRARIES: &str = "/usr/lib/fiu";

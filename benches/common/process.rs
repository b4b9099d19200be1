//! A process that is measured: what it has in memory, and what it took of the processors.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Sub;
use std::process::{Child, Command};
use std::time::Duration;

use super::Failure;

/// A running program, killed and waited for when dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, Failure> {
        Ok(Self(command.spawn()?))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// As in `/proc/PID/status`.
    pub(crate) fn memory(&self) -> Result<Memory, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let kilobytes = |name: &str| -> Result<u64, Failure> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number =
                line.and_then(|line| line.split_whitespace().next()).ok_or_else(|| format!("no {name}"))?;
            Ok(number.parse()?)
        };
        Ok(Memory {
            resident: kilobytes("VmRSS")?,
            anonymous: kilobytes("RssAnon")?,
            peak: kilobytes("VmHWM")?,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Resident memory, in kB.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) anonymous: u64,
    pub(crate) peak: u64,
}

/// Processor time of a process, by the names of its threads.
#[derive(Clone, Default)]
pub(crate) struct Cpu(pub(crate) BTreeMap<String, Times>);

#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Times {
    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
    }
}

impl Cpu {
    /// As in `/proc/PID/stat`, of every thread. `self` is a pid too.
    pub(crate) fn of(pid: &str) -> Result<Self, Failure> {
        let mut threads = BTreeMap::<String, Times>::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let stat = fs::read_to_string(task?.path().join("stat"))?;
            // The name is in parentheses and may hold anything, parentheses too.
            let (head, rest) = stat.rsplit_once(") ").ok_or("no thread name")?;
            let name = head.split_once('(').ok_or("no thread name")?.1;
            let field = |number: usize| -> Result<Duration, Failure> {
                let ticks: u64 =
                    rest.split(' ').nth(number - FIRST_FIELD).ok_or("too few fields")?.parse()?;
                Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
            };
            threads.entry(name.to_owned()).or_default().add(Times { user: field(14)?, system: field(15)? });
        }
        Ok(Self(threads))
    }

    pub(crate) fn total(&self) -> Times {
        let mut total = Times::default();
        for times in self.0.values() {
            total.add(*times);
        }
        total
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, times) in &other.0 {
            self.0.entry(name.clone()).or_default().add(*times);
        }
    }
}

impl Sub<&Cpu> for Cpu {
    type Output = Self;

    fn sub(mut self, before: &Self) -> Self {
        for (name, times) in &mut self.0 {
            let before = before.0.get(name).copied().unwrap_or_default();
            times.user = times.user.saturating_sub(before.user);
            times.system = times.system.saturating_sub(before.system);
        }
        self
    }
}

/// The number of the field that follows the name.
const FIRST_FIELD: usize = 3;

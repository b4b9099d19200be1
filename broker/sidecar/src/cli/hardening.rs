//! Hardens the process before it holds key material, so that no other process can read it.

use rustix::io::Errno;

/// The privileges that could not be given up.
pub(super) struct Hardening {
    failures: Vec<(&'static str, Errno)>,
}

/// No core dumps, no tracing by peers, no more privileges. To be called first. What fails is a warning, not an end: a sandbox
/// may forbid the calls and do the same by other means.
#[cfg(target_os = "linux")]
pub(super) fn harden() -> Hardening {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    use rustix::thread::set_no_new_privs;

    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    let steps = [
        // Processes of the same user can neither attach nor read /proc/PID/mem; those files belong to root now (proc(5)).
        ("prctl(PR_SET_DUMPABLE, 0)", set_dumpable_behavior(DumpableBehavior::NotDumpable)),
        // Where core_pattern is a pipe, the kernel asks PR_SET_DUMPABLE only (core(5)).
        ("setrlimit(RLIMIT_CORE, 0)", setrlimit(Resource::Core, no_core)),
        // What a profile's credential_process starts gains nothing by set-user-ID either.
        ("prctl(PR_SET_NO_NEW_PRIVS, 1)", set_no_new_privs(true)),
    ];
    Hardening { failures: steps.into_iter().filter_map(|(step, done)| Some((step, done.err()?))).collect() }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn harden() -> Hardening {
    Hardening { failures: Vec::new() }
}

impl Hardening {
    /// Says what failed, once there is a log.
    pub(super) fn report(self) {
        for (step, error) in self.failures {
            tracing::warn!(step, %error, "the process is not fully hardened");
        }
    }
}

//! A time of day of a test's own for real programs: what the kernel says, and as many seconds more as a file says. Only the time of day
//! leaps; timers and deadlines go by the other clock, as they do where an operator or NTP sets a machine's clock.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use key_broker_core::clock::{Clock as _, SystemClock};
use time::OffsetDateTime;

pub struct TimeOfDay {
    ahead: i64,
    file: File,
    path: PathBuf,
    library: PathBuf,
}

impl TimeOfDay {
    /// As it is, for now. Compiles what programs are to be started with.
    pub fn new(dir: &Path) -> Self {
        let (source, library, path) =
            (dir.join("time-of-day.c"), dir.join("time-of-day.so"), dir.join("time-of-day"));
        std::fs::write(&source, SOURCE).expect("writes");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        assert!(compile.status().expect("a C compiler").success());
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).expect("opens");
        file.write_all_at(&0_i64.to_ne_bytes(), 0).expect("writes");
        Self { ahead: 0, file, path, library }
    }

    /// It is so many seconds later, or earlier.
    pub fn leap(&mut self, seconds: i64) {
        self.ahead += seconds;
        self.file.write_all_at(&self.ahead.to_ne_bytes(), 0).expect("writes");
    }

    pub fn ahead(&self) -> i64 {
        self.ahead
    }

    pub fn now(&self) -> OffsetDateTime {
        SystemClock.now() + time::Duration::seconds(self.ahead)
    }

    /// Has a program live in this time.
    pub fn apply(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("TIME_OF_DAY", &self.path);
    }
}

/// Takes the place of the C library's, through which everything here asks for the time.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TIME_OF_DAY");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) ahead = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int) syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && ahead) now->tv_sec += *ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void) zone;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *told) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    if (told) *told = now.tv_sec;
    return now.tv_sec;
}
"#;

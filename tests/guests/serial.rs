//! What a guest prints.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// The lines that came out of a serial port, and whether it is closed.
#[derive(Default)]
pub(super) struct Serial {
    printed: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Serial {
    /// Reads `port` to its end, beside the test.
    pub(super) fn of(port: impl Read + Send + 'static) -> Arc<Self> {
        let serial = Arc::new(Self::default());
        let read = Arc::clone(&serial);
        thread::spawn(move || {
            for line in BufReader::new(port).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                read.change(|(lines, _)| lines.push(line));
            }
            read.change(|(_, is_closed)| *is_closed = true);
        });
        serial
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.printed.lock().expect("whole").0.clone()
    }

    /// Waits until the lines are as wanted, no more can come, or the time is over.
    pub(super) fn wait(&self, within: Duration, wanted: impl Fn(&[String]) -> bool) {
        let printed = self.printed.lock().expect("whole");
        let is_to_wait = |(lines, is_closed): &mut (Vec<String>, bool)| !*is_closed && !wanted(lines);
        drop(self.more.wait_timeout_while(printed, within, is_to_wait).expect("whole"));
    }

    fn change(&self, change: impl FnOnce(&mut (Vec<String>, bool))) {
        change(&mut self.printed.lock().expect("whole"));
        self.more.notify_all();
    }
}

//! Two programs of different languages that exchange messages, and whoever carries these from one to the other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use key_broker_core::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A message that one program encrypted and another decrypted.
pub(crate) struct Exchanged {
    pub(crate) message: Bytes,
    pub(crate) plaintext: Bytes,
}

/// What each program saw, and what it encrypted: all of it was opened by the other.
pub(crate) struct Seen {
    pub(crate) calls: Value,
    pub(crate) messages: Vec<Exchanged>,
}

/// Two programs, each of whose callers has two messages under way: one of its own, and one of the other's.
pub(crate) struct Exchange {
    readers: [JoinHandle<Seen>; 2],
    post: Arc<Post>,
}

/// What carries the lines of both: where each reads, closed at the end.
struct Post {
    inputs: [Mutex<Option<ChildStdin>>; 2],
    /// How many messages each has written.
    written: [AtomicUsize; 2],
    /// How many messages nobody answers any more.
    ended: AtomicUsize,
    stop: CancellationToken,
}

impl Exchange {
    /// Of programs by their names, with which their plaintexts begin.
    pub(crate) fn start(programs: [(&'static str, Command); 2]) -> Self {
        let [first, second] = programs.map(|(name, mut command)| {
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect(name);
            let input = child.stdin.take().expect("it is piped");
            let output = BufReader::new(child.stdout.take().expect("it is piped"));
            (name, child, input, output)
        });
        let inputs = [first.2, second.2].map(|input| Mutex::new(Some(input)));
        let (written, ended) = (<[AtomicUsize; 2]>::default(), AtomicUsize::new(0));
        let post = Arc::new(Post { inputs, written, ended, stop: CancellationToken::new() });
        for caller in 0..CALLERS {
            for place in [0, 1] {
                post.deliver(place, &json!({ "caller": caller, "last": false }));
            }
        }
        let readers = [(0, first.0, first.1, first.3), (1, second.0, second.1, second.3)];
        let readers = readers.map(|(place, name, child, output)| {
            let post = Arc::clone(&post);
            thread::spawn(move || post.read(place, name, child, output))
        });
        Self { readers, post }
    }

    /// Waits until each program has written so many more messages.
    pub(crate) fn go_on(&self, more: usize) {
        let written = || self.post.written.each_ref().map(|written| written.load(Ordering::SeqCst));
        let [first, second] = written().map(|written| written + more);
        let begun = SystemClock.instant();
        while written()[0] < first || written()[1] < second {
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "the programs hang at {:?} messages",
                written()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Has every message opened that is under way, and none written after them.
    pub(crate) fn end(self) -> [Seen; 2] {
        self.post.stop.cancel();
        self.readers.map(|reader| reader.join().expect("what both programs print is right"))
    }
}

impl Post {
    fn read(&self, place: usize, name: &str, mut child: Child, output: BufReader<ChildStdout>) -> Seen {
        let seen = self.carry(place, name, output);
        assert!(child.wait().expect("it ends").success(), "{name} failed");
        seen
    }

    /// Carries what one program prints to the other, until it has ended. Then the other is to end, too.
    fn carry(&self, place: usize, name: &str, output: BufReader<ChildStdout>) -> Seen {
        let _closing = Closing(self);
        let mut messages = Vec::new();
        let mut calls = Value::Null;
        for line in output.lines() {
            let mut line: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
            if line["message"].is_null() {
                calls = line;
                break;
            }
            let bytes = |member: &str| STANDARD.decode(line[member].as_str().expect("text")).expect("Base64");
            let (message, plaintext) = (bytes("message").into(), bytes("plaintext"));
            assert!(plaintext.starts_with(name.as_bytes()), "{name} has another's plaintext");
            messages.push(Exchanged { message, plaintext: plaintext.into() });
            self.written[place].fetch_add(1, Ordering::SeqCst);
            line["last"] = self.stop.is_cancelled().into();
            self.deliver(1 - place, &line);
            if line["last"] == true && self.ended.fetch_add(1, Ordering::SeqCst) + 1 == 2 * CALLERS {
                self.close();
            }
        }
        Seen { calls, messages }
    }

    fn deliver(&self, place: usize, line: &Value) {
        let mut input = self.inputs[place].lock().unwrap_or_else(PoisonError::into_inner);
        // One that has ended too early says so by how it ended.
        if input.as_mut().is_none_or(|input| writeln!(input, "{line}").is_err()) {
            *input = None;
        }
    }

    fn close(&self) {
        for input in &self.inputs {
            *input.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// Closes what both programs read, however the carrying ended.
struct Closing<'a>(&'a Post);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Of each program.
const CALLERS: usize = 4;

//! A load in another language: a process of its own, which makes the calls of a round when it is told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::common::Failure;
use crate::common::load::Sample;
use crate::common::process::Process;

/// A running program, as benches/peers/load.py says.
pub(crate) struct Loader {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it says that it is.
    pub(crate) versions: String,
    /// Ended with this.
    _process: Process,
}

impl Loader {
    /// Starts it and waits until it can make calls.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Failure> {
        let mut process = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let input = process.child().stdin.take().ok_or("a program has a stdin")?;
        let output = BufReader::new(process.child().stdout.take().ok_or("a program has a stdout")?);
        let mut loader = Self { input, output, versions: String::new(), _process: process };
        loader.versions = loader.line()?;
        Ok(loader)
    }

    /// The calls of one round. It blocks: nothing else is to run meanwhile.
    pub(crate) fn round(&mut self, in_flight: usize, time: Duration) -> Result<Sample, Failure> {
        writeln!(self.input, "{in_flight} {}", time.as_millis())?;
        let Round { seconds, micros } = serde_json::from_str(&self.line()?)?;
        let latencies = micros.into_iter().map(Duration::from_micros).collect();
        Ok(Sample { latencies, elapsed: Duration::try_from_secs_f64(seconds)? })
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("it has ended; what it said is above".into());
        }
        Ok(line.trim().to_owned())
    }
}

#[derive(Deserialize)]
struct Round {
    seconds: f64,
    micros: Vec<u64>,
}

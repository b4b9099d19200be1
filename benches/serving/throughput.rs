//! Calls per second and their latencies, one target after the other and round after round, so that whatever else the
//! machine does falls on all of them.

use std::time::Duration;

use key_broker_proto::v1::GenerateDataKeyResponse;

use crate::broker::{Broker, Policies, Setup};
use crate::echo::Echo;
use crate::kms::{self, Emulator, Sdk};
use crate::load::{Grpc, Target, Until, run};
use crate::process::{Cpu, Process, Times};
use crate::programs::{Programs, UNRECORDED};
use crate::{Amount, Failure};

/// What is compared, all started.
pub(crate) struct Targets<'a> {
    emulator: &'a Emulator,
    sdk: Sdk,
    echoes: Vec<(Echo, Grpc, String)>,
    brokers: Vec<(Broker, Grpc, usize, &'static str)>,
}

/// The measurements, by the number of calls in flight, in the order of [`IN_FLIGHT`].
pub(crate) struct Throughput(pub(crate) Vec<(usize, Vec<Measured>)>);

/// All rounds of one target with so many calls in flight.
pub(crate) struct Measured {
    pub(crate) name: String,
    /// Of each round.
    pub(crate) calls_per_second: Vec<f64>,
    /// Of all rounds, sorted.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) client: Cpu,
    /// The broker or the echo; none for the SDK, which is in the client.
    pub(crate) server: Cpu,
    pub(crate) emulator: Cpu,
}

impl<'a> Targets<'a> {
    /// Nothing to compare yet: for measurements of something else in the same way.
    pub(crate) fn none(emulator: &'a Emulator) -> Self {
        Self { emulator, sdk: Sdk::new(emulator), echoes: Vec::new(), brokers: Vec::new() }
    }

    pub(crate) async fn start(
        programs: &Programs,
        emulator: &'a Emulator,
        reply: &GenerateDataKeyResponse,
    ) -> Result<Self, Failure> {
        let mut targets = Self::none(emulator);
        for threads in [1, 2] {
            let echo = Echo::start(programs, reply, threads)?;
            let target = echo.target().await?;
            targets.echoes.push((echo, target, name("echo", threads)));
        }
        // First, so that it is measured beside its echo.
        let unrecorded = Setup { program: UNRECORDED, ..Setup::default() };
        let broker = Broker::start(programs, emulator, unrecorded).await?;
        let target = broker.target().await?;
        targets.brokers.push((broker, target, unrecorded.worker_threads, "records off"));
        for worker_threads in [1, 2] {
            for commit in ["fsync", "write"] {
                let setup = Setup { commit, worker_threads, ..Setup::default() };
                let broker = Broker::start(programs, emulator, setup).await?;
                let target = broker.target().await?;
                targets.brokers.push((broker, target, worker_threads, commit));
            }
        }
        let hundred = Setup { commit: "write", policies: Policies::Hundred, ..Setup::default() };
        let broker = Broker::start(programs, emulator, hundred).await?;
        let target = broker.target().await?;
        targets.brokers.push((broker, target, hundred.worker_threads, "write, 100 policies"));
        Ok(targets)
    }

    pub(crate) async fn measure(&self, amount: Amount) -> Result<Throughput, Failure> {
        let mut all = Vec::new();
        for in_flight in amount.in_flight.map_or(IN_FLIGHT.to_vec(), |calls| vec![calls]) {
            let mut measured: Vec<Measured> = Vec::new();
            for round in 0..amount.rounds {
                eprintln!("throughput: {in_flight} in flight, round {}", round + 1);
                let row = self.round(in_flight, amount).await?;
                if round == 0 {
                    measured = row;
                } else {
                    for (all, more) in measured.iter_mut().zip(row) {
                        all.add(more);
                    }
                }
            }
            for target in &mut measured {
                target.latencies.sort_unstable();
            }
            all.push((in_flight, measured));
        }
        Ok(Throughput(all))
    }

    /// Every target once.
    async fn round(&self, in_flight: usize, amount: Amount) -> Result<Vec<Measured>, Failure> {
        let mut row = Vec::new();
        for (echo, target, name) in &self.echoes {
            row.push(self.once(name, target, Some(&echo.process), in_flight, amount).await?);
        }
        for (kind, request) in [("broker, from the cache", kms::cached_request()), ("broker", kms::request())]
        {
            for (broker, target, threads, commit) in &self.brokers {
                let target = Grpc { request: request.clone(), ..target.clone() };
                let name = name(&format!("{kind}, `{commit}`"), *threads);
                row.push(self.once(&name, &target, Some(&broker.process), in_flight, amount).await?);
            }
        }
        row.push(self.once(SDK, &self.sdk, None, in_flight, amount).await?);
        Ok(row)
    }

    pub(crate) async fn once(
        &self,
        name: &str,
        target: &impl Target,
        server: Option<&Process>,
        in_flight: usize,
        amount: Amount,
    ) -> Result<Measured, Failure> {
        run(target, in_flight, Until { calls: u64::MAX, time: amount.warm_up }).await;
        let look = || -> Result<[Cpu; 3], Failure> {
            let server = server.map(|process| Cpu::of(&process.id().to_string())).transpose()?;
            let emulator = Cpu::of(&self.emulator.process.id().to_string())?;
            Ok([Cpu::of("self")?, server.unwrap_or_default(), emulator])
        };
        let before = look()?;
        let sample = run(target, in_flight, Until { calls: u64::MAX, time: amount.round }).await;
        let [client, server, emulator] = look()?;
        Ok(Measured {
            name: name.to_owned(),
            calls_per_second: vec![sample.calls_per_second()],
            latencies: sample.latencies,
            client: client - &before[0],
            server: server - &before[1],
            emulator: emulator - &before[2],
        })
    }
}

impl Measured {
    pub(crate) fn add(&mut self, more: Self) {
        self.calls_per_second.extend(more.calls_per_second);
        self.latencies.extend(more.latencies);
        self.client.add(&more.client);
        self.server.add(&more.server);
        self.emulator.add(&more.emulator);
    }

    /// Processor time of client, server and emulator.
    pub(crate) fn parts(&self) -> [Times; 3] {
        [self.client.total(), self.server.total(), self.emulator.total()]
    }

    /// Processor time of one call, wherever it was spent.
    pub(crate) fn all(&self) -> Duration {
        self.each(self.parts().iter().map(|times| times.total()).sum())
    }

    /// Processor time of one call.
    pub(crate) fn each(&self, time: Duration) -> Duration {
        time / u32::try_from(self.latencies.len().max(1)).unwrap_or(u32::MAX)
    }
}

fn name(kind: &str, threads: usize) -> String {
    format!("{kind}, {threads} thread{}", if threads == 1 { "" } else { "s" })
}

/// The name of the SDK's row.
pub(crate) const SDK: &str = "AWS SDK, no broker";
const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];

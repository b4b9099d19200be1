//! Round after round, each contender once in each, so that whatever else the machine does falls on all of them.

use std::time::Duration;

use crate::Amount;
use crate::common::Failure;
use crate::common::load::{Sample, quantile};
use crate::contenders::{Contender, Load, What};

/// What was measured of a contender.
pub(crate) struct Row {
    pub(crate) what: What,
    pub(crate) name: &'static str,
    pub(crate) record: &'static str,
    pub(crate) version: String,
    /// With each number of [`IN_FLIGHT`]; or why there is nothing.
    pub(crate) measured: Result<Vec<Figures>, String>,
}

/// Medians of the rounds.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) calls_per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

pub(crate) async fn measure(contenders: Vec<Contender>, amount: Amount) -> Vec<Row> {
    let mut running = Vec::new();
    for Contender { what, name, record, version, load } in contenders {
        let mut turns = Turns { load, figures: vec![Vec::new(); IN_FLIGHT.len()] };
        if matches!(turns.load, Ok(Load::Loader(_))) {
            eprintln!("{name}: {version}: begins");
            turns.take(|_| (), IN_FLIGHT[1], amount.start).await;
        }
        running.push((turns, Row { what, name, record, version, measured: Ok(Vec::new()) }));
    }
    for (place, in_flight) in IN_FLIGHT.into_iter().enumerate() {
        for round in 0..amount.rounds {
            eprintln!("{in_flight} in flight, round {}", round + 1);
            for (turns, _) in &mut running {
                turns.take(|_| (), in_flight, amount.warm_up).await;
                if let Some(figures) = turns.take(Figures::of, in_flight, amount.round).await {
                    turns.figures[place].push(figures);
                }
            }
        }
    }
    let rows = running.into_iter().map(|(turns, row)| Row { measured: turns.medians(), ..row });
    rows.inspect(|row| {
        if let Err(why) = &row.measured {
            eprintln!("NOT MEASURED: {}: {why}", row.name);
        }
    })
    .collect()
}

/// A contender's rounds so far.
struct Turns {
    load: Result<Load, String>,
    figures: Vec<Vec<Figures>>,
}

impl Turns {
    /// One round. Who fails once has no more.
    async fn take<T>(&mut self, of: impl Fn(Sample) -> T, in_flight: usize, time: Duration) -> Option<T> {
        let sample: Result<Sample, Failure> = self.load.as_mut().ok()?.round(in_flight, time).await;
        match sample {
            Ok(sample) => Some(of(sample)),
            Err(error) => {
                self.load = Err(error.to_string());
                None
            }
        }
    }

    fn medians(self) -> Result<Vec<Figures>, String> {
        self.load?;
        Ok(self.figures.into_iter().map(|rounds| Figures::median(&rounds)).collect())
    }
}

impl Figures {
    fn of(mut sample: Sample) -> Self {
        let calls_per_second = sample.calls_per_second();
        sample.latencies.sort_unstable();
        let [p50, p99] = [0.5, 0.99].map(|share| quantile(&sample.latencies, share));
        Self { calls_per_second, p50, p99 }
    }

    /// Of each figure by itself.
    fn median(rounds: &[Self]) -> Self {
        let mut rates: Vec<f64> = rounds.iter().map(|round| round.calls_per_second).collect();
        rates.sort_unstable_by(f64::total_cmp);
        let of = |figure: fn(&Self) -> Duration| {
            let mut all: Vec<Duration> = rounds.iter().map(figure).collect();
            all.sort_unstable();
            quantile(&all, 0.5)
        };
        let calls_per_second = rates.get(rates.len() / 2).copied().unwrap_or_default();
        Self { calls_per_second, p50: of(|round| round.p50), p99: of(|round| round.p99) }
    }
}

/// A caller that waits for each reply, and a busy service.
pub(crate) const IN_FLIGHT: [usize; 2] = [1, 16];

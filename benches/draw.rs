//! One draw of a kept data key inside the process, without gRPC and records around it: nanoseconds and allocations; and
//! what a draw takes where one key ends and the next, made ahead, begins.
//!
//! `cargo bench --bench draw`

use std::time::Duration;

use key_broker::RevocationCheck;
use key_broker::bench::{draws, question};
use key_broker_core::clock::{Clock as _, SystemClock};

fn main() {
    for _ in 0..3 {
        one_draw(None);
        one_draw(Some(CHECK));
    }
    boundary();
    policy();
}

/// The default.
const CHECK: RevocationCheck = RevocationCheck {
    interval: Duration::from_mins(1),
    by_context: false,
    unverified_max: Duration::from_mins(5),
};

/// What policy takes of a call: remembered, and asked anew.
fn policy() {
    let one = |n| {
        format!(
            r#"permit(principal == Workload::"spiffe://example.org/{n}", action == Action::"GenerateDataKey",
                      resource in Alias::"alias/{n}")
               when {{ context.encryptionContext.hasTag("tenant") && context.messages < 100 }};"#
        )
    };
    let text = (0..100).map(one).collect::<Vec<_>>().concat();
    let (permit_all, hundred) = ("permit(principal, action, resource);", text.as_str());
    for (name, text) in
        [("one policy", permit_all), ("100 policies that look at the encryption context", hundred)]
    {
        let permits = question(text);
        let each = |asked: u32, ask: &dyn Fn(u32)| {
            let started = SystemClock.instant();
            (0..asked).for_each(ask);
            started.elapsed().as_nanos() / u128::from(asked)
        };
        assert!(permits());
        let remembered = each(200_000, &|_| assert!(permits()));
        // With other policies nothing is remembered.
        let parsed: Vec<_> = (0..200).map(|_| question(text)).collect();
        let asked_anew = each(200, &|n| assert!(parsed[n as usize]()));
        println!("{name}: {remembered} ns remembered, {asked_anew} ns asked of Cedar");
    }
}

fn one_draw(check: Option<RevocationCheck>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let draws = runtime.block_on(draws(1 << 32, 1_024, Duration::ZERO, check));
    let mut best = Duration::MAX;
    let mut allocations = 0;
    for _ in 0..ROUNDS {
        let ready = draws(DRAWS);
        let started = SystemClock.instant();
        let counted = allocation_counter::measure(|| {
            runtime.block_on(async {
                for draw in ready {
                    draw.await;
                }
            });
        });
        best = best.min(started.elapsed());
        allocations = counted.count_total;
    }
    let checked = if check.is_some() { "with revocation checks" } else { "without" };
    println!(
        "one draw of a kept data key, {checked}: {} ns (best of {ROUNDS} rounds)",
        best.as_nanos() / DRAWS as u128
    );
    println!("allocations in {DRAWS} draws: {allocations}");
}

/// Refresh ahead at 0.8 of 50,000 messages, before a KMS that takes 2 ms: 10,000 draws pass meanwhile.
fn boundary() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut near, mut elsewhere) = runtime.block_on(async {
        let draws = draws(MESSAGES, 0, Duration::from_millis(2), Some(CHECK)).await;
        latencies(std::iter::repeat_with(|| draws(DRAWS)).take(ROUNDS).flatten()).await
    });
    let p99 = |latencies: &mut Vec<u64>| {
        latencies.sort_unstable();
        latencies[latencies.len() * 99 / 100]
    };
    println!(
        "p99 of a draw within {NEAR} draws of a boundary: {} ns, elsewhere: {} ns ({} and {} draws)",
        p99(&mut near),
        p99(&mut elsewhere),
        near.len(),
        elsewhere.len()
    );
}

/// Nanoseconds of draws near a boundary, and of the others.
async fn latencies(draws: impl Iterator<Item = impl Future<Output = u64>>) -> (Vec<u64>, Vec<u64>) {
    let (mut near, mut elsewhere) = (Vec::new(), Vec::new());
    for draw in draws {
        let started = SystemClock.instant();
        let used = draw.await;
        let took = u64::try_from(started.elapsed().as_nanos()).expect("no draw takes centuries");
        if used <= NEAR || used > MESSAGES - NEAR { near.push(took) } else { elsewhere.push(took) }
    }
    (near, elsewhere)
}

const ROUNDS: usize = 10;
const DRAWS: usize = 100_000;
const MESSAGES: u64 = 50_000;
const NEAR: u64 = 50;

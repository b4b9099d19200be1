//! One draw of a kept data key inside the process, without gRPC and records around it: nanoseconds and allocations; and
//! what a draw takes where one key ends and the next, made ahead, begins.
//!
//! `cargo bench --bench draw`

use std::time::Duration;

use key_broker::bench::{DrawBench, DrawPermit, PolicyBench};
use key_broker_core::clock::{Clock as _, SystemClock};

fn main() {
    one_draw();
    boundary();
    policy();
}

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
        let policy = PolicyBench::new(text);
        let each = |asked: u32, ask: &dyn Fn(u32)| {
            let started = SystemClock.instant();
            (0..asked).for_each(ask);
            started.elapsed().as_nanos() / u128::from(asked)
        };
        assert!(policy.permits());
        let remembered = each(200_000, &|_| assert!(policy.permits()));
        // With other policies nothing is remembered.
        let parsed: Vec<PolicyBench> = (0..200).map(|_| PolicyBench::new(text)).collect();
        let asked_anew = each(200, &|n| assert!(parsed[n as usize].permits()));
        println!("{name}: {remembered} ns remembered, {asked_anew} ns asked of Cedar");
    }
}

fn one_draw() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = runtime.block_on(DrawBench::new(1 << 32, Duration::ZERO));
    let mut best = Duration::MAX;
    let mut allocations = 0;
    for _ in 0..ROUNDS {
        let permits = bench.permits(DRAWS);
        let started = SystemClock.instant();
        let counted = allocation_counter::measure(|| runtime.block_on(draw_all(&bench, permits)));
        best = best.min(started.elapsed());
        // The vector of permits is not the draw's.
        allocations = counted.count_total;
    }
    println!("one draw of a kept data key: {} ns (best of {ROUNDS} rounds)", best.as_nanos() / DRAWS as u128);
    println!("allocations in {DRAWS} draws: {allocations}");
}

async fn draw_all(bench: &DrawBench, permits: Vec<DrawPermit>) {
    for permit in permits {
        bench.draw(permit, 1_024).await;
    }
}

/// Refresh ahead at 0.8 of 50,000 messages, before a KMS that takes 2 ms: 10,000 draws pass meanwhile.
fn boundary() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut near, mut elsewhere) = runtime.block_on(async {
        let bench = DrawBench::new(MESSAGES, Duration::from_millis(2)).await;
        latencies(&bench).await
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
async fn latencies(bench: &DrawBench) -> (Vec<u64>, Vec<u64>) {
    let (mut near, mut elsewhere) = (Vec::new(), Vec::new());
    for permit in std::iter::repeat_with(|| bench.permits(DRAWS)).take(ROUNDS).flatten() {
        let started = SystemClock.instant();
        let used = bench.draw(permit, 0).await;
        let took = u64::try_from(started.elapsed().as_nanos()).expect("no draw takes centuries");
        if used <= NEAR || used > MESSAGES - NEAR { near.push(took) } else { elsewhere.push(took) }
    }
    (near, elsewhere)
}

const ROUNDS: usize = 10;
const DRAWS: usize = 100_000;
const MESSAGES: u64 = 50_000;
const NEAR: u64 = 50;

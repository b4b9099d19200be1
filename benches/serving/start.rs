//! From exec to serving.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use key_broker_client::Client;

use crate::Failure;
use crate::broker::{Broker, Setup};
use crate::kms::Emulator;
use crate::machine::now;
use crate::programs::Programs;

/// Sorted times since just before fork and exec.
pub(crate) struct Starts {
    /// Until a connect succeeds.
    pub(crate) connected: Vec<Duration>,
    /// Until a health check on a new connection says SERVING.
    pub(crate) serving: Vec<Duration>,
}

pub(crate) async fn measure(
    programs: &Programs,
    emulator: &Emulator,
    starts: usize,
) -> Result<Starts, Failure> {
    let (mut connected, mut serving) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        let (connects, serves) = once(programs, emulator).await?;
        connected.push(connects);
        serving.push(serves);
    }
    connected.sort_unstable();
    serving.sort_unstable();
    Ok(Starts { connected, serving })
}

async fn once(programs: &Programs, emulator: &Emulator) -> Result<(Duration, Duration), Failure> {
    let began = now();
    let broker = Broker::spawn(programs, emulator, Setup::default())?;
    let socket = broker.socket();
    for _ in 0..ATTEMPTS {
        if UnixStream::connect(&socket).is_ok() {
            let connects = began.elapsed();
            if !Client::unix(&socket).await?.is_serving().await? {
                return Err("a broker that listens does not serve".into());
            }
            return Ok((connects, began.elapsed()));
        }
        // Blocks on purpose: the runtime's timer is too coarse, and nothing else runs here.
        std::thread::sleep(PAUSE);
    }
    Err(format!("the broker does not listen within ten seconds:\n{}", broker.log()).into())
}

const ATTEMPTS: u32 = 50_000;
const PAUSE: Duration = Duration::from_micros(200);

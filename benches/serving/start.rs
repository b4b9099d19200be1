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
    let mut connects = None;
    for _ in 0..ATTEMPTS {
        if connects.is_none() && UnixStream::connect(&socket).is_ok() {
            connects = Some(began.elapsed());
        }
        // It serves once its first digest is in the store.
        if let Some(connects) = connects
            && Client::unix(&socket).await?.is_serving().await?
        {
            return Ok((connects, began.elapsed()));
        }
        // Blocks on purpose: the runtime's timer is too coarse, and nothing else runs here.
        std::thread::sleep(PAUSE);
    }
    Err(format!("the broker does not serve within ten seconds:\n{}", broker.log()).into())
}

const ATTEMPTS: u32 = 50_000;
const PAUSE: Duration = Duration::from_micros(200);

//! The records that a `key-broker dev` has left: delivered ones, which are encrypted, and those still in its journal.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use key_broker::AuditorKms;
use key_broker_core::clock::SystemClock;
use key_broker_trail::delivery::StoreConfig;
use key_broker_trail::{JournalTrail, TrailNames, TrailReader, records};
use kms_emulator::{Emulator, EmulatorConfig};

use super::{Records, aws_kms, aws_settings, journal_lines};

/// Every record, as its JSON text. Nobody may be running in `dir`.
pub fn all_lines(dir: &Path) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let mut lines = runtime.expect("a runtime").block_on(delivered(dir));
    lines.extend(journal_lines(&dir.join("journal")));
    lines
}

/// Every record.
pub fn all_records(dir: &Path) -> Records {
    Records::of(all_lines(dir).iter().map(|line| serde_json::from_str(line).expect("a record")))
}

async fn delivered(dir: &Path) -> Vec<String> {
    let state_file = Some(dir.join("kms/state.json"));
    let emulator = Emulator::start(EmulatorConfig { state_file, ..EmulatorConfig::default() }).await;
    let emulator = emulator.expect("dev has stopped");
    let kms = aws_kms(aws_settings(&emulator), Arc::new(SystemClock)).await;
    let caller = Arc::new(kms.caller().await.expect("known"));
    let config = fs::read_to_string(dir.join("key-broker.toml")).expect("dev's");
    let config: toml::Table = toml::from_str(&config).expect("TOML");
    let at = |name: &str| config["audit"]["store"][name].as_str().expect("text").to_owned();
    let (root, bucket) = (dir.join(at("directory")), at("bucket"));
    let journal = JournalTrail::try_from(&*dir.join("journal")).expect("it has delivered");
    let JournalTrail { name: trail, account_id, region, .. } = journal;
    let names = TrailNames { account_id, region, trail, bucket: bucket.clone(), prefix: String::new() };
    let store = StoreConfig::Directory { root, bucket }.open().await;
    let decrypter = AuditorKms::new(Arc::new(kms), caller, dir.join("reader-records.jsonl"));
    let keys = store.list(&names.log_folder()).await.expect("lists");
    let reader = TrailReader::new(store, names, Some(Arc::new(decrypter)));
    let mut lines = Vec::new();
    for key in keys {
        let file = reader.log_file(&key).await.expect("reads").expect("there");
        lines.extend(records(&file).map(|record| record.expect("a record").to_owned()));
    }
    emulator.shutdown().await;
    lines
}

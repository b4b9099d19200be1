//! Proves: nothing leaves the broker unrecorded. While the journal cannot commit, calls are refused within the bounded
//! wait, health says so, and service resumes by itself.

mod support;

use std::fs;
use std::time::Duration;

use key_broker_client::GenerateDataKey;
use support::disk::TinyDisk;
use support::{Records, Setup, TestBroker, journal_lines};
use tonic::Code;

#[tokio::test]
async fn a_reply_finds_its_records_already_in_the_file() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    for n in 1..=50 {
        let key = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a key");
        let lines = journal_lines(&broker.journal_dir());
        // Two more: the broker's start, and what the alias means, which was asked once.
        assert_eq!(lines.len(), 2 * n + 2, "a KMS record and an activity record for each reply");
        assert!(lines[2 * n].contains(&key.provenance.kms_event_id), "KMS's record first");
    }
}

#[tokio::test]
async fn a_lost_journal_directory_refuses_calls_and_its_return_resumes_service() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    client.generate_random(8).await.expect("serves");
    assert!(client.is_serving().await.expect("health answers"));

    fs::remove_dir_all(broker.journal_dir()).expect("removes");
    for _ in 0..3 {
        let error =
            client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect_err("no journal");
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("JOURNAL_UNAVAILABLE")));
        assert!(error.retry_after().is_some());
    }
    let health = client.clone();
    for wanted in [false, true] {
        if wanted {
            fs::create_dir(broker.journal_dir()).expect("returns");
            client.generate_random(8).await.expect("serves again");
        }
        let mut serving = health.is_serving().await.expect("health answers");
        for _ in 0..100 {
            if serving == wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            serving = health.is_serving().await.expect("health answers");
        }
        assert_eq!(serving, wanted);
    }
    let outcomes = broker.stop().await.outcomes();
    assert_eq!(outcomes["Allowed"], 2, "what the lost directory held is written again");
    assert_eq!(outcomes["Failed"], 3, "and so are the refusals");
}

#[tokio::test]
#[cfg_attr(not(capability = "sys_admin"), ignore = "needs root: CAP_SYS_ADMIN, to mount a tmpfs")]
async fn a_full_disk_refuses_calls_leaves_no_half_record_and_resumes_when_there_is_room() {
    let disk = TinyDisk::mount(64);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 32 << 10]).expect("there is room yet");
    let broker =
        TestBroker::with(Setup { journal_dir: Some(disk.path().join("journal")), ..Setup::default() }).await;
    let client = broker.client().await;
    let request = || GenerateDataKey::aes_256("alias/dev").context("filler", "x".repeat(4_000));
    let mut answered = 0;
    let refused = loop {
        match client.generate_data_key(request()).await {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
        assert!(answered < 100, "64 KiB do not hold a hundred of these records");
    };
    assert_eq!((refused.code(), refused.reason()), (Code::Unavailable, Some("JOURNAL_UNAVAILABLE")));
    let allowed = |records: &Records| records.outcomes().get("Allowed").copied().unwrap_or_default();
    assert_eq!(
        allowed(&Records::read(&disk.path().join("journal"))),
        answered,
        "every reply has its record, whole"
    );

    fs::remove_file(&ballast).expect("makes room");
    client.generate_data_key(request()).await.expect("service resumes by itself");
    assert_eq!(allowed(&Records::read(&disk.path().join("journal"))), answered + 1);
    drop(broker.stop().await);
}

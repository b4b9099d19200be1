//! Proves: a call that ends before its time (deadline, caller gone, a full broker) leaves one activity record that
//! says so, and what KMS answered meanwhile is recorded too.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::time::Duration;

use key_broker_client::{Error, GenerateDataKey};
use key_broker_proto::v1 as pb;
use kms_emulator::Fault;
use peers::check_records;
use support::{Setup, TestBroker, eventually, id};
use tonic::{Code, Request};

#[tokio::test]
async fn the_callers_deadline_ends_the_call_and_the_record_says_so() {
    let broker = TestBroker::start().await;
    broker.emulator.inject(Fault::latency(Duration::from_secs(30)));
    let client = broker.client().await.with_deadline(Duration::from_millis(200));
    let error = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect_err("too slow");
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error}");
    eventually("the record is written", || !broker.records().activity.is_empty()).await;
    let records = broker.stop().await;
    assert_eq!(records.activity.len(), 1);
    assert_eq!(records.activity[0]["errorCode"], "DeadlineExceeded");
    assert_eq!(records.activity[0]["additionalEventData"]["outcome"], "Failed");
    assert_eq!(records.activity[0]["requestParameters"]["keyId"], "alias/dev");
}

#[tokio::test]
async fn a_deadline_below_the_floor_is_refused_at_once_without_asking_kms() {
    let mut setup = Setup::default();
    setup.limits.deadline_floor = Duration::from_secs(20);
    let broker = TestBroker::with(setup).await;
    let client = broker.client().await.with_deadline(Duration::from_secs(19));
    let error = client.describe_key("alias/dev").await.expect_err("too little time");
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, Some("DEADLINE_EXCEEDED")));
    assert_eq!(broker.emulator.call_count("DescribeKey"), 0);
    assert_eq!(broker.stop().await.activity_of(id(&error))["errorCode"], "DeadlineExceeded");
}

#[tokio::test]
async fn a_malformed_timeout_is_rejected() {
    let broker = TestBroker::start().await;
    let mut request = Request::new(pb::DescribeKeyRequest { key_id: "alias/dev".into() });
    request.metadata_mut().insert("grpc-timeout", "soon".parse().expect("ascii"));
    let error = Error::from(broker.stub().await.describe_key(request).await.expect_err("malformed"));
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, Some("MALFORMED_REQUEST")));
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_its_record_and_that_of_kms_answer() {
    let broker = TestBroker::start().await;
    broker.emulator.inject(Fault::latency(Duration::from_millis(300)));
    let client = broker.client().await;
    let call =
        tokio::spawn(async move { client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await });
    eventually("KMS is asked", || broker.emulator.call_count("GenerateDataKey") == 1).await;
    call.abort();
    eventually("both records are written", || {
        let records = broker.records();
        (records.kms.len(), records.activity.len()) == (1, 1)
    })
    .await;
    let asked =
        broker.emulator.calls().into_iter().find(|call| call.operation == "GenerateDataKey").expect("asked");
    let records = broker.stop().await;
    assert_eq!(records.kms_of(&asked.request_id)["eventName"], "GenerateDataKey");
    assert_eq!(records.activity[0]["additionalEventData"]["outcome"], "Aborted");
    assert_eq!(records.activity[0]["errorCode"], "RequestCancelled");
}

#[tokio::test]
async fn kms_answering_after_the_deadline_of_no_one_is_drained_with_its_record() {
    let broker = TestBroker::start().await;
    broker.emulator.inject(Fault::latency(Duration::from_millis(400)));
    let client = broker.client().await;
    let call = tokio::spawn(async move { client.generate_random(8).await });
    eventually("KMS is asked", || broker.emulator.call_count("GenerateRandom") == 1).await;
    call.abort();
    // The drain begins before KMS has answered.
    let records = broker.stop().await;
    assert_eq!((records.kms.len(), records.activity.len()), (1, 1));
}

#[tokio::test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn calls_above_the_limit_are_throttled_with_a_delay() {
    let mut setup = Setup::default();
    // One principal alone gets half.
    setup.limits.calls_in_flight = 4;
    let broker = TestBroker::with(setup).await;
    broker.emulator.inject(Fault::latency(Duration::from_millis(500)));
    let client = broker.client().await;
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.generate_random(8).await })
        })
        .collect();
    let (mut answered, mut throttled) = (0, 0);
    for call in calls {
        match call.await.expect("no panic") {
            Ok(_) => answered += 1,
            Err(error) => {
                assert_eq!(
                    (error.code(), error.reason()),
                    (Code::ResourceExhausted, Some("TOO_MANY_OWN_CALLS"))
                );
                assert!(error.retry_after().is_some());
                throttled += 1;
            }
        }
    }
    assert_eq!((answered, throttled), (2, 4));
    check_records(&support::journal_lines(&broker.journal_dir()));
    let outcomes = broker.stop().await.outcomes();
    assert_eq!((outcomes["Allowed"], outcomes["Throttled"]), (2, 4));
}

//! The records that auditors' tools read: every field, in its place, for an answer and for an error.

use key_broker_core::{PeerDetails, PeerKind, RandomLength};
use proptest::prelude::*;
use time::macros::{datetime, format_description};
use uuid::uuid;

use super::*;

const EVENT_ID: Uuid = uuid!("a9dea4f9-8395-46c0-942c-f509c02c2b71");
const REQUEST_ID: Uuid = uuid!("e0eb83e3-63bc-41e4-bc2b-4198b6150d5c");

fn aws_identity() -> AwsIdentity<'static> {
    AwsIdentity {
        kind: "IAMUser",
        principal_id: "EX_PRINCIPAL_ID",
        arn: "arn:aws:iam::111122223333:user/Alice",
        account_id: "111122223333",
        access_key_id: Some("EXAMPLE_KEY_ID"),
        user_name: Some("Alice"),
        session_context: None,
        invoked_by: None,
    }
}

fn context() -> EncryptionContext {
    let pairs = [("Project", "Alpha"), ("Department", "Engineering")];
    EncryptionContext::parse(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        .expect("a context")
}

/// The line, with a break between top-level fields, so that differences show.
fn shown(lines: &[u8]) -> String {
    let text = std::str::from_utf8(lines).expect("text");
    assert_eq!(text.matches('\n').count(), 1, "one line");
    let record: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).expect("JSON");
    let mut places: Vec<(usize, String)> = record
        .iter()
        .map(|(name, value)| {
            let field = format!("{name:?}:");
            (text.find(&field).expect("there"), format!("{field}{value}"))
        })
        .collect();
    places.sort();
    places.into_iter().map(|(_, field)| field + "\n").collect()
}

#[test]
fn kms_record_of_an_answer() {
    let (key, context) = (KeyId::parse("alias/dev").expect("a key"), context());
    let arn = KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
        .expect("an ARN");
    let mut record = KmsRecord::new(
        aws_identity(),
        datetime!(2025-05-20 20:46:16.789 UTC),
        Action::GenerateDataKey.name(),
        "us-east-1",
        "e0eb83e3-63bc-11e4-bc2b-4198b6150d5c",
    );
    record.event_id = EVENT_ID;
    record.source_ip_address = "192.0.2.0";
    record.user_agent = "aws-sdk-rust/1.7.0";
    record.request_parameters = Some(
        RequestParameters {
            key_id: Some(&key),
            encryption_context: Some(&context),
            ..RequestParameters::default()
        }
        .with_length(DataKeyLength::Aes256),
    );
    record.additional_event_data = Some(KmsEventData {
        key_material_id: Some("123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0"),
        recipient: None,
    });
    record.resources = Some(vec![(&arn).into()]);
    let mut lines = Vec::new();
    record.append_to(&mut lines);
    insta::assert_snapshot!(shown(&lines));
}

#[test]
fn kms_record_of_access_denied_has_neither_parameters_nor_resources() {
    let mut record = KmsRecord::new(
        aws_identity(),
        datetime!(2025-05-20 20:46:16 UTC),
        Action::Decrypt.name(),
        "us-west-2",
        "e0eb83e3-63bc-11e4-bc2b-4198b6150d5c",
    );
    record.event_id = EVENT_ID;
    record.error = Some(RecordedError { error_code: "AccessDenied", error_message: "" });
    let mut lines = Vec::new();
    record.append_to(&mut lines);
    insta::assert_snapshot!(shown(&lines));
}

static DETAILS: PeerDetails = PeerDetails::unix(1_000, 1_000, Some(4_242));

fn activity<'a>(error: Option<RecordedError<'a>>, data: ActivityEventData<'a>) -> ActivityRecord<'a> {
    ActivityRecord {
        event_version: EVENT_VERSION,
        user_identity: WorkloadIdentity {
            kind: PeerKind::UnixWorkload,
            principal_id: "unix:uid/1000",
            details: &DETAILS,
        },
        event_time: datetime!(2026-11-21 10:57:07 UTC),
        event_source: "keybroker.v1.KeyBroker",
        event_name: Action::GenerateRandom,
        aws_region: "us-west-2",
        source_ip_address: "unix",
        user_agent: "grpc-python/1.76.0",
        error,
        request_parameters: Some(
            RequestParameters::default()
                .with_length(DataKeyLength::Bytes(RandomLength::parse(32).expect("a length"))),
        ),
        response_elements: (),
        additional_event_data: data,
        request_id: REQUEST_ID,
        event_id: EVENT_ID,
        read_only: true,
        resources: None,
        event_type: "ActivityLog",
        management_event: false,
        recipient_account_id: "111122223333",
        event_category: "ActivityAuditLog",
    }
}

#[test]
fn activity_record_of_an_answer() {
    let data_key = DataKeyData {
        served_from: ServedFrom::Kms,
        kms_request_id: Some("c929ebc7-094a-4ee5-839d-975205113c0f".into()),
        kms_event_id: Some(EVENT_ID),
        minted_at: Some(datetime!(2026-11-21 10:57:07 UTC)),
        expires_at: Some(datetime!(2026-11-21 11:02:07 UTC)),
        messages_used: Some(7),
        messages_limit: Some(7),
        bytes_used: Some(0),
        bytes_limit: Some(0),
    };
    let policies = ["policy0".to_owned()];
    let data = ActivityEventData {
        outcome: Outcome::Allowed,
        policy: Some(PolicyData {
            determining_policies: &policies,
            version: "0123456789abcdef0123456789abcdef",
        }),
        data_key: Some(&data_key),
        recipient: None,
        trace: None,
        journal: None,
        reloads: None,
    };
    let mut lines = Vec::new();
    activity(None, data).append_to(&mut lines);
    insta::assert_snapshot!(shown(&lines));
}

#[test]
fn activity_record_of_a_denial_and_long_text_is_cut_not_dropped() {
    let message = "é".repeat(600);
    let error = RecordedError { error_code: "AccessDenied", error_message: &message };
    let data = ActivityEventData {
        outcome: Outcome::Denied,
        policy: None,
        data_key: None,
        recipient: None,
        trace: None,
        journal: None,
        reloads: None,
    };
    let mut lines = Vec::new();
    activity(Some(error), data).append_to(&mut lines);
    insta::assert_snapshot!(shown(&lines).replace(&"é".repeat(512), "512 x é"));
}

proptest! {
    /// Proves: the digits written by hand are those that `time` writes.
    #[test]
    fn a_moment_is_written_as_time_writes_it(seconds in 0..253_402_300_800_i64, offset in -12_i8..=12) {
        let offset = UtcOffset::from_hms(offset, 0, 0).expect("an offset");
        let at = OffsetDateTime::from_unix_timestamp(seconds).expect("a moment").to_offset(offset);
        prop_assume!((0..=9_999).contains(&at.year()));
        let form = format_description!(version = 2, "[year]-[month]-[day]T[hour]:[minute]:[second]Z");
        prop_assert_eq!(digits(at).to_vec(), at.format(form).expect("formats").into_bytes());
    }
}

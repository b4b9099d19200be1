//! Records as auditors' tools read them: every field in its place, for an answer and for an error.

use std::collections::BTreeMap;

use key_broker_core::{
    Action, DataKeyLength, EncryptionContext, KeyId, Outcome, PeerDetails, PeerKind, RandomLength,
};
use proptest::prelude::*;
use serde_json::value::RawValue;
use time::UtcOffset;
use time::macros::{datetime, format_description};
use uuid::uuid;

use super::*;

const EVENT_ID: Uuid = uuid!("a9dea4f9-8395-46c0-942c-f509c02c2b71");
const REQUEST_ID: Uuid = uuid!("e0eb83e3-63bc-41e4-bc2b-4198b6150d5c");

fn aws_identity() -> UserIdentity<'static> {
    UserIdentity {
        kind: IdentityKind::IAMUser.name().into(),
        principal_id: Some("EX_PRINCIPAL_ID".into()),
        arn: Some("arn:aws:iam::111122223333:user/Alice".into()),
        account_id: Some("111122223333".into()),
        access_key_id: Some("EXAMPLE_KEY_ID".into()),
        user_name: Some("Alice".into()),
        ..UserIdentity::default()
    }
}

fn context() -> EncryptionContext {
    let pairs = [("Project", "Alpha"), ("Department", "Engineering")];
    EncryptionContext::parse(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        .expect("a context")
}

/// The line with breaks between top-level fields, so that differences are visible.
fn shown(lines: &[u8]) -> String {
    let text = std::str::from_utf8(lines).expect("text");
    assert_eq!(text.matches('\n').count(), 1, "one line");
    let record: BTreeMap<String, &RawValue> = serde_json::from_str(text).expect("JSON");
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
        EVENT_ID,
    );
    record.source_ip_address = Some("192.0.2.0".into());
    record.user_agent = Some("aws-sdk-rust/1.7.0".into());
    record.request_parameters = Some(
        RequestParameters { key_id: Some((&key).into()), ..RequestParameters::default() }
            .with_context(&context)
            .with_length(DataKeyLength::Aes256),
    );
    record.additional_event_data = Some(KmsEventData {
        key_material_id: Some("123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0".into()),
        recipient: None,
        redacted: Vec::new(),
        ..KmsEventData::default()
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
        EVENT_ID,
    );
    record.fail("AccessDenied", "");
    let mut lines = Vec::new();
    record.append_to(&mut lines);
    insta::assert_snapshot!(shown(&lines));
}

static DETAILS: PeerDetails = PeerDetails::unix(1_000, 1_000, Some(4_242));

fn activity(data: ActivityEventData<'_>) -> ActivityRecord<'_> {
    let mut record = ActivityRecord::new(
        UserIdentity::workload(PeerKind::UnixWorkload, "unix:uid/1000", &DETAILS),
        datetime!(2026-11-21 10:57:07 UTC),
        Action::GenerateRandom.name(),
        "us-west-2",
        "111122223333",
        data,
    );
    record.source_ip_address = Some("unix".into());
    record.user_agent = Some("grpc-python/1.76.0".into());
    record.request_parameters = Some(
        RequestParameters::default()
            .with_length(DataKeyLength::Bytes(RandomLength::parse(32).expect("a length"))),
    );
    record.request_id = REQUEST_ID.into();
    record.event_id = EVENT_ID.into();
    record
}

#[test]
fn activity_record_of_an_answer() {
    let data_key = DataKeyData {
        served_from: ServedFrom::Kms,
        kms_request_id: Some("c929ebc7-094a-4ee5-839d-975205113c0f".into()),
        kms_event_id: Some(EVENT_ID),
        minted_at: Some(datetime!(2026-11-21 10:57:07 UTC)),
        expires_at: Some(datetime!(2026-11-21 11:02:07 UTC)),
        last_allowed: None,
        last_check_failed: None,
        messages_used: Some(7),
        messages_limit: Some(7),
        bytes_used: Some(0),
        bytes_limit: Some(0),
        ciphertext_sha256: Some("ab".repeat(32).into()),
    };
    let policies = ["policy0".to_owned()];
    let data = ActivityEventData {
        policy: Some(PolicyData {
            determining_policies: (&policies[..]).into(),
            version: "0123456789abcdef0123456789abcdef".into(),
        }),
        data_key: Some(data_key.borrowed()),
        ..Outcome::Allowed.into()
    };
    let mut lines = Vec::new();
    activity(data).append_to(&mut lines);
    insta::assert_snapshot!(shown(&lines));
}

#[test]
fn activity_record_of_a_denial_and_long_text_is_cut_not_dropped() {
    let message = "é".repeat(600);
    let mut record = activity(Outcome::Denied.into());
    record.fail("AccessDenied", &message);
    let mut lines = Vec::new();
    record.append_to(&mut lines);
    insta::assert_snapshot!(shown(&lines).replace(&"é".repeat(512), "512 x é"));
}

#[test]
fn moments_and_ids_have_one_form() {
    for at in [0, 951_827_696, 1_709_164_800, 4_102_444_799] {
        let at = OffsetDateTime::from_unix_timestamp(at).expect("a moment");
        assert_eq!(parse_record_time(&record_time(at)), Some(at));
    }
    for bad in [
        "2026-11-21T10:57:07",
        "2026-11-21 10:57:07Z",
        "2026-11-21T10:57:07z",
        "2026-02-29T10:57:07Z",
        "2026-11-21T24:00:00Z",
        "2026-11-21T10:57:0éZ",
        "+026-11-21T10:57:07Z",
        "",
    ] {
        assert_eq!(parse_record_time(bad), None, "{bad}");
    }
    assert_eq!(lower_case_uuid(&Text::from(EVENT_ID)), Some(EVENT_ID));
    for bad in ["A09A27E7-d32b-40d4-b6b9-948ac0d141a9", "a09a27e7d32b40d4b6b9948ac0d141a9", "", "x"] {
        assert_eq!(lower_case_uuid(bad), None, "{bad}");
    }
}

proptest! {
    /// Proves: times are formatted as `time` would format them.
    #[test]
    fn a_moment_is_written_as_time_writes_it(seconds in 0..253_402_300_800_i64, offset in -12_i8..=12) {
        let offset = UtcOffset::from_hms(offset, 0, 0).expect("an offset");
        let at = OffsetDateTime::from_unix_timestamp(seconds).expect("a moment").to_offset(offset);
        prop_assume!((0..=9_999).contains(&at.year()));
        let form = format_description!(version = 2, "[year]-[month]-[day]T[hour]:[minute]:[second]Z");
        prop_assert_eq!(moments::digits(at).to_vec(), at.format(form).expect("formats").into_bytes());
    }
}

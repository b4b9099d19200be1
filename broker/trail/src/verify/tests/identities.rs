//! An access key belongs to one session, and a multi-Region key is one key, whichever replica answered.

use super::super::forge::aws_identity;
use super::*;
use crate::record::UserIdentity;

/// The record of a data key that this session of the broker's role requested.
fn by_session(number: u128, session: &str) -> String {
    let mut identity = UserIdentity::of_aws(
        "111122223333",
        &format!("arn:aws:sts::111122223333:assumed-role/broker/{session}"),
        &format!("AROAEXAMPLE:{session}"),
        None,
    );
    identity.access_key_id = Some("ASIAEXAMPLE".into());
    let json = |identity: &UserIdentity<'_>| serde_json::to_string(identity).expect("serializes");
    let record = Mint::new(number, START + Duration::minutes(2)).record();
    let by_user = json(&aws_identity());
    assert!(record.contains(&by_user), "{record}");
    record.replace(&by_user, &json(&identity))
}

#[tokio::test]
async fn one_access_key_has_one_session() {
    assert_eq!(found(vec![by_session(1, "pod-1"), by_session(2, "pod-1")]).await, []);
    let mixed = found(vec![by_session(1, "pod-1"), by_session(2, "pod-2")]).await;
    assert_eq!(mixed, [FindingKind::SessionMixed]);
}

/// The record with this key ARN in place of its own.
fn with_key(record: &str, region: &str, id: &str) -> String {
    let arn = super::super::forge::key_arn();
    assert!(record.contains(arn.as_str()), "{record}");
    record.replace(arn.as_str(), &format!("arn:aws:kms:{region}:111122223333:key/{id}"))
}

#[tokio::test]
async fn the_answer_of_a_replica_is_one_of_its_multi_region_key() {
    let (one, other) = ("mrk-1234abcd12ab34cd56ef1234567890ab", "mrk-2234abcd12ab34cd56ef1234567890ab");
    let single = "2234abcd-12ab-34cd-56ef-1234567890ab";
    let mint = mint();
    let draw = |id| with_key(&mint.draw(1).record(), "us-west-2", id);
    let call = |region, id| with_key(&mint.record(), region, id);
    assert_eq!(found(vec![call("us-east-1", one), draw(one)]).await, []);
    for (region, id, drawn) in
        [("us-east-1", one, other), ("us-east-1", single, single), ("us-west-2", one, single)]
    {
        let kinds = found(vec![call(region, id), draw(drawn)]).await;
        assert_eq!(kinds, [FindingKind::KmsRecordMismatch], "{region} {id} {drawn}");
    }
}

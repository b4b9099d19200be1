//! What a trail's digests name is the broker's, once, and only as far as nobody else could have made it.

use super::*;

/// KMS's Sign of the broker's own, which tells which key signs the trail.
fn sign(request: &str, second: u8) -> Value {
    with(record("Sign", request, second), "/userIdentity/invokedBy", "key-broker".into())
}

fn data_key(request: &str, second: u8) -> Value {
    let context = json!({ "aws:cloudtrail:arn": TRAIL, "aws:s3:arn": "arn:aws:s3:::b/k" });
    with(record("GenerateDataKey", request, second), "/requestParameters/encryptionContext", context)
}

fn reconcile_named(theirs: &[Value]) -> Reconciliation {
    let ours = [&ends()[..], &[sign("opening", 1)]].concat();
    let mut reconciler = Reconciler::default();
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    reconciler.add_named(set(&["closing"]), set(&["last-file"]));
    for record in &ours {
        reconciler.add_ours(&ReadRecord::parse(&record.to_string()).expect("a record"));
    }
    for record in ours.iter().map(awss).chain(theirs.iter().cloned()) {
        reconciler.add_aws(&of_aws(&record).to_string(), &question()).expect("a record");
    }
    reconciler.finish(&question())
}

#[test]
fn the_signature_of_a_closing_digest_and_the_data_key_of_a_log_file_are_the_brokers_once() {
    let outcome = reconcile_named(&[record("Sign", "closing", 59), data_key("last-file", 58)]);
    assert_eq!((outcome.verdict, outcome.named_by_digests), (Match::Matched, 2), "{outcome:?}");
    let again = with(record("Sign", "closing", 59), "/eventID", "another".into());
    let outcome = reconcile_named(&[record("Sign", "closing", 59), again]);
    assert_eq!((outcome.verdict, requests(&outcome.missing_from_trail)), (Match::Unmatched, vec!["closing"]));
}

#[test]
fn what_a_digest_names_explains_nothing_else() {
    let other = "arn:aws:kms:us-west-2:111122223333:key/other";
    for theirs in [
        record("Sign", "unnamed", 59),
        with(record("Sign", "closing", 59), "/resources/0/ARN", other.into()),
        record("Decrypt", "closing", 58),
        record("GenerateDataKey", "last-file", 58),
        data_key("unnamed", 58),
        data_key("closing", 58),
    ] {
        let outcome = reconcile_named(std::slice::from_ref(&theirs));
        assert_eq!((outcome.verdict, outcome.missing_from_trail.len()), (Match::Unmatched, 1), "{theirs}");
    }
}

use serde_json::{Value, json};

use super::*;

fn caller() -> Caller {
    Caller {
        arn: "arn:aws:sts::111122223333:assumed-role/broker/pod".into(),
        user_id: "AROA:pod".into(),
        account: "111122223333".into(),
        role: Some("arn:aws:iam::111122223333:role/broker".into()),
    }
}

fn verdict(of: PolicyOf, statement: &Value, action: &str, context: &[(&str, &str)]) -> Verdict {
    let text = json!({ "Version": "2012-10-17", "Statement": statement }).to_string();
    let policy = Policy::parse(&text, of).expect("a policy");
    let context = context.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let resource = "arn:aws:kms:us-west-2:111122223333:key/1";
    policy.judge(Question { caller: &caller(), action, resource, context: &context })
}

const ALLOWED: Verdict = Verdict { denied: false, allowed: true, delegated: false };
const NOTHING: Verdict = Verdict { denied: false, allowed: false, delegated: false };

#[test]
fn a_statement_is_about_principals_and_actions() {
    for (principal, expected) in [
        (json!("*"), ALLOWED),
        (json!({ "AWS": "*" }), ALLOWED),
        (json!({ "AWS": "arn:aws:iam::111122223333:role/broker" }), ALLOWED),
        (
            json!({ "AWS": ["arn:aws:iam::111122223333:role/x", "arn:aws:sts::111122223333:assumed-role/broker/pod"] }),
            ALLOWED,
        ),
        (json!({ "AWS": "arn:aws:iam::111122223333:role/other" }), NOTHING),
        (json!({ "AWS": "arn:aws:iam::111122223333:root" }), Verdict { delegated: true, ..NOTHING }),
        (json!({ "AWS": "111122223333" }), Verdict { delegated: true, ..NOTHING }),
        (json!({ "AWS": "444455556666" }), NOTHING),
    ] {
        let statement =
            json!({ "Effect": "Allow", "Principal": principal, "Action": "kms:decrypt", "Resource": "*" });
        assert_eq!(verdict(PolicyOf::Key, &statement, "kms:Decrypt", &[]), expected, "{statement}");
        assert_eq!(verdict(PolicyOf::Key, &statement, "kms:Encrypt", &[]), NOTHING);
    }
    let denies = json!([
        { "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*" },
        { "Effect": "Deny", "Principal": { "AWS": "111122223333" }, "Action": ["kms:GenerateDataKey*"], "Resource": "*" },
    ]);
    assert_eq!(verdict(PolicyOf::Key, &denies, "kms:Decrypt", &[]), ALLOWED);
    assert!(verdict(PolicyOf::Key, &denies, "kms:GenerateDataKeyPair", &[]).denied);
}

#[test]
fn a_roles_statement_is_about_resources() {
    for (resource, expected) in [
        (json!("arn:aws:kms:*:111122223333:key/?"), ALLOWED),
        (json!(["arn:aws:kms:us-west-2:111122223333:key/2", "*"]), ALLOWED),
        (json!("arn:aws:kms:us-east-1:111122223333:key/*"), NOTHING),
    ] {
        let statement = json!({ "Effect": "Allow", "Action": "*", "Resource": resource });
        assert_eq!(verdict(PolicyOf::Role, &statement, "kms:Sign", &[]), expected, "{statement}");
    }
}

#[test]
fn conditions_are_on_the_encryption_context() {
    let allowed = |operator: &str, values: Value, context: &[(&str, &str)]| {
        let statement = json!({
            "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*",
            "Condition": { operator: { "kms:EncryptionContext:tenant": values } },
        });
        verdict(PolicyOf::Key, &statement, "kms:Decrypt", context).allowed
    };
    let a = [("tenant", "a")];
    assert!(allowed("StringEquals", json!("a"), &a) && allowed("StringEquals", json!(["b", "a"]), &a));
    assert!(allowed("StringEquals", json!("a"), &[("Tenant", "a")]), "AWS does not mind case in names");
    assert!(!allowed("StringEquals", json!("A"), &a) && !allowed("StringEquals", json!("a"), &[]));
    assert!(!allowed("StringEquals", json!("*"), &a) && allowed("StringLike", json!("?"), &a));
    assert!(!allowed("StringLike", json!("b*"), &a) && !allowed("StringLike", json!("*"), &[]));
    assert!(!allowed("StringNotEquals", json!(["b", "a"]), &a) && allowed("StringNotEquals", json!("b"), &a));
    assert!(allowed("StringNotEquals", json!("a"), &[]) && !allowed("StringNotLike", json!("a*"), &a));
}

#[test]
fn what_is_not_understood_is_refused() {
    let good = json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*" });
    let with = |name: &str, value: Value| {
        let mut statement = good.clone();
        statement[name] = value;
        json!({ "Statement": statement }).to_string()
    };
    let condition = |operator: &str, key: &str| with("Condition", json!({ operator: { key: "a" } }));
    for (text, words) in [
        ("{".to_owned(), "EOF"),
        (json!({ "Version": "2026-01-01", "Statement": good }).to_string(), "Version"),
        (json!({ "Statement": good, "Rules": [] }).to_string(), "Rules"),
        (with("NotAction", json!("kms:*")), "did not match"),
        (with("Effect", json!("Perhaps")), "did not match"),
        (with("Principal", json!({ "Service": "s3.amazonaws.com" })), "did not match"),
        (with("Principal", json!("arn:aws:iam::111122223333:role/a")), "is not \"*\""),
        (with("Principal", json!({ "AWS": "arn:aws:iam::111122223333:role/*" })), "no account, role"),
        (with("Principal", json!({ "AWS": [] })), "nobody"),
        (with("Action", json!("s3:GetObject")), "none of KMS"),
        (with("Action", json!("kms:")), "none of KMS"),
        (condition("Bool", "kms:EncryptionContext:a"), "operator"),
        (condition("StringEquals", "kms:ViaService"), "condition key"),
        (condition("StringEquals", "kms:EncryptionContext:"), "condition key"),
        (with("Condition", json!({ "StringEquals": { "kms:EncryptionContext:a": [] } })), "no value"),
    ] {
        let refused = Policy::parse(&text, PolicyOf::Key).err().unwrap_or_else(|| panic!("{text}"));
        assert!(refused.contains(words), "{refused}");
    }
    let twice = r#"{"Statement":{"Effect":"Deny","Principal":"*","Action":"kms:*","Resource":"*","Condition":{
        "StringEquals":{"kms:EncryptionContext:a":"1"},"StringEquals":{"kms:EncryptionContext:a":"2"}}}}"#;
    assert!(Policy::parse(twice, PolicyOf::Key).is_err());
    assert!(Policy::parse(&with("Sid", json!("x")), PolicyOf::Role).is_err(), "a role's has no Principal");
    for missing in ["Principal", "Resource", "Action", "Effect"] {
        let mut statement = good.clone();
        statement.as_object_mut().expect("an object").remove(missing);
        assert!(Policy::parse(&json!({ "Statement": statement }).to_string(), PolicyOf::Key).is_err());
    }
}

//! Nothing is permitted that no policy permits, and no policy is accepted that could never apply.

mod generated;

use std::collections::BTreeMap;

use key_broker_core::KeyArn;

use super::memory::MAX_DECISIONS;
use super::*;
use crate::attestation::PlatformKind;

const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const OTHER: &str = "arn:aws:kms:eu-west-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn uid(uid: u32) -> Principal {
    Principal::Workload(format!("unix:uid/{uid}").into())
}

fn key(arn: &str) -> NamedKey {
    NamedKey { arn: Some(KeyArn::parse(arn).expect("an ARN")), alias: None }
}

fn aliased(alias: &str, arn: Option<&str>) -> NamedKey {
    let arn = arn.map(|arn| KeyArn::parse(arn).expect("an ARN"));
    NamedKey { arn, alias: Some(KeyId::parse(alias).expect("an alias")) }
}

/// These aliases are known, and no others.
fn known(aliases: &[(&str, Option<&str>)]) -> AliasMeanings {
    let arn = |arn: &str| KeyArn::parse(arn).expect("an ARN");
    let target = |(alias, key): &(&str, Option<&str>)| (KeyId::parse(alias).expect("an alias"), key.map(arn));
    AliasMeanings::new(aliases.iter().map(target).collect())
}

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn answer(policy: &Policy, principal: &Principal, action: Action, key: Option<&NamedKey>) -> Decision {
    policy.decide(&Question { principal, action, key, meanings: &known(&[]), facts: Facts::default() })
}

fn permits(text: &str, principal: &Principal, action: Action, key: Option<&NamedKey>) -> bool {
    answer(&policy(text), principal, action, key).permits
}

#[test]
fn no_policy_permits_nothing() {
    assert!(!permits("", &uid(0), Action::Decrypt, Some(&key(KEY))));
}

#[test]
fn a_policy_permits_what_it_names_and_nothing_else() {
    let text = format!(
        r#"permit(principal == Workload::"unix:uid/1000", action == Action::"Decrypt", resource == Key::"{KEY}");"#
    );
    assert!(permits(&text, &uid(1000), Action::Decrypt, Some(&key(KEY))));
    assert!(permits(&text, &uid(1000), Action::Decrypt, Some(&aliased("alias/dev", Some(KEY)))));
    assert!(!permits(&text, &uid(1001), Action::Decrypt, Some(&key(KEY))));
    assert!(!permits(&text, &uid(1000), Action::GenerateDataKey, Some(&key(KEY))));
    assert!(!permits(&text, &uid(1000), Action::Decrypt, Some(&key(OTHER))));
    let none = permits(&text, &uid(1000), Action::Decrypt, None);
    assert!(!none, "a call without a key needs a permit for any key");
}

#[test]
fn an_alias_is_what_it_means_now_and_the_name_by_which_it_was_called() {
    let by_alias = r#"permit(principal, action, resource in Alias::"alias/dev");"#;
    assert!(permits(by_alias, &uid(1), Action::Decrypt, Some(&aliased("alias/dev", Some(KEY)))));
    assert!(!permits(by_alias, &uid(1), Action::Decrypt, Some(&aliased("alias/other", Some(KEY)))));
    assert!(!permits(by_alias, &uid(1), Action::Decrypt, Some(&key(KEY))), "it was not called by the alias");
    // The alias was moved to another key; the permit is for the key.
    let by_key = format!(r#"permit(principal, action, resource == Key::"{KEY}");"#);
    assert!(!permits(&by_key, &uid(1), Action::Decrypt, Some(&aliased("alias/dev", Some(OTHER)))));
    let forbidden = format!(r#"{by_alias} forbid(principal, action, resource == Key::"{OTHER}");"#);
    assert!(!permits(&forbidden, &uid(1), Action::Decrypt, Some(&aliased("alias/dev", Some(OTHER)))));
    assert!(permits(by_alias, &uid(1), Action::Decrypt, Some(&aliased("alias/dev", None))));
    assert!(
        !permits(&by_key, &uid(1), Action::Decrypt, Some(&aliased("alias/dev", None))),
        "it means no key"
    );
}

/// Proves: whatever a caller calls a key, it is in the aliases that stand for it. If that is unknown, a `forbid` by alias applies to every
/// key, as does a condition that it could fail.
#[test]
fn a_policy_by_alias_holds_under_every_name_of_the_key() {
    let permit = r#"permit(principal, action, resource in Alias::"alias/dev");"#;
    let forbid = r#"permit(principal, action, resource);
                    @id("no") forbid(principal, action, resource in Alias::"alias/dev");"#;
    let unless = r#"permit(principal, action, resource) unless { resource in Alias::"alias/dev" };"#;
    let names = [key(KEY), aliased("alias/dev", Some(KEY)), aliased("alias/other", Some(KEY))];
    let asked = |text: &str, key: &NamedKey, meanings: &AliasMeanings| {
        let (principal, action, facts) = (&uid(1), Action::Decrypt, Facts::default());
        policy(text).decide(&Question { principal, action, key: Some(key), meanings, facts })
    };
    let means = |target| known(&[("alias/dev", target)]);
    for name in &names {
        assert!(asked(permit, name, &means(Some(KEY))).permits, "{name:?}");
        let denied = asked(forbid, name, &means(Some(KEY)));
        assert_eq!(
            (denied.permits, &*denied.determining_policies),
            (false, &["no".to_owned()][..]),
            "{name:?}"
        );
        assert!(!asked(unless, name, &means(Some(KEY))).permits, "{name:?}");
    }
    for meanings in [means(Some(OTHER)), means(None)] {
        assert!(!asked(permit, &names[0], &meanings).permits);
        assert!(asked(forbid, &names[0], &meanings).permits && asked(unless, &names[0], &meanings).permits);
    }
    // Unknown.
    for text in [permit, forbid, unless] {
        assert!(!asked(text, &names[0], &known(&[])).permits, "{text}");
    }
    let of_another = forbid.replace("forbid(principal,", r#"forbid(principal == Workload::"unix:uid/2","#);
    assert!(
        asked(&of_another, &names[0], &known(&[])).permits,
        "whatever it means, the forbid is not about uid 1"
    );
}

#[test]
fn aliases_of_the_brokers_own_account_have_one_name() {
    let alias = "arn:aws:kms:us-west-2:111122223333:alias/dev";
    let policy = policy(&format!(r#"permit(principal, action, resource in Alias::"{alias}");"#));
    let refused = policy.check_home("us-west-2", "111122223333").expect_err("it is of the own account");
    assert!(refused.contains(r#"write Alias::"alias/dev""#), "{refused}");
    assert_eq!(policy.check_home("us-west-2", "444455556666"), Ok(()));
    assert_eq!(policy.check_home("eu-west-1", "111122223333"), Ok(()));
}

/// Proves: a call that is denied whatever its key is denied without knowing the key, and no other call is.
#[test]
fn who_is_permitted_no_key_is_denied_before_any_is_known() {
    let text = format!(
        r#"permit(principal == Workload::"unix:uid/1", action == Action::"Decrypt", resource == Key::"{KEY}");
           permit(principal == Workload::"unix:uid/2", action, resource in Alias::"alias/dev")
             when {{ context.transport == "tls" && resource.account == "111122223333" }};
           permit(principal == Workload::"unix:uid/3", action, resource);
           @id("never") forbid(principal == Workload::"unix:uid/3", action == Action::"Decrypt", resource);
           forbid(principal == Workload::"unix:uid/3", action, resource == Key::"{OTHER}");"#
    );
    let policy = policy(&text);
    let denied = |principal: &Principal, action, transport| {
        let facts = Facts { transport, ..Facts::default() };
        policy
            .denies_every_key(principal, action, facts)
            .map(|decision| decision.determining_policies.to_vec())
    };
    let nobodys = Some(Vec::<String>::new());
    assert_eq!(denied(&uid(1), Action::Decrypt, Transport::Unix), None);
    assert_eq!(denied(&uid(1), Action::GenerateDataKey, Transport::Unix), nobodys);
    assert_eq!(denied(&uid(2), Action::Decrypt, Transport::Tls), None);
    assert_eq!(
        denied(&uid(2), Action::Decrypt, Transport::Unix),
        nobodys,
        "what is said beside the key does not hold"
    );
    assert_eq!(denied(&uid(3), Action::GenerateDataKey, Transport::Unix), None);
    assert_eq!(denied(&uid(3), Action::Decrypt, Transport::Unix), Some(vec!["never".to_owned()]));
    for principal in [uid(4), Principal::Unknown] {
        assert_eq!(denied(&principal, Action::Decrypt, Transport::Tls), nobodys);
    }
}

/// Proves: a policy that fails for a call denies it, whether `forbid` or `permit`, and is named; a caller's own numbers cannot evade
/// it.
#[test]
fn an_error_is_a_denial() {
    let policy = policy(
        r#"@id("all") permit(principal, action, resource);
           @id("budget") forbid(principal, action == Action::"GenerateDataKey", resource)
             when { context.messages * 16 + context.bytes > 1000000 };"#,
    );
    let asked = |messages, bytes| {
        let facts = Facts { messages, bytes, ..Facts::default() };
        let (principal, action, key, meanings) =
            (&uid(1), Action::GenerateDataKey, Some(&key(KEY)), &known(&[]));
        policy.decide(&Question { principal, action, key, meanings, facts })
    };
    assert!(asked(1, 0).permits);
    for (messages, bytes) in
        [(1, 2_000_000), (100_000, 0), (1 << 60, 0), (1, i64::MAX as u64), (u64::MAX, u64::MAX)]
    {
        let decision = asked(messages, bytes);
        assert!(!decision.permits, "{messages} {bytes}");
        assert_eq!(*decision.determining_policies, ["budget".to_owned()]);
    }
}

#[test]
fn every_workload_does_not_include_the_unknown() {
    let text = "permit(principal is Workload, action, resource);";
    assert!(permits(text, &uid(1000), Action::Decrypt, None));
    assert!(!permits(text, &Principal::Unknown, Action::Decrypt, Some(&key(KEY))));
}

#[test]
fn a_forbid_wins_and_both_answers_name_their_policies() {
    let policy = policy(
        r#"@id("all") permit(principal, action, resource);
           forbid(principal, action == Action::"GenerateRandom", resource);"#,
    );
    let yes = answer(&policy, &uid(1), Action::Decrypt, None);
    assert!(yes.permits);
    assert_eq!(*yes.determining_policies, ["all".to_owned()]);
    let no = answer(&policy, &uid(1), Action::GenerateRandom, None);
    assert!(!no.permits);
    assert_eq!(*no.determining_policies, ["policy1".to_owned()]);
    assert_eq!((yes.version.len(), &yes.version), (32, &no.version));
}

#[test]
fn policies_look_at_what_the_call_says() {
    let policy = policy(
        r#"permit(principal, action, resource) when {
             context.transport == "tls" && context.messages <= 1000 && context.bytes < 1024
               && context.encryptionContext.hasTag("tenant") && context.encryptionContext.getTag("tenant") == "acme"
               && resource.account == "111122223333" && resource.region like "us-*"
           };"#,
    );
    let context = |value: &str| {
        EncryptionContext::parse(BTreeMap::from([("tenant".to_owned(), value.to_owned())]))
            .expect("a context")
    };
    let (acme, evil) = (context("acme"), context("evil"));
    let good = Facts {
        transport: Transport::Tls,
        messages: 1_000,
        bytes: 1_023,
        encryption_context: Some(&acme),
        recipient: None,
    };
    let permits = |facts: Facts<'_>, key: &NamedKey| {
        let meanings = &known(&[]);
        let question =
            Question { principal: &uid(1), action: Action::Decrypt, key: Some(key), meanings, facts };
        policy.decide(&question).permits
    };
    // Twice, since answers are cached.
    for _ in 0..2 {
        assert!(permits(good, &key(KEY)));
        for bad in [
            Facts { transport: Transport::Unix, ..good },
            Facts { messages: 1_001, ..good },
            Facts { messages: u64::MAX, ..good },
            Facts { bytes: 1_024, ..good },
            Facts { encryption_context: Some(&evil), ..good },
            Facts { encryption_context: None, ..good },
        ] {
            assert!(!permits(bad, &key(KEY)));
        }
        assert!(!permits(good, &key(OTHER)));
    }
}

#[test]
fn policies_look_at_what_a_verified_document_measured() {
    let measured = |kind, module: &str, pcrs: &[(u8, u8)]| {
        let pcrs = pcrs.iter().map(|(index, byte)| (*index, [*byte; 48])).collect();
        Arc::new(Measurements::new(module, kind, pcrs).expect("measurements"))
    };
    let enclave =
        |image| measured(PlatformKind::Enclave, "i-0a-enc0b", &[(0, image), (1, 1), (2, 2), (8, 8)]);
    let tpm = measured(PlatformKind::NitroTpm, "i-0a-tpm00", &[(4, 4), (7, 0xab)]);
    let policy = policy(&format!(
        r#"@id("enclave") permit(principal, action, resource) when {{
             context has recipient.imageSha384 && context.recipient.imageSha384 == "{}"
               && context.recipient has pcr8 && context.recipient.pcr8 == "{}"
           }};
           @id("tpm") permit(principal, action, resource) when {{
             context has recipient.nitroTpmPcr7 && context.recipient.nitroTpmPcr7 == "{}"
               && context.recipient.moduleId == "i-0a-tpm00"
           }};"#,
        "ee".repeat(48),
        "08".repeat(48),
        "ab".repeat(48),
    ));
    let asked = |recipient: Option<&Arc<Measurements>>| {
        let facts = Facts { transport: Transport::Vsock, recipient, ..Facts::default() };
        let principal = Principal::parse("vsock:cid/16").expect("a principal");
        let meanings = &known(&[]);
        policy.decide(&Question {
            principal: &principal,
            action: Action::Decrypt,
            key: None,
            meanings,
            facts,
        })
    };
    // Twice, since answers are cached.
    for _ in 0..2 {
        let allowed = asked(Some(&enclave(0xee)));
        assert!(allowed.permits);
        assert_eq!(*allowed.determining_policies, ["enclave".to_owned()]);
        assert!(!asked(Some(&enclave(0xef))).permits, "another image");
        assert!(!asked(None).permits, "no document");
        assert_eq!(*asked(Some(&tpm)).determining_policies, ["tpm".to_owned()]);
    }
}

/// Proves: whatever was asked before, an answer is that of policies without a cache.
#[test]
fn a_remembered_answer_is_the_answer() {
    let text = format!(
        r#"permit(principal == Workload::"unix:uid/1", action == Action::"Decrypt", resource);
           permit(principal == Workload::"unix:uid/2", action, resource == Key::"{KEY}");
           forbid(principal, action, resource in Alias::"alias/c");"#
    );
    let remembering = policy(&text);
    let keys = [
        None,
        Some(key(KEY)),
        Some(key(OTHER)),
        Some(aliased("alias/c", Some(KEY))),
        Some(aliased("alias/d", None)),
    ];
    for _ in 0..2 {
        for principal in [uid(1), uid(2), Principal::Workload("unknown".into()), Principal::Unknown] {
            for (action, key) in Action::ALL.into_iter().flat_map(|a| keys.iter().map(move |k| (a, k))) {
                let fresh = answer(&policy(&text), &principal, action, key.as_ref());
                let again = answer(&remembering, &principal, action, key.as_ref());
                assert_eq!(again.permits, fresh.permits);
                assert_eq!(again.determining_policies, fresh.determining_policies);
            }
        }
    }
}

/// Proves: the cache is bounded, keeps working when it is full, and holds no answer of a policy that failed.
#[test]
fn the_memory_is_bounded_and_holds_sound_answers_only() {
    let plain = policy("permit(principal, action, resource);");
    for n in 0..2 * MAX_DECISIONS {
        let named = aliased(&format!("alias/{n}"), Some(KEY));
        assert!(answer(&plain, &uid(1), Action::Decrypt, Some(&named)).permits);
    }
    let kept = plain.decisions.len();
    assert!((1..=MAX_DECISIONS).contains(&kept), "{kept}");
    let failing = policy(
        "permit(principal, action, resource) when { context.messages * 9223372036854775807 > 0 || true };",
    );
    let facts = Facts { messages: 2, ..Facts::default() };
    let meanings = &known(&[]);
    let question = Question { principal: &uid(1), action: Action::Decrypt, key: None, meanings, facts };
    assert!(!failing.decide(&question).permits);
    assert_eq!(failing.decisions.len(), 0);
}

#[test]
fn mistakes_are_told_in_one_line() {
    let mut told = Vec::new();
    for text in [
        "permit(principal, action",
        r#"permit(principal == User::"alice", action, resource);"#,
        r#"permit(principal, action == Action::"decrypt", resource);"#,
        r#"permit(principal == Workload::"orders", action, resource);"#,
        r#"permit(principal == Workload::"unknown", action, resource);"#,
        r#"permit(principal == Workload::"spiffe://Example.org/orders", action, resource);"#,
        r#"permit(principal, action, resource == Key::"alias/dev");"#,
        r#"permit(principal, action, resource == Key::"1234abcd-12ab-34cd-56ef-1234567890ab");"#,
        r#"permit(principal, action, resource in Alias::"dev");"#,
        r#"permit(principal, action, resource) when { context.recipient == "x" };"#,
        r#"permit(principal, action, resource) when { context has recipient && context.recipient.imageSha384 == "x" };"#,
        r#"permit(principal, action, resource) when { context has recipient && context.recipient.pcr32 == "x" };"#,
        r#"permit(principal == Workload::"vsock:16", action, resource);"#,
        r#"permit(principal, action, resource) when { context.messages > "many" };"#,
        r#"permit(principal, action, resource) when { context.transport == "tcp" };"#,
        r#"permit(principal, action, resource) unless { true && "TLS" != context["transport"] };"#,
        r#"permit(principal, action, resource) when { ["unix", "http"].contains(context.transport) };"#,
        r#"permit(principal, action, resource) when { context.transport like "tcp*" };"#,
        r#"permit(principal, action, resource) when { ["tcp"].containsAny([context.transport]) };"#,
        r#"permit(principal, action, resource) when { resource.account == "1111-2222-3333" };"#,
        r#"permit(principal, action, resource) when { context has recipient.imageSha384 && context.recipient.imageSha384 == "EE0D" };"#,
        r#"permit(principal, action, resource) when { context.encryptionContext.getTag("tenant") == "acme" };"#,
        r#"permit(principal, action, resource) when { EncryptionContext::"request".hasTag("tenant") };"#,
        r#"permit(principal == Workload::"unix:uid/007", action, resource);"#,
        r#"permit(principal == Unknown::"anyone", action, resource);"#,
        r#"permit(principal, action, resource == Alias::"alias/dev");"#,
        r#"forbid(principal, action, resource) when { resource == Alias::"alias/dev" };"#,
        r#"forbid(principal, action, resource) when { Key::"*".account == resource.account };"#,
        r#"forbid(principal, action, resource) when { Key::"*" in Alias::"alias/dev" };"#,
        r"forbid(principal, action, resource) when { principal is Unknown && principal is Workload };",
        "permit(principal, action, resource) when { false };",
        r#"@id("a") permit(principal, action, resource); @id("a") forbid(principal, action, resource);"#,
        "permit(principal == ?principal, action, resource);",
    ] {
        let error = Policy::parse(text).err().unwrap_or_else(|| panic!("{text} is taken"));
        assert!(!error.contains('\n'), "{error}");
        // Cedar lists the actions in any order.
        let error = Action::ALL
            .iter()
            .fold(error, |text, action| text.replace(&format!("{:?}", action.name()), "\"…\""));
        told.push(format!("{text}\n    {error}"));
    }
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn the_documents_show_the_schema() {
    let shown = include_str!("../../../../docs/policy.md");
    assert!(shown.contains(schema::SCHEMA.trim_end()), "docs/policy.md shows another schema");
}

#[test]
fn the_keys_that_policies_name_are_listed() {
    let text = format!(
        r#"permit(principal, action, resource == Key::"{KEY}");
           permit(principal, action, resource in Alias::"alias/dev") unless {{ resource == Key::"{KEY}" }};
           permit(principal, action, resource == Key::"*");"#
    );
    assert_eq!(policy(&text).keys(), [key(KEY), aliased("alias/dev", None)]);
}

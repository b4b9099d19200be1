//! With generated policies and questions: a cached decision equals a fresh one, whatever the policies read; less knowledge about aliases
//! never permits more; and a denial for every key is a denial for each.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::policy::memory::DecisionCache;

const ALIASES: [&str; 3] = ["alias/a", "alias/b", "arn:aws:kms:us-west-2:444455556666:alias/c"];
/// Conditions: each fact of a call, each way to read it, and two that fail for some calls.
const CONDITIONS: [&str; 16] = [
    r#"context.transport == "tls""#,
    r#"context["transport"] like "*x""#,
    "context.messages <= 10",
    "context.bytes < 100",
    "context.messages * 4611686018427387904 > 0",
    "context.bytes + context.messages < 1000",
    r#"context.encryptionContext.hasTag("tenant")"#,
    r#"context.encryptionContext.hasTag("tenant") && context.encryptionContext.getTag("tenant") == "acme""#,
    "context has recipient",
    r#"context has recipient && context.recipient.moduleId like "*enc1""#,
    r#"resource.account == "111122223333""#,
    r#"resource.region like "us-*""#,
    r#"resource in Alias::"alias/a""#,
    r#"resource in [Alias::"alias/b", Alias::"arn:aws:kms:us-west-2:444455556666:alias/c"]"#,
    r#"principal == Workload::"unix:uid/1""#,
    r#"action in [Action::"Decrypt", Action::"GenerateRandom"]"#,
];

/// One policy.
fn statement() -> impl Strategy<Value = String> {
    let principal = select(vec![
        "principal".to_owned(),
        "principal is Workload".to_owned(),
        r#"principal == Workload::"unix:uid/1""#.to_owned(),
    ]);
    let action = select(vec!["action", r#"action == Action::"Decrypt""#]);
    let mut resources = vec!["resource".to_owned(), format!(r#"resource == Key::"{KEY}""#)];
    resources.extend(ALIASES.map(|alias| format!(r#"resource in Alias::"{alias}""#)));
    let condition = (
        select(vec!["when", "unless"]),
        select(CONDITIONS.to_vec()),
        prop::option::of(select(CONDITIONS.to_vec())),
    )
        .prop_map(|(word, one, other)| match other {
            Some(other) => format!(" {word} {{ ({one}) || ({other}) }}"),
            None => format!(" {word} {{ {one} }}"),
        });
    let effect = prop_oneof![2 => Just("permit"), 1 => Just("forbid")];
    (effect, principal, action, select(resources), prop::collection::vec(condition, 0..=2)).prop_map(
        |(effect, principal, action, resource, conditions)| {
            format!("{effect}({principal}, {action}, {resource}){};", conditions.concat())
        },
    )
}

/// Policies that apply to some call. Cedar finds out which do not.
fn policies() -> impl Strategy<Value = String> {
    prop::collection::vec(statement(), 1..=5)
        .prop_map(|statements| {
            let sound = |statement: &String| Policy::parse(statement).is_ok();
            statements.into_iter().filter(sound).collect::<Vec<_>>().join("\n")
        })
        .prop_filter("none holds", |text| !text.is_empty())
}

/// A question with owned parts.
#[derive(Debug, Clone)]
struct GeneratedQuestion {
    principal: Principal,
    action: Action,
    key: Option<NamedKey>,
    meanings: Vec<(&'static str, Option<&'static str>)>,
    transport: Transport,
    messages: u64,
    bytes: u64,
    context: Option<EncryptionContext>,
    recipient: Option<Arc<Measurements>>,
}

impl GeneratedQuestion {
    fn of(&self, policy: &Policy, meanings: &AliasMeanings) -> Decision {
        let facts = Facts {
            transport: self.transport,
            messages: self.messages,
            bytes: self.bytes,
            encryption_context: self.context.as_ref(),
            recipient: self.recipient.as_ref(),
        };
        let (principal, action, key) = (&self.principal, self.action, self.key.as_ref());
        policy.decide(&Question { principal, action, key, meanings, facts })
    }
}

fn asked() -> impl Strategy<Value = GeneratedQuestion> {
    let principal = select(vec![uid(1), uid(2), Principal::Unknown]);
    let key = select(vec![
        None,
        Some(key(KEY)),
        Some(key(OTHER)),
        Some(aliased("alias/a", Some(KEY))),
        Some(aliased("alias/b", Some(OTHER))),
        Some(aliased("alias/b", None)),
    ]);
    let target = || select(vec![None, Some(None), Some(Some(KEY)), Some(Some(OTHER))]);
    let meanings = (target(), target(), target()).prop_map(|(a, b, c)| {
        let known = ALIASES.into_iter().zip([a, b, c]);
        known.filter_map(|(alias, target)| Some((alias, target?))).collect::<Vec<_>>()
    });
    let number = || select(vec![0, 1, 10, 11, 100, 1 << 60, i64::MAX as u64, u64::MAX]);
    let context = |value: &str| {
        EncryptionContext::parse([("tenant".to_owned(), value.to_owned())].into()).expect("short")
    };
    let context = select(vec![None, Some(context("acme")), Some(context("evil"))]);
    let enclave = |module: &str| {
        let pcrs = (0..=2).map(|index| (index, [index; 48])).collect();
        Measurements::new(module, PlatformKind::Enclave, pcrs).map(Arc::new)
    };
    let recipient = select(vec![None, enclave("i-0-enc1"), enclave("i-0-enc2")]);
    let said = (select(Transport::ALL.to_vec()), number(), number(), context, recipient);
    (principal, select(Action::ALL.to_vec()), key, meanings, said).prop_map(
        |(principal, action, key, meanings, (transport, messages, bytes, context, recipient))| {
            GeneratedQuestion {
                principal,
                action,
                key,
                meanings,
                transport,
                messages: messages.max(1),
                bytes,
                context,
                recipient,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn decisions_with_and_without_the_memory_agree(
        text in policies(),
        questions in prop::collection::vec(asked(), 1..10),
        order in prop::collection::vec(any::<Index>(), 30),
    ) {
        let (remembering, mut forgetting) = (policy(&text), policy(&text));
        for place in order {
            let question = place.get(&questions);
            let meanings = known(&question.meanings);
            forgetting.decisions = DecisionCache::default();
            let (again, fresh) = (question.of(&remembering, &meanings), question.of(&forgetting, &meanings));
            prop_assert_eq!(again.permits, fresh.permits, "{}\n{:?}", text, question);
            prop_assert_eq!(again.determining_policies, fresh.determining_policies);
        }
    }

    #[test]
    fn who_knows_less_permits_no_more(text in policies(), question in asked(), forgotten in any::<Index>()) {
        let policy = policy(&text);
        let mut less = question.meanings.clone();
        if !less.is_empty() {
            less.remove(forgotten.index(less.len()));
        }
        if question.of(&policy, &known(&less)).permits {
            let all = question.of(&policy, &known(&question.meanings));
            prop_assert!(all.permits, "{}\n{:?}", text, question);
        }
    }

    #[test]
    fn what_is_denied_for_every_key_is_denied_for_each(text in policies(), question in asked()) {
        let policy = policy(&text);
        let GeneratedQuestion { principal, action, transport, messages, bytes, context, recipient, .. } = &question;
        let (encryption_context, recipient) = (context.as_ref(), recipient.as_ref());
        let facts =
            Facts { transport: *transport, messages: *messages, bytes: *bytes, encryption_context, recipient };
        if policy.denies_every_key(principal, *action, facts).is_some() {
            let keys = [KEY, OTHER].map(|arn| Some(key(arn)));
            let names = ALIASES.map(|alias| Some(aliased(alias, Some(KEY))));
            let none = ALIASES.map(|alias| Some(aliased(alias, None)));
            for key in keys.into_iter().chain(names).chain(none).chain([None, question.key.clone()]) {
                let asked = GeneratedQuestion { key, ..question.clone() };
                let decision = asked.of(&policy, &known(&question.meanings));
                prop_assert!(!decision.permits, "{}\n{:?}", text, asked);
            }
        }
    }
}

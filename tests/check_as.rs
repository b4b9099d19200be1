//! Proves: over a hundred generated policies, `check --as` says what a real call gets; what it cannot know it does not guess; a question
//! without an encryption context is about none; and a principal that nobody can be is told.

#[path = "support/checked.rs"]
mod checked;
mod support;

use checked::{Place, check, told};
use key_broker_client::{Client, Decrypt, Error, GenerateDataKey};
use kms_emulator::KeySpec;
use serde_json::{Value, json};
use support::dice::Dice;
use support::process::Process;
use tokio::task::{JoinSet, block_in_place};
use tonic::Code;

const ACTIONS: [&str; 5] =
    ["GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "Decrypt", "GenerateRandom", "DescribeKey"];

/// Policies of a few statements; about the keys of two ARNs, by ARN or by alias.
fn policies(dice: &mut Dice, arns: [&str; 2]) -> String {
    let me = format!("unix:uid/{}", rustix::process::geteuid().as_raw());
    let mut text = String::new();
    for _ in 0..=dice.below(3) {
        let pick = |dice: &mut Dice, of: &[&str]| {
            of[usize::try_from(dice.below(of.len() as u64)).expect("small")].to_owned()
        };
        let effect = pick(dice, &["permit", "permit", "permit", "forbid"]);
        let principal = pick(
            dice,
            &[
                "principal",
                "principal is Workload",
                "principal == Workload::\"me\"",
                "principal == Workload::\"unix:uid/4242\"",
            ],
        );
        let action = pick(
            dice,
            &[
                "action",
                "action",
                "action == Action::\"GenerateDataKey\"",
                "action in [Action::\"Decrypt\", Action::\"DescribeKey\", Action::\"GenerateDataKeyWithoutPlaintext\"]",
                "action == Action::\"GenerateRandom\"",
            ],
        );
        let resource = if action.contains("GenerateRandom") {
            "resource".to_owned()
        } else {
            let of = [
                "resource".to_owned(),
                format!("resource == Key::\"{}\"", arns[0]),
                format!("resource == Key::\"{}\"", arns[1]),
                "resource in Alias::\"alias/dev\"".to_owned(),
                "resource in Alias::\"alias/other\"".to_owned(),
                "resource in Alias::\"alias/nothing\"".to_owned(),
            ];
            of[usize::try_from(dice.below(6)).expect("small")].clone()
        };
        let has_context = !action.contains("Decrypt") && action != "action" && !action.contains("Random");
        let mut when = vec![
            String::new(),
            " when { context.transport == \"unix\" }".to_owned(),
            " unless { context.transport == \"tls\" }".to_owned(),
            " when { context.messages < 5 }".to_owned(),
        ];
        if !action.contains("Random") {
            when.push(format!(" unless {{ resource == Key::\"{}\" }}", arns[1]));
            when.push(" when { resource.region == \"us-west-2\" }".to_owned());
        }
        if has_context {
            when.push(" when { context.encryptionContext.hasTag(\"tenant\") }".to_owned());
            when.push(
                " when { context.encryptionContext.hasTag(\"tenant\") && context.encryptionContext.getTag(\"tenant\") == \"acme\" }"
                    .to_owned(),
            );
        }
        let when = &when[usize::try_from(dice.below(when.len() as u64)).expect("small")];
        text.push_str(
            &format!("{effect}({principal}, {action}, {resource}){when};\n")
                .replace("\"me\"", &format!("\"{me}\"")),
        );
    }
    text
}

/// Pairs that contexts are bound to, as configuration.
fn bindings(dice: &mut Dice) -> String {
    let words = match dice.below(4) {
        0 => "inject = { tenant = \"acme\" }",
        1 => "require = { tenant = \"acme\" }",
        _ => return String::new(),
    };
    let me = format!("unix:uid/{}", rustix::process::geteuid().as_raw());
    format!("[[policy.encryption_context]]\nprincipal = \"{me}\"\n{words}\n")
}

/// Whether a call came through to KMS: what KMS then says of a ciphertext that is none is no denial.
fn came_through<T>(answer: Result<T, Error>) -> bool {
    match answer {
        Ok(_) => true,
        Err(error) if error.reason() == Some("INVALID_CIPHERTEXT") => true,
        Err(error) => {
            assert!(matches!(error.code(), Code::PermissionDenied | Code::NotFound), "{error}");
            false
        }
    }
}

async fn call(client: &Client, action: &str, key: Option<&str>, context: Option<(&str, &str)>) -> bool {
    let key_id = key.unwrap_or_default();
    let mut request = GenerateDataKey::aes_256(key_id);
    let mut decrypt = Decrypt::new(vec![7; 60]);
    if let Some(key) = key {
        decrypt = decrypt.key_id(key);
    }
    if let Some((name, value)) = context {
        (request, decrypt) = (request.context(name, value), decrypt.context(name, value));
    }
    match action {
        "GenerateDataKey" => came_through(client.generate_data_key(request).await),
        "GenerateDataKeyWithoutPlaintext" => {
            came_through(client.generate_data_key_without_plaintext(request.into()).await)
        }
        "Decrypt" => came_through(client.decrypt(decrypt).await),
        "GenerateRandom" => came_through(client.generate_random(8).await),
        _ => came_through(client.describe_key(key_id).await),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn check_as_and_calls_agree_about_a_hundred_policies() {
    let mut running = JoinSet::new();
    let (mut allowed, mut denied) = (0, 0);
    for number in 0..100_u64 {
        running.spawn(agree(number));
        if running.len() >= 4 {
            let (yes, no) = running.join_next().await.expect("one").expect("agrees");
            (allowed, denied) = (allowed + yes, denied + no);
        }
    }
    while let Some(ended) = running.join_next().await {
        let (yes, no) = ended.expect("agrees");
        (allowed, denied) = (allowed + yes, denied + no);
    }
    assert!(allowed > 100 && denied > 100, "{allowed} yes, {denied} no: neither is proved by few");
}

/// Compares what is said with what is got, for one set of policies; returns the numbers of yes and no.
async fn agree(number: u64) -> (u32, u32) {
    let mut dice = Dice::new(number + 7);
    let words = bindings(&mut dice);
    let place = Place::new().await;
    let dev = place.emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    let other = place.emulator.ensure_key("alias/other", KeySpec::SymmetricDefault).expect("a key");
    let policy = policies(&mut dice, [&dev, &other]);
    let config = place.config(&words);
    place.policy(&policy);
    let broker = block_in_place(|| Process::serve(&config));
    let client = Client::unix(place.dir.path().join("broker.sock")).await.expect("it listens");
    let context = [None, Some(("tenant", "acme")), Some(("tenant", "evil"))]
        [usize::try_from(dice.below(3)).expect("small")];
    let me = format!("unix:uid/{}", rustix::process::geteuid().as_raw());
    let (mut yes, mut no) = (0, 0);
    for key in [Some("alias/dev"), Some(&*other), Some("alias/nothing"), None] {
        let mut arguments = vec!["--json", "--as", &me];
        let pair = context.map(|(name, value)| format!("{name}={value}"));
        if let Some(pair) = &pair {
            arguments.extend(["--context", pair]);
        }
        if let Some(key) = key {
            arguments.extend(["--key", key]);
        }
        let output = check(&config, &arguments);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let answers: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        for action in ACTIONS {
            let is_it = |answer: &&Value| {
                answer["action"] == *action && (key.is_some() || answer["key"] == "(no key named)")
            };
            let Some(answer) = answers["answers"].as_array().expect("a list").iter().find(is_it) else {
                continue;
            };
            let gets = call(&client, action, key, context).await;
            let says = match answer["result"].as_str() {
                Some("allowed") => true,
                Some("denied") => false,
                other => panic!("{other:?}"),
            };
            assert_eq!(says, gets, "{number}: {action} {key:?} {context:?} {words}\n{policy}\n{answer}");
            (yes, no) = (yes + u32::from(gets), no + u32::from(!gets));
        }
    }
    drop(broker);
    (yes, no)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_said_and_not_guessed() {
    let place = Place::new().await;
    let config = place.config("");
    let me = "unix:uid/1001";
    let asked = |arguments: &[&str]| {
        check(&config, &[&["--offline", "--as", me, "--action", "Decrypt"], arguments].concat()).status.code()
    };
    // By the alias it is permitted, whatever the alias means.
    place.policy("permit(principal, action, resource in Alias::\"alias/dev\");");
    assert_eq!(asked(&["--key", "alias/dev"]), Some(2), "there may be no such key");
    assert_eq!(asked(&["--key", "alias/other"]), Some(2), "it may mean the same key");
    // Whatever it means, it is denied.
    place.policy("permit(principal, action, resource); forbid(principal, action, resource);");
    assert_eq!(asked(&["--key", "alias/dev"]), Some(1));
    // What a policy says of an alias may hold for this very key.
    let arn = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    place.policy(
        "permit(principal, action, resource); forbid(principal, action, resource in Alias::\"alias/dev\");",
    );
    assert_eq!(asked(&["--key", arn]), Some(2));
    place.policy(&format!("permit(principal, action, resource == Key::\"{arn}\");"));
    assert_eq!(asked(&["--key", arn]), Some(0));
    let none = check(&config, &["--offline", "--as", me, "--action", "GenerateRandom", "--key", "alias/dev"]);
    assert_eq!(none.status.code(), Some(64), "{}", told(&none));
}

/// A question without an encryption context is not taken for one about every context.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_about_the_context_that_is_given() {
    let place = Place::new().await;
    let config = place.config_for_elsewhere();
    for (pairs, asked) in [(json!({}), "without an encryption context"), (json!({ "a": "b" }), "context a=b")]
    {
        let pair = ["--context", "a=b"];
        let ask = ["--offline", "--as", "unix:uid/1"].into_iter();
        let ask: Vec<_> = ask.chain(pair.into_iter().filter(|_| pairs != json!({}))).collect();
        let output = check(&config, &ask);
        assert!(told(&output).contains(asked), "{}", told(&output));
        let output = check(&config, &[&ask[..], &["--json"]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["encryptionContext"], pairs);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principal_that_nobody_can_be_is_told() {
    let place = Place::new().await;
    let config = place.config(
        "[identity]\ntrust_domain = \"example.org\"\n[[identity.unix]]\nuid = 0\nprincipal = \"spiffe://example.org/root\"\n",
    );
    for (principal, is_told) in [
        ("unix:uid/0", true),
        ("unix:uid/1", false),
        ("vsock:cid/16", true),
        ("spiffe://elsewhere.org/app", true),
        ("spiffe://example.org/root", false),
    ] {
        let output = check(&config, &["--as", principal]);
        assert_eq!(told(&output).contains("no caller is"), is_told, "{principal}: {}", told(&output));
    }
}

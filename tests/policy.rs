//! Proves: a policy that is replaced holds from the very next call, whole or not at all, and the trail tells; an alias that is moved
//! brings no key past policy, and what a policy says of an alias holds under every name of its key; what is denied and what does not exist read the same; encryption contexts are bound; `check --as`
//! says what calls get.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use key_broker::{Limits, ShareLimits};
use key_broker_client::{Client, Decrypt, Error, GenerateDataKey};
use kms_emulator::{Fault, KeySpec};
use peers::kms;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::process::{Process, binary};
use support::site::Site;
use support::{Records, Setup, TestBroker, eventually};
use tonic::Code;

async fn generate(client: &Client, key: &str) -> Result<String, Error> {
    let reply = client.generate_data_key(GenerateDataKey::aes_256(key)).await?;
    Ok(reply.provenance.kms_request_id)
}

fn code<T>(result: Result<T, Error>) -> Code {
    result.map_or_else(|error| error.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_policy_holds_from_the_next_call_and_a_mistake_changes_nothing() {
    let site = Site::new().await;
    let config = site.config("[reuse]\nmax_messages = 1000\n");
    let broker = Process::serve(&config);
    let client = Client::unix(site.socket()).await.expect("listens");
    let take = |policy: &str, said: &str| {
        let before = broker.log().matches(said).count();
        replace(&site, policy);
        broker.signal(Signal::HUP);
        let (log, said) = (|| broker.log(), said.to_owned());
        async move { eventually("it is told", || log().matches(&said).count() > before).await }
    };
    let taken = "new policies are in force";
    // Answers are kept and remembered; that is no reason to go on giving them.
    assert_eq!(code(generate(&client, "alias/dev").await), Code::Ok);
    for _ in 0..5 {
        take("", taken).await;
        assert_eq!(code(generate(&client, "alias/dev").await), Code::PermissionDenied);
        take("permit(principal is Workload, action, resource);", taken).await;
        assert_eq!(code(generate(&client, "alias/dev").await), Code::Ok);
    }
    take("permit(principal is Workload, action, resource); forbid(", "not loaded").await;
    assert_eq!(code(generate(&client, "alias/dev").await), Code::Ok);
    take("permit(principal == Workload::\"orders\", action, resource);", "not loaded").await;
    assert_eq!(code(generate(&client, "alias/dev").await), Code::Ok);
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());

    let activity = support::trail::records(&site.store()).activity;
    let versions: Vec<_> =
        activity.iter().map(|record| record["additionalEventData"]["policy"]["version"].clone()).collect();
    assert!(versions.iter().all(Value::is_string), "{versions:?}");
    assert_ne!(versions[1], versions[2], "another policy has another version");
    assert_eq!(versions[1], versions[3], "the same policy has the same");
    let reloads = |name: &str| -> u64 {
        activity.iter().filter_map(|record| record["additionalEventData"]["reloads"][name].as_u64()).sum()
    };
    assert_eq!((reloads("policy"), reloads("policyRefused")), (10, 2));
}

/// Puts another policy file in the place of the one there.
fn replace(site: &Site, policy: &str) {
    let beside = site.dir.path().join("next.cedar");
    fs::write(&beside, policy).expect("writes");
    fs::rename(&beside, site.dir.path().join("policy.cedar")).expect("renames");
}

/// Proves: a file that is written in place, its permit before its forbid, is never taken half, whatever SIGHUPs come meanwhile; it
/// is taken once it has stayed the same for five seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_policy_is_not_taken() {
    let site = Site::new().await;
    let permit = "permit(principal is Workload, action, resource);\n";
    let forbid = r#"@id("no") forbid(principal, action, resource in Alias::"alias/dev");"#;
    let broker = serve(&site, &format!("{permit}{forbid}"), "");
    let client = Client::unix(site.socket()).await.expect("listens");
    let path = site.dir.path().join("policy.cedar");
    for half in ["", permit] {
        fs::write(&path, half).expect("writes");
        for _ in 0..10 {
            broker.signal(Signal::HUP);
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(code(generate(&client, "alias/dev").await), Code::PermissionDenied);
            assert_eq!(code(generate(&client, "alias/forbidden").await), Code::Ok);
        }
    }
    let taken = || broker.log().matches("new policies are in force").count();
    assert_eq!(taken(), 0);
    fs::write(&path, format!("{permit}// Nobody is denied any more.\n")).expect("writes");
    broker.signal(Signal::HUP);
    eventually("it has stayed the same", || taken() == 1).await;
    assert_eq!(code(generate(&client, "alias/dev").await), Code::Ok);
    stop(&site, broker);
}

/// Proves: what a policy says of an alias holds under every name of the key that it means, and for a Decrypt that names none, and the
/// record names the policy; an alias of the broker's own account by its ARN stops the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbid_by_alias_holds_under_every_name() {
    let site = Site::new().await;
    let ensure = |alias| site.emulator.ensure_key(alias, KeySpec::SymmetricDefault).expect("a key");
    let (dev, secret) = (ensure("alias/dev"), ensure("alias/secret"));
    let policy = r#"permit(principal, action, resource);
        @id("secret") forbid(principal, action == Action::"Decrypt", resource in Alias::"alias/secret");
        @id("gone") forbid(principal, action, resource in Alias::"alias/gone");"#;
    let broker = serve(&site, policy, "");
    let client = Client::unix(site.socket()).await.expect("listens");
    let made = client.generate_data_key(GenerateDataKey::aes_256("alias/secret")).await.expect("permitted");
    let id = secret.rsplit('/').next().expect("an id").to_owned();
    let names = [
        "alias/secret".to_owned(),
        secret.clone(),
        id,
        "arn:aws:kms:us-west-2:111122223333:alias/secret".into(),
    ];
    let decrypt = || Decrypt::new(made.ciphertext_blob.clone());
    for name in &names {
        assert_eq!(code(client.decrypt(decrypt().key_id(name)).await), Code::PermissionDenied, "{name}");
    }
    assert_eq!(code(client.decrypt(decrypt()).await), Code::PermissionDenied, "no key named");
    assert_eq!(code(generate(&client, &dev).await), Code::Ok, "another key, though one alias means none");
    let records = stop(&site, broker);
    let denied = records.activity.iter().filter(|record| record["errorCode"] == "AccessDenied");
    let by: Vec<_> =
        denied.map(|record| &record["additionalEventData"]["policy"]["determiningPolicies"]).collect();
    assert_eq!(by, vec![&json!(["secret"]); 5], "the record names the policy that denied");

    // What permits by an alias does so for every name, too: the caller needs no more than the key of its data.
    let broker = serve(&site, r#"permit(principal, action, resource in Alias::"alias/secret");"#, "");
    let client = Client::unix(site.socket()).await.expect("listens");
    for name in &names {
        assert_eq!(code(client.decrypt(decrypt().key_id(name)).await), Code::Ok, "{name}");
    }
    let unnamed = client.decrypt(decrypt()).await.expect_err("no policy permits any key");
    assert!(unnamed.message().contains("set key_id"), "{}", unnamed.message());
    stop(&site, broker);

    let own =
        r#"permit(principal, action, resource in Alias::"arn:aws:kms:us-west-2:111122223333:alias/dev");"#;
    let config = site.config("");
    replace(&site, own);
    let refused = Process::spawn(&["serve", "--config", config.to_str().expect("a path")], site.dir.path());
    refused.wait_for_log(r#"write Alias::"alias/dev""#);
    assert_eq!(refused.wait().code(), Some(64));
}

/// Proves: while KMS has never said what an alias means, a forbid by it holds for every key that it could mean, and is lifted once it
/// has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbid_by_an_alias_that_is_not_known_holds_for_every_key() {
    let site = Site::new().await;
    let dev = site.emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    site.emulator.ensure_key("alias/secret", KeySpec::SymmetricDefault).expect("a key");
    let config = site.config("");
    let broker = Process::serve(&config);
    let client = Client::unix(site.socket()).await.expect("listens");
    assert_eq!(code(generate(&client, &dev).await), Code::Ok, "kept from now on");
    site.emulator.inject(Fault::internal_error().on("DescribeKey"));
    let taken = || broker.log().matches("new policies are in force").count();
    replace(
        &site,
        r#"permit(principal, action, resource); @id("no") forbid(principal, action, resource in Alias::"alias/secret");"#,
    );
    broker.signal(Signal::HUP);
    eventually("it is told", || taken() == 1).await;
    assert_eq!(code(generate(&client, &dev).await), Code::PermissionDenied);
    assert!(broker.log().contains("a forbid by it applies to every key"), "{}", broker.log());
    site.emulator.clear_faults();
    let mut outcome = Code::PermissionDenied;
    for _ in 0..100 {
        outcome = code(generate(&client, &dev).await);
        if outcome == Code::Ok {
            break;
        }
        assert_eq!(outcome, Code::PermissionDenied);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(outcome, Code::Ok, "KMS has said what it means");
    stop(&site, broker);
}

/// A broker of its own before the site's KMS, with these policies, and further lines of `[policy]`.
fn serve(site: &Site, policy: &str, more: &str) -> Process {
    let config = site.config("");
    fs::write(site.dir.path().join("policy.cedar"), policy).expect("writes");
    let text = fs::read_to_string(&config).expect("reads");
    fs::write(&config, text.replace("[policy]\n", &format!("[policy]\n{more}"))).expect("writes");
    Process::serve(&config)
}

fn stop(site: &Site, broker: Process) -> Records {
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
    support::trail::records(&site.store())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_that_is_moved_brings_no_key_past_policy() {
    let site = Site::new().await;
    let dev = site.emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    let secret = site.emulator.ensure_key("alias/secret", KeySpec::SymmetricDefault).expect("a key");
    let policy = format!(r#"permit(principal, action, resource == Key::"{dev}");"#);
    let broker = serve(&site, &policy, "");
    let client = Client::unix(site.socket()).await.expect("listens");
    for (key, wanted) in [
        ("alias/dev", Code::Ok),
        (&dev, Code::Ok),
        (dev.rsplit('/').next().expect("an id"), Code::Ok),
        ("arn:aws:kms:us-west-2:111122223333:alias/dev", Code::Ok),
        (&secret, Code::PermissionDenied),
        ("alias/secret", Code::PermissionDenied),
    ] {
        assert_eq!(code(generate(&client, key).await), wanted, "{key}");
    }
    let request = json!({ "AliasName": "alias/dev", "TargetKeyId": secret });
    let (endpoint, moved) = (site.emulator.endpoint_url(), request.clone());
    tokio::task::spawn_blocking(move || kms(&endpoint, "UpdateAlias", &moved)).await.expect("moved");
    // As long as the broker believes what it meant, KMS is asked for the key that was permitted.
    let request = GenerateDataKey::aes_256("alias/dev").fresh();
    let made = client.generate_data_key(request).await.expect("permitted");
    assert_eq!(made.key_id, dev);
    // A broker that learns it anew denies it.
    let records = stop(&site, broker);
    let denied = serve(&site, &policy, "");
    let client = Client::unix(site.socket()).await.expect("listens");
    assert_eq!(code(generate(&client, "alias/dev").await), Code::PermissionDenied);
    assert_eq!(code(generate(&client, &dev).await), Code::Ok);
    let all = stop(&site, denied);
    let mut described: Vec<_> =
        all.resolved.iter().map(|record| &record["requestParameters"]["keyId"]).collect();
    described.sort_by_key(ToString::to_string);
    assert_eq!(described, ["alias/dev", "alias/dev", "alias/secret"], "each alias once for each broker");
    // The workload's name for the key in its record, the key in KMS's.
    let last = records.activity.last().expect("a record");
    assert_eq!(
        (&last["requestParameters"]["keyId"], &last["resources"][0]["ARN"]),
        (&"alias/dev".into(), &dev.clone().into())
    );
    let minted =
        records.kms.iter().rfind(|record| record["eventName"] == "GenerateDataKey").expect("a record");
    assert_eq!(minted["requestParameters"]["keyId"], dev.as_str());
}

/// Proves: a Decrypt that names no key is held to what policy says of the key that KMS answers with, also where its plaintext could be
/// kept; and the record tells of the denial, and of the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_key_stays_closed_to_a_decrypt_that_does_not_name_it() {
    let site = Site::new().await;
    let dev = site.emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    let secret = site.emulator.ensure_key("alias/secret", KeySpec::SymmetricDefault).expect("a key");
    let policy = format!(
        r#"permit(principal, action, resource);
           @id("secret") forbid(principal, action == Action::"Decrypt", resource == Key::"{secret}");"#
    );
    let broker = serve(&site, &policy, "");
    let client = Client::unix(site.socket()).await.expect("listens");
    let made_with = async |key: &str| {
        let made = client.generate_data_key(GenerateDataKey::aes_256(key)).await.expect("permitted");
        made.ciphertext_blob
    };
    let (open, closed) = (made_with("alias/dev").await, made_with("alias/secret").await);
    // Twice: what could be kept, and what would come from there.
    for _ in 0..2 {
        assert!(client.decrypt(Decrypt::new(open.clone())).await.is_ok());
        assert_eq!(code(client.decrypt(Decrypt::new(closed.clone())).await), Code::PermissionDenied);
        assert_eq!(
            code(client.decrypt(Decrypt::new(closed.clone()).key_id("alias/secret")).await),
            Code::PermissionDenied
        );
    }
    let records = stop(&site, broker);
    let denied: Vec<_> = records
        .activity
        .iter()
        .filter(|record| record["additionalEventData"]["outcome"] == "Denied")
        .map(|record| (&record["eventName"], &record["errorCode"], &record["resources"][0]["ARN"]))
        .collect();
    assert_eq!(denied.len(), 4, "{denied:?}");
    let (decrypt, access_denied, secret) = (json!("Decrypt"), json!("AccessDenied"), json!(secret));
    assert!(denied.iter().all(|told| *told == (&decrypt, &access_denied, &secret)), "{denied:?}");
    let used = records.activity.iter().filter(|record| record["resources"][0]["ARN"] == json!(dev));
    assert_eq!(used.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denied_and_unknown_read_the_same_but_to_whom_may_any_key() {
    let site = Site::new().await;
    let dev = site.emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    site.emulator.ensure_key("alias/secret", KeySpec::SymmetricDefault).expect("a key");
    let one = format!(r#"permit(principal, action, resource == Key::"{dev}");"#);
    let mut texts = Vec::new();
    for (policy, unknown) in
        [(&*one, Code::PermissionDenied), ("permit(principal, action, resource);", Code::NotFound)]
    {
        let broker = serve(&site, policy, "");
        let client = Client::unix(site.socket()).await.expect("listens");
        for key in ["alias/nothing", "alias/secret"] {
            let error =
                generate(&client, key).await.map_err(|error| (error.code(), error.message().to_owned()));
            texts.push((key, error.as_ref().err().map(|(_, text)| text.replace(key, "KEY"))));
            let wanted = if key == "alias/secret" && unknown == Code::NotFound { Code::Ok } else { unknown };
            assert_eq!(error.map_or_else(|(code, _)| code, |_| Code::Ok), wanted, "{key} {policy}");
        }
        let records = stop(&site, broker);
        assert!(records.activity.len() >= 2);
    }
    assert_eq!(texts[0].1, texts[1].1, "word for word");
    assert!(texts[0].1.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encryption_contexts_are_bound_to_their_principals() {
    let site = Site::new().await;
    let me = format!("unix:uid/{}", rustix::process::geteuid().as_raw());
    let more = format!(
        "[[policy.encryption_context]]\nprincipal = \"{me}\"\ninject = {{ tenant = \"acme\" }}\nrequire = {{ purpose = \"orders\" }}\n\
         [[policy.encryption_context]]\nprincipal = \"unix:uid/4242\"\ninject = {{ tenant = \"evil\" }}\n"
    );
    let config = site.config("");
    let text = fs::read_to_string(&config).expect("reads") + &more;
    fs::write(&config, text).expect("writes");
    let broker = Process::serve(&config);
    let client = Client::unix(site.socket()).await.expect("listens");
    let good = || GenerateDataKey::aes_256("alias/dev").context("purpose", "orders");
    let made = client.generate_data_key(good()).await.expect("bound");
    for (request, why) in [
        (GenerateDataKey::aes_256("alias/dev"), "purpose"),
        (GenerateDataKey::aes_256("alias/dev").context("purpose", "billing"), "purpose"),
        (good().context("tenant", "evil"), "tenant"),
    ] {
        let error = client.generate_data_key(request).await.expect_err("not bound");
        assert_eq!(
            (error.code(), error.reason()),
            (Code::PermissionDenied, Some("ENCRYPTION_CONTEXT_NOT_PERMITTED"))
        );
        assert!(error.message().contains(&format!("{why:?}")), "{}", error.message());
    }
    client.generate_data_key(good().context("tenant", "acme")).await.expect("what is injected may be sent");
    let opens = |request: Decrypt| client.decrypt(request.context("purpose", "orders"));
    let decrypted = opens(Decrypt::new(made.ciphertext_blob.clone())).await.expect("bound likewise");
    assert_eq!(decrypted.plaintext.expose(), made.plaintext.expose());
    let other = opens(Decrypt::new(made.ciphertext_blob).context("tenant", "evil")).await;
    assert_eq!(code(other), Code::PermissionDenied);
    let records = stop(&site, broker);
    let minted =
        records.kms.iter().find(|record| record["eventName"] == "GenerateDataKey").expect("a record");
    let context = json!({ "purpose": "orders", "tenant": "acme" });
    assert_eq!(minted["requestParameters"]["encryptionContext"], context, "what KMS has bound");
    assert_eq!(records.activity[0]["requestParameters"]["encryptionContext"], context);
    let denied =
        records.activity.iter().filter(|record| record["additionalEventData"]["outcome"] == "Denied").count();
    assert_eq!(denied, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_principal_takes_its_share_and_no_more() {
    let calls_per_second = std::num::NonZeroU32::new(5);
    let defaults = Setup::default();
    let share = ShareLimits { connections: 3, calls_in_flight: 2, calls_per_second };
    let limits = Limits { share, ..defaults.limits };
    let broker = TestBroker::with(Setup {
        limits,
        insecure_tcp: true,
        policy: "permit(principal, action, resource);".into(),
        ..defaults
    })
    .await;
    let client = broker.client().await;
    let mut outcomes = Vec::new();
    for _ in 0..20 {
        outcomes.push(client.generate_random(1).await);
    }
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!((14..=15).contains(&refused.len()), "five at once, and one that came due: {refused:?}");
    for error in refused {
        assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("TOO_FAST")));
        assert!(error.retry_after().is_some_and(|delay| delay <= Duration::from_secs(1)));
    }
    let address = broker.tcp_address().expect("listens").to_string();
    let other = Client::insecure_tcp(&address).await.expect("connects");
    other.generate_random(1).await.expect("another principal has its own");
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.generate_random(1).await.expect("it may again");
    // Slow calls fill its slots.
    broker.emulator.inject(Fault::latency(Duration::from_millis(500)).on("GenerateRandom").times(2));
    let slow: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.generate_random(1).await.map(drop) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(150)).await;
    let error = client.generate_random(1).await.expect_err("two are in flight");
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("TOO_MANY_OWN_CALLS")));
    for call in slow {
        call.await.expect("no panic").expect("answered");
    }
    // Its third connection is the last.
    let _second = broker.client().await;
    let third = broker.client().await;
    assert!(third.is_alive().await.is_ok());
    let fourth = match Client::unix(broker.socket()).await {
        Ok(client) => client.is_alive().await.is_ok(),
        Err(_) => false,
    };
    assert!(!fourth);
    let records = broker.stop().await;
    let throttled = records
        .activity
        .iter()
        .filter(|record| record["additionalEventData"]["outcome"] == "Throttled")
        .count();
    assert!((15..=16).contains(&throttled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_what_a_principal_gets() {
    let site = Site::new().await;
    let dev = site.emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    let config = site.config("");
    let policy = format!(
        r#"@id("orders") permit(principal == Workload::"spiffe://example.org/orders", action in [Action::"GenerateDataKey", Action::"Decrypt"], resource == Key::"{dev}")
             when {{ context.transport == "tls" && context.encryptionContext.hasTag("tenant") }};
           @id("random") permit(principal, action == Action::"GenerateRandom", resource);
           @id("no-uid-7") forbid(principal == Workload::"unix:uid/7", action, resource);
           @id("eight") permit(principal == Workload::"unix:uid/8", action == Action::"Decrypt", resource)
             when {{ context.encryptionContext.hasTag("tenant") && context.messages <= 1 }};
           @id("dev") forbid(principal == Workload::"unix:uid/8", action, resource in Alias::"alias/dev");"#
    );
    let text = fs::read_to_string(&config).expect("reads");
    let bound = "[[policy.encryption_context]]\nprincipal = \"unix:uid/8\"\ninject = { tenant = \"acme\" }\n";
    fs::write(&config, text + bound).expect("writes");
    fs::write(site.dir.path().join("policy.cedar"), policy).expect("writes");
    let mut told = Vec::new();
    for (arguments, code) in [
        (&["--as", "spiffe://example.org/orders", "--transport", "tls", "--context", "tenant=acme"][..], 0),
        (
            &[
                "--as",
                "spiffe://example.org/orders",
                "--action",
                "Decrypt",
                "--key",
                "alias/dev",
                "--transport",
                "tls",
                "--context",
                "tenant=acme",
            ],
            0,
        ),
        (
            &[
                "--as",
                "spiffe://example.org/orders",
                "--action",
                "Decrypt",
                "--key",
                "alias/dev",
                "--transport",
                "tls",
            ],
            1,
        ),
        (&["--as", "unix:uid/7", "--action", "GenerateRandom"], 1),
        // What the broker injects, and every name of a key that an alias means.
        (&["--as", "unix:uid/8", "--action", "Decrypt"], 0),
        (&["--as", "unix:uid/8", "--action", "Decrypt", "--key", &dev], 1),
        (&["--as", "unix:uid/8", "--action", "Decrypt", "--key", "alias/forbidden"], 0),
        (&["--as", "unix:uid/8", "--action", "Decrypt", "--key", "alias/nothing"], 1),
        (&["--as", "unix:uid/8", "--action", "Decrypt", "--context", "tenant=evil"], 1),
        (&["--as", "orders"], 64),
        (&["--as", "unknown", "--action", "Sign"], 64),
    ] {
        let mut check = Command::new(binary());
        check.args(["check", "--config"]).arg(&config).args(arguments);
        check.env("AWS_ACCESS_KEY_ID", "AKIATESTEXAMPLE00000").env("AWS_SECRET_ACCESS_KEY", "test-only");
        let output =
            tokio::task::spawn_blocking(move || check.output()).await.expect("no panic").expect("runs");
        let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}{why}");
        let why = why.lines().next().unwrap_or_default();
        told.push(format!("$ check {}\n{said}{why}\n", arguments.join(" ")));
    }
    let told = told.concat();
    let version =
        told.lines().find_map(|line| line.strip_prefix("policy version ")).expect("a version").to_owned();
    let other = site.emulator.ensure_key("alias/forbidden", KeySpec::SymmetricDefault).expect("a key");
    let told = told.replace(&dev, "ARN").replace(&other, "ARN OF ANOTHER");
    insta::assert_snapshot!(told.replace(&version, "VERSION"));
}

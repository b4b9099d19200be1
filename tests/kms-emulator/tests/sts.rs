//! Proves that `GetCallerIdentity` answers in STS's form, on success and on error.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use http::Method;
use kms_emulator::{Emulator, EmulatorConfig, Fault};

use support::{AUTHORIZATION, Client, Reply};

async fn ask(client: &mut Client, form: &str) -> Reply {
    let headers = [("authorization", AUTHORIZATION), ("content-type", "application/x-www-form-urlencoded")];
    client.send(Method::POST, "/", &headers, form).await.unwrap()
}

#[tokio::test]
async fn the_caller_is_told_who_it_is() {
    let config = EmulatorConfig {
        caller_arn: "arn:aws:iam::111122223333:user/a&b".to_owned(),
        ..EmulatorConfig::default()
    };
    let emulator = Emulator::start(config).await.unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let reply = ask(&mut client, "Action=GetCallerIdentity&Version=2011-06-15").await;
    let body = String::from_utf8(reply.body.to_vec()).unwrap();
    assert_eq!(reply.headers["content-type"], "text/xml");
    for part in [
        "<Arn>arn:aws:iam::111122223333:user/a&amp;b</Arn>",
        "<UserId>AROADEVKEYBROKER00001:dev-session</UserId>",
        "<Account>111122223333</Account>",
        &format!("<RequestId>{}</RequestId>", reply.request_id()),
    ] {
        assert!(body.contains(part), "{part} in {body}");
    }
    assert_eq!(emulator.call_count("GetCallerIdentity"), 1);
}

#[tokio::test]
async fn refusals_are_xml() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let unknown = ask(&mut client, "Action=AssumeRole&Version=2011-06-15").await;
    assert!(
        unknown.status == 400
            && String::from_utf8_lossy(&unknown.body).contains("<Code>InvalidAction</Code>")
    );
    emulator.inject(Fault::throttling().on("GetCallerIdentity"));
    let throttled = ask(&mut client, "Action=GetCallerIdentity&Version=2011-06-15").await;
    assert!(String::from_utf8_lossy(&throttled.body).contains("<Code>Throttling</Code>"));
    assert_eq!(throttled.request_id().len(), 36);
}

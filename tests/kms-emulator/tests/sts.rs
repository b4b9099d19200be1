//! Proves that `GetCallerIdentity` and `AssumeRole` answer in STS's form, on success and on error, and that whoever assumed a role is
//! told so.

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
    let unknown = ask(&mut client, "Action=GetFederationToken&Version=2011-06-15").await;
    assert!(
        unknown.status == 400
            && String::from_utf8_lossy(&unknown.body).contains("<Code>InvalidAction</Code>")
    );
    emulator.inject(Fault::throttling().on("GetCallerIdentity"));
    let throttled = ask(&mut client, "Action=GetCallerIdentity&Version=2011-06-15").await;
    assert!(String::from_utf8_lossy(&throttled.body).contains("<Code>Throttling</Code>"));
    assert_eq!(throttled.request_id().len(), 36);
}

#[tokio::test]
async fn a_role_is_assumed_and_its_session_is_told() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.unwrap();
    let mut client = Client::connect(&emulator.endpoint_url()).await;
    let role = "arn%3Aaws%3Aiam%3A%3A444455556666%3Arole%2Fteam%2Fkeys";
    let assumed = ask(
        &mut client,
        &format!("Action=AssumeRole&RoleArn={role}&RoleSessionName=a%2Bb&DurationSeconds=900"),
    )
    .await;
    let body = String::from_utf8(assumed.body.to_vec()).unwrap();
    let arn = "<Arn>arn:aws:sts::444455556666:assumed-role/keys/a+b</Arn>";
    assert!(body.contains(arn) && body.contains("<Expiration>20"), "{body}");
    let (_, key) = body.split_once("<AccessKeyId>").unwrap();
    let (key, _) = key.split_once("</AccessKeyId>").unwrap();
    let signed = format!(
        "AWS4-HMAC-SHA256 Credential={key}/20260101/us-west-2/sts/aws4_request, SignedHeaders=host, Signature=0"
    );
    let headers = [("authorization", &*signed), ("content-type", "application/x-www-form-urlencoded")];
    let told = client.send(Method::POST, "/", &headers, "Action=GetCallerIdentity").await.unwrap();
    let body = String::from_utf8(told.body.to_vec()).unwrap();
    assert!(body.contains(arn) && body.contains("<Account>444455556666</Account>"), "{body}");
    for form in ["RoleArn=x&RoleSessionName=y", "RoleSessionName=y", "RoleArn=arn:aws:iam::1:role/x"] {
        let refused = ask(&mut client, &format!("Action=AssumeRole&{form}")).await;
        assert!(String::from_utf8_lossy(&refused.body).contains("<Code>ValidationError</Code>"), "{form}");
    }
}

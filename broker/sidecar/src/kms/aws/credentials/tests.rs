//! New credentials are used as they come, with their owners; an owner that STS does not return at once is reported later; another
//! account's credentials are never used; and a failing source does no harm while the previous credentials last.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use std::time::SystemTime;

use key_broker_core::clock::{Clock as _, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::kms::aws::AwsSettings;

/// What the source returns next.
#[derive(Debug, Default)]
struct Script {
    given: AtomicU32,
    /// The life of credentials in milliseconds.
    life: AtomicU32,
    fails: AtomicBool,
}

#[derive(Debug)]
struct Scripted(Arc<Script>);

impl ProvideCredentials for Scripted {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let script = &self.0;
        if script.fails.load(Ordering::SeqCst) {
            return future::ProvideCredentials::ready(Err(CredentialsError::provider_error(
                "the source is down",
            )));
        }
        let turn = script.given.fetch_add(1, Ordering::SeqCst) + 1;
        let life = Duration::from_millis(script.life.load(Ordering::SeqCst).into());
        let end = SystemTime::from(SystemClock.now() + life);
        let credentials = Credentials::new(format!("ASIA{turn}"), "s", Some("t".into()), Some(end), "test");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

/// An STS on loopback that returns a session by the access key that signed the request.
struct Sts {
    url: String,
    is_silent: Arc<AtomicBool>,
    account: Arc<Mutex<&'static str>>,
}

impl Sts {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (is_silent, account) = (Arc::<AtomicBool>::default(), Arc::new(Mutex::new("111122223333")));
        let (silent, of) = (Arc::clone(&is_silent), Arc::clone(&account));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let account = *of.lock().expect("no panic");
                tokio::spawn(answer(stream, silent.load(Ordering::SeqCst), account));
            }
        });
        Self { url, is_silent, account }
    }
}

async fn answer(mut stream: TcpStream, is_silent: bool, account: &str) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or_default() == 0 {
            return;
        }
    }
    if is_silent {
        return;
    }
    let text = String::from_utf8_lossy(&request);
    let (_, after) = text.split_once("Credential=").expect("signed");
    let key = after.split('/').next().expect("a key");
    let body = format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>arn:aws:sts::{account}:assumed-role/broker/{key}</Arn><UserId>AROA:{key}</UserId><Account>{account}</Account>\
         </GetCallerIdentityResult></GetCallerIdentityResponse>"
    );
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\nx-amzn-requestid: r\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn in_use(script: &Arc<Script>, sts: &Sts) -> (CredentialsInUse, Arc<Sessions>) {
    let settings = AwsSettings {
        region: "us-west-2".into(),
        endpoint_url: None,
        sts_endpoint_url: None,
        connect_timeout: Duration::from_secs(1),
        attempt_timeout: Duration::from_secs(1),
        max_attempts: 1,
        role_arn: None,
        session_name: None,
        imds_connect_timeout: Duration::from_secs(1),
        imds_read_timeout: Duration::from_secs(1),
        fallback_regions: Vec::new(),
        fallback_endpoint_urls: std::collections::BTreeMap::new(),
        account_roles: std::collections::BTreeMap::new(),
    };
    let shared = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-west-2"))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(&sts.url)
        .build();
    let given = aws_credential_types::provider::SharedCredentialsProvider::new(Scripted(Arc::clone(script)));
    let source = Source::new(Some(given), settings, &shared);
    let sessions = Arc::new(Sessions::new(Vec::new()));
    let client = aws_sdk_sts::Client::new(&shared);
    (CredentialsInUse::start(source, client, Arc::clone(&sessions), None, Arc::new(SystemClock)), sessions)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} never came to pass");
}

fn script(life: u32) -> Arc<Script> {
    let script = Script::default();
    script.life.store(life, Ordering::SeqCst);
    Arc::new(script)
}

async fn key(credentials: &CredentialsInUse) -> String {
    credentials.credentials().await.expect("there are some").access_key_id().to_owned()
}

#[tokio::test]
async fn each_renewal_is_in_use_with_its_session_and_none_is_waited_for() {
    let (script, sts) = (script(1_000), Sts::start().await);
    let (credentials, sessions) = in_use(&script, &sts);
    let session = credentials.session().await.expect("known");
    assert_eq!(session.arn.as_deref(), Some("arn:aws:sts::111122223333:assumed-role/broker/ASIA1"));
    while script.given.load(Ordering::SeqCst) < 6 {
        let key = key(&credentials).await;
        let session = sessions.for_record(&key).expect("it is known before it is used");
        assert!(session.arn.as_deref().is_some_and(|arn| arn.ends_with(&key)), "{key}");
        assert_eq!(session.access_key_id.as_deref(), Some(&*key));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_sts_does_not_tell_is_told_later() {
    let (script, sts) = (script(3_600_000), Sts::start().await);
    sts.is_silent.store(true, Ordering::SeqCst);
    let (credentials, sessions) = in_use(&script, &sts);
    assert_eq!(key(&credentials).await, "ASIA1", "they are used all the same");
    assert!(credentials.session().await.is_err());
    assert!(sessions.for_record("ASIA1").is_none());
    // Other credentials may be in use by then.
    credentials.doubt();
    sts.is_silent.store(false, Ordering::SeqCst);
    let told = sessions.to_report().await;
    let arns: Vec<_> = told.iter().filter_map(|session| session.arn.as_deref()).collect();
    assert_eq!(arns, ["arn:aws:sts::111122223333:assumed-role/broker/ASIA1"]);
    assert!(sessions.for_record("ASIA1").is_some());
    until("the next ones", || script.given.load(Ordering::SeqCst) == 2).await;
    assert!(credentials.session().await.is_ok());
}

#[tokio::test]
async fn another_accounts_credentials_are_not_used() {
    let (script, sts) = (script(2_000), Sts::start().await);
    let (credentials, sessions) = in_use(&script, &sts);
    credentials.session().await.expect("known");
    sessions.settle("111122223333");
    *sts.account.lock().expect("no panic") = "444455556666";
    let words = sessions.other_account().await;
    assert!(words.contains("444455556666") && words.contains("111122223333"), "{words}");
    let used = credentials.credentials().await;
    assert!(used.is_err() || used.is_ok_and(|used| used.access_key_id() == "ASIA1"));
    assert!(credentials.session().await.is_err() || key(&credentials).await == "ASIA1");
}

#[tokio::test]
async fn a_source_that_fails_costs_nothing_while_the_credentials_last_and_is_asked_again() {
    let (script, sts) = (script(4_000), Sts::start().await);
    let (credentials, _sessions) = in_use(&script, &sts);
    assert_eq!(key(&credentials).await, "ASIA1");
    script.fails.store(true, Ordering::SeqCst);
    credentials.doubt();
    let tells = || credentials.held.borrow().source_trouble.is_some();
    until("the source's trouble", tells).await;
    assert_eq!(key(&credentials).await, "ASIA1");
    until("the end of them", || !credentials.are_there()).await;
    let error = credentials.credentials().await.expect_err("there are none");
    let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(why.contains("the source is down"), "{why}");
    script.fails.store(false, Ordering::SeqCst);
    until("new ones", || credentials.are_there()).await;
    assert_eq!(key(&credentials).await, "ASIA2");
}

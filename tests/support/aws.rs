//! AWS around a broker, on loopback: STS, which tells a session by the access key that signed the request, and metadata services that
//! give a new session each time they are asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use key_broker_core::clock::{Clock as _, SystemClock};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// One server for all of it, until the test ends.
pub struct FakeAws {
    pub url: String,
    state: Arc<State>,
}

struct State {
    sessions: AtomicU64,
    life: Duration,
    /// How far its clock is ahead of the machine's, in seconds.
    ahead: AtomicI64,
    /// Before each answer of a metadata service.
    delay: Duration,
    sts_is_silent: AtomicBool,
    account: Mutex<String>,
    /// The sessions of roles that were assumed: ARNs, by access key.
    assumed: Mutex<BTreeMap<String, String>>,
    /// When sessions end, by access key.
    ends: Mutex<BTreeMap<String, OffsetDateTime>>,
    /// Whether roles may be assumed.
    assumes: AtomicBool,
}

impl FakeAws {
    /// Sessions last for `life`.
    pub async fn start(life: Duration, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            sessions: AtomicU64::new(0),
            life,
            ahead: AtomicI64::new(0),
            delay,
            sts_is_silent: AtomicBool::new(false),
            account: Mutex::new("111122223333".into()),
            assumed: Mutex::default(),
            ends: Mutex::default(),
            assumes: AtomicBool::new(true),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move { state.serve(stream).await });
            }
        });
        Self { url, state }
    }

    /// How many sessions have been given.
    pub fn sessions(&self) -> u64 {
        self.state.sessions.load(Ordering::SeqCst)
    }

    /// From now on its clock is so many seconds ahead of the machine's.
    pub fn set_ahead(&self, seconds: i64) {
        self.state.ahead.store(seconds, Ordering::SeqCst);
    }

    /// A new session: its access key.
    pub fn begin_session(&self) -> String {
        self.state.begin("ASIASESSION").0
    }

    /// The ARN of the session that an access key is of, and when it ends.
    pub fn session(&self, access_key_id: &str) -> (String, OffsetDateTime) {
        let assumed = self.state.assumed.lock().expect("no panic").get(access_key_id).cloned();
        let arn = assumed.unwrap_or_else(|| arn_of("111122223333", access_key_id));
        (arn, self.state.ends.lock().expect("no panic")[access_key_id])
    }

    /// Whether STS closes connections without an answer.
    pub fn silence_sts(&self, is_silent: bool) {
        self.state.sts_is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// Whether STS lets roles be assumed.
    pub fn let_roles_be_assumed(&self, may: bool) {
        self.state.assumes.store(may, Ordering::SeqCst);
    }

    /// From now on everybody is of this account.
    pub fn move_to(&self, account: &str) {
        account.clone_into(&mut self.state.account.lock().expect("no panic"));
    }
}

/// The ARN of the session that an access key is of.
pub fn arn_of(account: &str, access_key_id: &str) -> String {
    format!("arn:aws:sts::{account}:assumed-role/broker/{access_key_id}")
}

impl State {
    /// One request a connection.
    async fn serve(&self, mut stream: TcpStream) {
        let Some(request) = request(&mut stream).await else { return };
        let answer = match request.split_once("Credential=") {
            _ if request.contains("Action=AssumeRole") => self.assume(&request),
            Some(_) if self.sts_is_silent.load(Ordering::SeqCst) => return,
            Some((_, signature)) => Some(self.identity(signature.split('/').next().expect("a key"))),
            None => {
                tokio::time::sleep(self.delay).await;
                self.metadata(request.lines().next().unwrap_or_default())
            }
        };
        let (status, body) = answer.map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nx-amzn-requestid: r\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all((head + &body).as_bytes()).await;
    }

    fn identity(&self, access_key_id: &str) -> String {
        let account = self.account.lock().expect("no panic").clone();
        let role = self.assumed.lock().expect("no panic").get(access_key_id).cloned();
        let account = role.as_ref().and_then(|arn| arn.split(':').nth(4)).map_or(account, str::to_owned);
        let arn = role.unwrap_or_else(|| arn_of(&account, access_key_id));
        format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             <Arn>{arn}</Arn><UserId>AROABROKER:{access_key_id}</UserId><Account>{account}</Account>\
             </GetCallerIdentityResult></GetCallerIdentityResponse>"
        )
    }

    /// A new session: its access key, and when it ends.
    fn begin(&self, prefix: &str) -> (String, OffsetDateTime) {
        let session = self.sessions.fetch_add(1, Ordering::SeqCst) + 1;
        let (key, end) = (format!("{prefix}{session}"), self.now() + self.life);
        self.ends.lock().expect("no panic").insert(key.clone(), end);
        (key, end)
    }

    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + time::Duration::seconds(self.ahead.load(Ordering::SeqCst))
    }

    /// A session of the role that the request names; none for a token whose time is over.
    fn assume(&self, request: &str) -> Option<String> {
        if !self.assumes.load(Ordering::SeqCst) {
            return None;
        }
        if let Some((_, token)) = request.split_once("WebIdentityToken=valid-until-")
            && token.split('&').next()?.parse::<i64>().ok()? < self.now().unix_timestamp()
        {
            return None;
        }
        let (_, role) = request.split_once("RoleArn=")?;
        let role = role.split('&').next()?.replace("%3A", ":").replace("%2F", "/");
        let (key, end) = self.begin("ASIAROLE");
        let action =
            if request.contains("WithWebIdentity") { "AssumeRoleWithWebIdentity" } else { "AssumeRole" };
        // A session's ARN has no path of its role's.
        let (account, name) = (role.split(':').nth(4)?, role.rsplit('/').next()?);
        let arn = format!("arn:aws:sts::{account}:assumed-role/{name}/{key}");
        self.assumed.lock().expect("no panic").insert(key.clone(), arn);
        let end = end.format(&Rfc3339).expect("formats");
        Some(format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
             <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
             <Expiration>{end}</Expiration></Credentials></{action}Result></{action}Response>"
        ))
    }

    /// `IMDSv2` of an instance, and the service of a container at any other path.
    fn metadata(&self, request_line: &str) -> Option<String> {
        let path = request_line.split(' ').nth(1).unwrap_or_default();
        if path.ends_with("/api/token") {
            return Some("a-token".into());
        }
        if path.ends_with("/security-credentials/") {
            return Some("broker".into());
        }
        if path.contains("/latest/") && !path.ends_with("/security-credentials/broker") {
            return None;
        }
        let (key, end) = self.begin("ASIASESSION");
        // As Python writes it, in a zone of its own.
        let zone = UtcOffset::from_hms(5, 45, 0).expect("Nepal's");
        let end = if path.contains("/latest/") { end } else { end.to_offset(zone) };
        Some(
            serde_json::json!({
                "Code": "Success",
                "Version": 1,
                "AccessKeyId": key,
                "SecretAccessKey": "s",
                "Token": "t",
                "SessionToken": "t",
                "Expiration": end.format(&Rfc3339).expect("formats"),
            })
            .to_string(),
        )
    }
}

/// A request, once all of it has come.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                |line: &str| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok();
            if body.len() >= head.lines().find_map(length).unwrap_or_default() {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or_default() == 0 {
            return None;
        }
    }
}

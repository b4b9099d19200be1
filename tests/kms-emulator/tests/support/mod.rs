//! A minimal client: one connection, awsJson 1.1 without a signature, raw answers.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use kms_emulator::{Emulator, EmulatorConfig, KeySpec};
use serde_json::Value;
use tokio::net::TcpStream;

/// The alias of the key that [`start`] makes.
pub(crate) const ALIAS: &str = "alias/test";

/// An answer, whatever it says.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The AWS error type.
    pub(crate) fn error(&self) -> String {
        self.json()["__type"].as_str().unwrap().to_owned()
    }

    /// The AWS error message, empty if there is none.
    pub(crate) fn message(&self) -> String {
        let json = self.json();
        let message = json.get("message").or_else(|| json.get("Message"));
        message.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(crate) fn request_id(&self) -> &str {
        self.headers.get("x-amzn-requestid").unwrap().to_str().unwrap()
    }

    /// A member of a successful answer.
    pub(crate) fn text(&self, member: &str) -> String {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self.json()[member].as_str().unwrap_or_else(|| panic!("no {member} in {self:?}")).to_owned()
    }

    /// Whether it is a success, or the AWS error type.
    pub(crate) fn outcome(&self) -> String {
        if self.status == StatusCode::OK { "ok".to_owned() } else { self.error() }
    }

    pub(crate) fn bytes(&self, member: &str) -> Vec<u8> {
        BASE64.decode(self.text(member)).unwrap()
    }
}

/// One connection to an emulator.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    pub(crate) async fn connect(endpoint: &str) -> Client {
        let stream = TcpStream::connect(endpoint.strip_prefix("http://").unwrap()).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client { sender }
    }

    /// Calls an operation of KMS.
    pub(crate) async fn call(&mut self, operation: &str, body: impl Into<Value>) -> Reply {
        self.call_with(operation, &body.into().to_string(), &[]).await
    }

    /// Calls an operation of KMS with any body and more headers.
    pub(crate) async fn call_with(&mut self, operation: &str, body: &str, headers: &[(&str, &str)]) -> Reply {
        let target = format!("TrentService.{operation}");
        let mut all = vec![
            ("x-amz-target", target.as_str()),
            ("content-type", "application/x-amz-json-1.1"),
            ("authorization", AUTHORIZATION),
        ];
        all.extend_from_slice(headers);
        self.send(Method::POST, "/", &all, body).await.unwrap()
    }

    /// Calls an operation of KMS as whoever has an access key.
    pub(crate) async fn call_as(
        &mut self,
        access_key: &str,
        operation: &str,
        body: impl Into<Value>,
    ) -> Reply {
        let target = format!("TrentService.{operation}");
        let signed = signed_by(access_key);
        let headers = [
            ("x-amz-target", target.as_str()),
            ("content-type", "application/x-amz-json-1.1"),
            ("authorization", &signed),
        ];
        self.send(Method::POST, "/", &headers, &body.into().to_string()).await.unwrap()
    }

    /// Assumes a role by its ARN: the access key of a session called `s`.
    pub(crate) async fn assume(&mut self, role: &str) -> String {
        let form = format!("Action=AssumeRole&RoleArn={role}&RoleSessionName=s");
        let headers =
            [("authorization", AUTHORIZATION), ("content-type", "application/x-www-form-urlencoded")];
        let reply = self.send(Method::POST, "/", &headers, &form).await.unwrap();
        let body = String::from_utf8(reply.body.to_vec()).unwrap();
        let (_, key) = body.split_once("<AccessKeyId>").unwrap();
        key.split_once("</AccessKeyId>").unwrap().0.to_owned()
    }

    /// Sends any request; nothing if the connection closes without an answer.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, hyper::Error> {
        self.sender.ready().await?;
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let response = self.sender.send_request(request.body(body).unwrap()).await?;
        let (head, body) = response.into_parts();
        Ok(Reply { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }
}

/// An emulator in memory with one symmetric key under [`ALIAS`]: the emulator, a connection, the key's ARN.
pub(crate) async fn start() -> (Emulator, Client, String) {
    let emulator = Emulator::start(EmulatorConfig::default()).await.unwrap();
    let arn = emulator.ensure_key(ALIAS, KeySpec::SymmetricDefault).unwrap();
    let client = Client::connect(&emulator.endpoint_url()).await;
    (emulator, client, arn)
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Signed by nobody, in the form that counts.
pub(crate) const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-west-2/kms/aws4_request, \
                                 SignedHeaders=host;x-amz-date, Signature=00";

fn signed_by(access_key: &str) -> String {
    AUTHORIZATION.replace("AKIDEXAMPLE", access_key)
}

/// Unix milliseconds, as the emulator's clock has them.
#[expect(
    clippy::disallowed_methods,
    reason = "documents are valid by the emulator's clock, which is the machine's"
)]
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

//! Observes KMS's answer to each attempt.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use key_broker_core::clock::Clock;
use serde::Deserialize;

use super::connector::Encryption;
use super::credentials::CredentialsInUse;
use super::error::is_about_credentials;
use super::request_id::request_id_of;
use super::sessions::Sessions;
use crate::kms::{Attempt, AttemptLog};

/// Collects KMS's answers to all attempts of one call.
pub(super) struct AttemptWatch {
    attempts: AttemptLog,
    sessions: Arc<Sessions>,
    credentials: CredentialsInUse,
    clock: Arc<dyn Clock>,
    /// The headers of the attempt in flight, since the request is gone once it is sent.
    sent: Mutex<RequestHeaders>,
}

/// What a record needs of an attempt's request.
#[derive(Default)]
struct RequestHeaders {
    access_key_id: Option<String>,
    user_agent: String,
    /// The `Host` header.
    host: String,
}

impl AttemptWatch {
    pub(super) fn new(
        attempts: AttemptLog,
        sessions: Arc<Sessions>,
        credentials: CredentialsInUse,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { attempts, sessions, credentials, clock, sent: Mutex::default() }
    }
}

impl fmt::Debug for AttemptWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttemptWatch")
    }
}

impl Intercept for AttemptWatch {
    fn name(&self) -> &'static str {
        "AttemptWatch"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let headers = context.request().headers();
        let uri = context.request().uri().parse::<http::Uri>().ok();
        let host = uri.as_ref().and_then(|uri| Some(uri.authority()?.as_str().to_owned()));
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = RequestHeaders {
            access_key_id: headers.get("authorization").and_then(access_key_id),
            user_agent: headers.get("user-agent").unwrap_or_default().to_owned(),
            host: host.unwrap_or_default(),
        };
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Some(response) = context.response() else { return Ok(()) };
        // An answer without a requestID can have no record. If it is an error, it came from a proxy, not from KMS.
        let Some(request_id) = request_id_of(response) else {
            if response.status().is_success() {
                self.attempts.push_unidentified();
            }
            return Ok(());
        };
        let sent = std::mem::take(&mut *self.sent.lock().unwrap_or_else(PoisonError::into_inner));
        let error = (!response.status().is_success()).then(|| error_in(response));
        if error.as_ref().is_some_and(|(code, _)| is_about_credentials(code)) {
            self.credentials.doubt();
        }
        self.attempts.push(Attempt {
            at: self.clock.now(),
            request_id: request_id.to_owned(),
            session: sent.access_key_id.as_deref().and_then(|key| self.sessions.for_record(key)),
            access_key_id: sent.access_key_id,
            source_address: local_address(config),
            user_agent: sent.user_agent,
            encryption: response.extension::<Encryption>().map(|encryption| (*encryption, sent.host)),
            error,
        });
        Ok(())
    }
}

/// This host's address on the connection that carried the attempt.
fn local_address(config: &ConfigBag) -> Option<IpAddr> {
    let connection = config.load::<CaptureSmithyConnection>()?.get()?;
    Some(connection.local_addr()?.ip())
}

/// The access key in `AWS4-HMAC-SHA256 Credential=AKID/date/region/service/aws4_request, …` (AWS Signature Version 4).
fn access_key_id(authorization: &str) -> Option<String> {
    let (_, credential) = authorization.split_once("Credential=")?;
    credential.split('/').next().map(str::to_owned)
}

/// Code and message of an error (AWS JSON 1.1 protocol, "Operation error serialization").
fn error_in(response: &HttpResponse) -> (String, String) {
    #[derive(Deserialize, Default)]
    struct ErrorBody {
        #[serde(rename = "__type", default)]
        kind: String,
        #[serde(alias = "Message", default)]
        message: Option<String>,
    }
    let body: ErrorBody =
        response.body().bytes().and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
    let kind = body.kind.rsplit('#').next().unwrap_or_default();
    let code = if kind.is_empty() { format!("HTTP{}", response.status().as_u16()) } else { kind.to_owned() };
    (code, body.message.unwrap_or_default())
}

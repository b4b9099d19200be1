//! Requests and answers as HTTP: service, operation and signer.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::error::ApiError;
use crate::operations::{Answer, Operation};
use crate::sts;

/// An answer on the wire.
pub(crate) type HttpResponse = Response<Full<Bytes>>;

/// The service and operation of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// KMS, which speaks JSON 1.1: the operation, if it is known, and its name as sent.
    Kms(Option<Operation>, String),
    /// STS, which speaks awsQuery: the action as sent.
    Sts(String),
}

impl Target {
    /// Reads KMS's target header, or else STS's form.
    pub(crate) fn of(head: &Parts, body: &[u8]) -> Target {
        if let Some(target) = head.headers.get("x-amz-target") {
            let target = String::from_utf8_lossy(target.as_bytes());
            let name = bounded(target.strip_prefix("TrentService.").unwrap_or(&target));
            return Target::Kms(Operation::named(&name), name);
        }
        let form = std::str::from_utf8(body).ok().and_then(sts::action);
        match form.or_else(|| head.uri.query().and_then(sts::action)) {
            Some(action) => Target::Sts(bounded(action)),
            None => Target::Kms(None, String::new()),
        }
    }

    /// The operation's name, as sent.
    pub(crate) fn name(&self) -> &str {
        let (Target::Kms(_, name) | Target::Sts(name)) = self;
        name
    }
}

/// The access key that signed the request. The signature itself is not verified.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-authentication-methods.html>
pub(crate) fn access_key_id(head: &Parts) -> Result<&str, ApiError> {
    let missing = || ApiError::new("MissingAuthenticationTokenException", "Missing Authentication Token");
    let header = head.headers.get(AUTHORIZATION).ok_or_else(missing)?;
    let incomplete =
        || ApiError::new("IncompleteSignatureException", "Authorization header is not AWS4-HMAC-SHA256.");
    let text = header.to_str().map_err(|_| incomplete())?;
    let (algorithm, fields) = text.split_once(' ').ok_or_else(incomplete)?;
    let credential = fields.split(',').find_map(|field| field.trim().strip_prefix("Credential="));
    let scope: Vec<&str> = credential.ok_or_else(incomplete)?.split('/').collect();
    match scope.as_slice() {
        &[id, _date, _region, _service, "aws4_request"]
            if algorithm == "AWS4-HMAC-SHA256" && !id.is_empty() =>
        {
            Ok(id)
        }
        _ => Err(incomplete()),
    }
}

/// KMS's answer.
pub(crate) fn json_answer(answer: &Answer, request_id: &str) -> HttpResponse {
    json_response(StatusCode::OK, answer_bytes(answer), request_id)
}

/// The body of KMS's answer: nothing at all where there are no members.
pub(crate) fn answer_bytes(answer: &Answer) -> Vec<u8> {
    if answer.is_empty() { Vec::new() } else { serde_json::to_vec(answer).unwrap_or_default() }
}

/// KMS's refusal.
pub(crate) fn json_error(error: &ApiError, request_id: &str) -> HttpResponse {
    let mut body = json!({ "__type": error.code });
    if let Some(message) = &error.message {
        // IAM's errors spell it with a capital.
        let member = if error.code == "AccessDeniedException" { "Message" } else { "message" };
        body[member] = message.as_str().into();
    }
    json_response(error.status(), body.to_string().into_bytes(), request_id)
}

/// Any body as KMS's.
pub(crate) fn json_response(status: StatusCode, body: Vec<u8>, request_id: &str) -> HttpResponse {
    let mut response = respond(status, "application/x-amz-json-1.1", body);
    tag(&mut response, request_id);
    response
}

/// STS's answer or refusal.
pub(crate) fn xml_response(status: StatusCode, body: String, request_id: &str) -> HttpResponse {
    let mut response = respond(status, "text/xml", body.into_bytes());
    tag(&mut response, request_id);
    response
}

/// A body with a status and a type.
pub(crate) fn respond(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate, private"));
    response
}

fn tag(response: &mut HttpResponse, request_id: &str) {
    let id = HeaderValue::from_str(request_id).expect("a UUID is a header value");
    response.headers_mut().insert("x-amzn-requestid", id);
}

/// A name that the log can keep.
fn bounded(name: &str) -> String {
    name.chars().take(NAME_MAX).collect()
}

/// No operation's name is half as long, in characters.
const NAME_MAX: usize = 64;

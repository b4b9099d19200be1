//! `GetCallerIdentity` and `AssumeRole`, STS's awsQuery protocol: a form in, XML out.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::account::Account;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::operations::Answer;
use crate::random;

/// The `Action` of a form, in a body or a query.
pub(crate) fn action(form: &str) -> Option<&str> {
    form.split('&').find_map(|pair| pair.strip_prefix("Action="))
}

/// Sessions of roles that somebody assumed. Anybody may assume any role; none is remembered beyond a restart.
#[derive(Default)]
pub(crate) struct RoleSessions(Mutex<VecDeque<RoleSession>>);

struct RoleSession {
    access_key_id: String,
    caller: Caller,
}

impl RoleSessions {
    /// The owner of this access key: a role session or else the configured caller.
    pub(crate) fn caller(&self, access_key_id: &str, account: &Account) -> Caller {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.iter().find(|session| session.access_key_id == access_key_id);
        session.map_or_else(|| Caller::configured(account), |session| session.caller.clone())
    }

    /// Performs one of STS's operations.
    pub(crate) fn perform(
        &self,
        action: &str,
        form: &str,
        caller: &Caller,
        now: u64,
    ) -> Result<Answer, ApiError> {
        match action {
            "GetCallerIdentity" => Ok(caller_identity(caller)),
            "AssumeRole" => self.assume(form, now),
            action => Err(ApiError::new(
                "InvalidAction",
                format!("Could not find operation {action} for version 2011-06-15"),
            )),
        }
    }

    fn assume(&self, form: &str, now: u64) -> Result<Answer, ApiError> {
        let required = |name: &str| {
            member(form, name).ok_or_else(|| ApiError::constraint(&format!("Value null at '{name}'")))
        };
        let (role, session_name) = (required("RoleArn")?, required("RoleSessionName")?);
        let invalid = || ApiError::validation(format!("{role} is invalid"));
        let parts: Vec<&str> = role.splitn(6, ':').collect();
        let &["arn", partition, "iam", "", account, resource] = parts.as_slice() else {
            return Err(invalid());
        };
        let path = resource.strip_prefix("role/").ok_or_else(invalid)?;
        let name = path.rsplit('/').next().unwrap_or(path);
        let seconds = member(form, "DurationSeconds").map_or(Ok(3_600), |text| text.parse::<u64>());
        let seconds = seconds
            .ok()
            .filter(|seconds| (900..=43_200).contains(seconds))
            .ok_or_else(|| ApiError::constraint("Value at 'durationSeconds' is not from 900 to 43200"))?;
        let session = RoleSession {
            access_key_id: format!("ASIA{}", id()),
            caller: Caller {
                account: account.to_owned(),
                arn: format!("arn:{partition}:sts::{account}:assumed-role/{name}/{session_name}"),
                user_id: format!("AROA{}:{session_name}", id()),
                role: Some(role.clone()),
            },
        };
        let end = i64::try_from(now / 1_000 + seconds).unwrap_or(i64::MAX);
        let end = OffsetDateTime::from_unix_timestamp(end).ok().and_then(|end| end.format(&Rfc3339).ok());
        let answer = members([
            (
                "Credentials",
                json!({
                    "AccessKeyId": session.access_key_id, "SecretAccessKey": id(), "SessionToken": id(), "Expiration": end,
                }),
            ),
            (
                "AssumedRoleUser",
                json!({ "Arn": session.caller.arn, "AssumedRoleId": session.caller.user_id }),
            ),
        ]);
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.push_front(session);
        sessions.truncate(MOST_SESSIONS);
        Ok(answer)
    }
}

fn caller_identity(caller: &Caller) -> Answer {
    members([
        ("Arn", caller.arn.as_str().into()),
        ("UserId", caller.user_id.as_str().into()),
        ("Account", caller.account.as_str().into()),
    ])
}

/// An answer in STS's form.
pub(crate) fn answer(action: &str, answer: &Answer, request_id: &str) -> String {
    let mut result = String::new();
    append(answer, &mut result);
    format!(
        "<{action}Response xmlns=\"{NAMESPACE}\">\n  <{action}Result>{result}</{action}Result>\n  <ResponseMetadata>\n    \
         <RequestId>{request_id}</RequestId>\n  </ResponseMetadata>\n</{action}Response>\n"
    )
}

fn append(answer: &Answer, xml: &mut String) {
    for (name, value) in answer {
        xml.extend(["<", name, ">"]);
        match value {
            Value::Object(members) => append(members, xml),
            value => xml.push_str(&escaped(value.as_str().unwrap_or_default())),
        }
        xml.extend(["</", name, ">"]);
    }
}

fn members<const N: usize>(members: [(&str, Value); N]) -> Answer {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A member of a form, if it is there and not empty.
fn member(form: &str, name: &str) -> Option<String> {
    let value = form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = value.bytes();
    let mut text = Vec::new();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(text).ok().filter(|text| !text.is_empty())
}

/// Sixteen letters and digits that nobody can guess.
fn id() -> String {
    let bytes: [u8; 16] = random::array();
    bytes.iter().map(|byte| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(byte % 32)])).collect()
}

/// An error in STS's form.
pub(crate) fn error(error: &ApiError, request_id: &str) -> String {
    let fault = if error.status().is_server_error() { "Receiver" } else { "Sender" };
    format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\">\n  <Error>\n    <Type>{fault}</Type>\n    <Code>{}</Code>\n    \
         <Message>{}</Message>\n  </Error>\n  <RequestId>{request_id}</RequestId>\n</ErrorResponse>\n",
        escaped(query_code(&error.code)),
        escaped(error.message.as_deref().unwrap_or_default()),
    )
}

/// The names that awsQuery services have for common errors.
fn query_code(code: &str) -> &str {
    match code {
        "ThrottlingException" => "Throttling",
        "ValidationException" => "ValidationError",
        "AccessDeniedException" => "AccessDenied",
        "UnrecognizedClientException" => "InvalidClientTokenId",
        "ExpiredTokenException" => "ExpiredToken",
        "MissingAuthenticationTokenException" => "MissingAuthenticationToken",
        "IncompleteSignatureException" => "IncompleteSignature",
        "KMSInternalException" => "InternalFailure",
        other => other,
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// The oldest are forgotten.
const MOST_SESSIONS: usize = 1_000;

//! `GetCallerIdentity`, STS's awsQuery protocol: a form in, XML out.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>

use crate::error::ApiError;
use crate::store::Account;

/// The `Action` of a form, in a body or a query.
pub(crate) fn action(form: &str) -> Option<&str> {
    form.split('&').find_map(|pair| pair.strip_prefix("Action="))
}

/// Who the caller is: the same for everybody.
pub(crate) fn caller_identity(account: &Account, request_id: &str) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"{NAMESPACE}\">\n  <GetCallerIdentityResult>\n    <Arn>{}</Arn>\n    \
         <UserId>{}</UserId>\n    <Account>{}</Account>\n  </GetCallerIdentityResult>\n  <ResponseMetadata>\n    \
         <RequestId>{request_id}</RequestId>\n  </ResponseMetadata>\n</GetCallerIdentityResponse>\n",
        escaped(&account.caller_arn),
        escaped(&account.caller_user_id),
        escaped(&account.id),
    )
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

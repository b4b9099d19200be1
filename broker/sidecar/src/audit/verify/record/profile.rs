//! The two profiles: what each field of a record may hold. `tests/trail_verify.rs` has JSON Schemas judge the same records.

use key_broker_core::Action;

use super::fields::{ActivityData, DataKey, Fields, Identity, KmsData, Parameters, Resource};
use super::ordered::Text;
use super::{Amount, Charge, ids};
use crate::audit::record::EVENT_VERSION;

/// What is the same for both profiles. Returns the record's time.
pub(super) fn check_head(fields: &Fields<'_>, account_id: &str) -> Result<i64, String> {
    equal("eventVersion", &fields.event_version, EVENT_VERSION)?;
    let at = ids::seconds(&fields.event_time).ok_or("eventTime is no YYYY-MM-DDTHH:MM:SSZ")?;
    demand(is_region(&fields.aws_region), "awsRegion is no region")?;
    demand(!fields.source_ip_address.is_empty(), "sourceIPAddress is empty")?;
    demand(!fields.user_identity.principal_id.is_empty(), "userIdentity.principalId is empty")?;
    let short = [&fields.user_agent, &fields.error_code, &fields.error_message];
    demand(
        short.iter().all(|text| text.as_ref().is_none_or(|text| text.len() <= MAX_SHORT_TEXT_BYTES)),
        "userAgent, errorCode or errorMessage has more than 1 KB",
    )?;
    demand(!fields.request_id.is_empty(), "requestID is empty")?;
    demand(
        fields.error_code.as_deref().is_none_or(|code| !code.is_empty())
            && (fields.error_code.is_some() || fields.error_message.is_none()),
        "errorMessage without errorCode",
    )?;
    equal("recipientAccountId", &fields.recipient_account_id, account_id)?;
    for Resource { account_id, kind, arn } in fields.resources.iter().flatten() {
        demand(is_account(account_id), "a resource's accountId is not 12 digits")?;
        equal("a resource's type", kind, "AWS::KMS::Key")?;
        let is_key = arn.starts_with("arn:aws") && arn.contains(":kms:") && arn.contains(":key/");
        demand(is_key, "a resource's ARN is no key's")?;
    }
    Ok(at)
}

/// The rest of a KMS record.
pub(super) fn check_kms(fields: &Fields<'_>) -> Result<(), String> {
    equal("eventSource", &fields.event_source, "kms.amazonaws.com")?;
    equal("eventType", &fields.event_type, "AwsApiCall")?;
    demand(fields.management_event, "managementEvent is not true")?;
    demand(fields.read_only, "readOnly is not true")?;
    check_aws_identity(&fields.user_identity)?;
    if let Some(extra) = fields.additional_event_data {
        let KmsData { key_material_id, recipient } = parse("additionalEventData", extra.get())?;
        demand(key_material_id.is_some() || recipient.is_some(), "additionalEventData is empty")?;
        demand(
            key_material_id.is_none_or(|id| is_hex(&id, 64)),
            "keyMaterialId is not 64 lower-case hex digits",
        )?;
    }
    if fields.error_code.as_deref() == Some("AccessDenied") {
        return demand(
            fields.request_parameters.is_none() && fields.resources.is_none(),
            "CloudTrail has neither requestParameters nor resources where access was denied",
        );
    }
    demand(fields.resources.is_some(), "there are no resources")?;
    check_kms_parameters(&fields.event_name, fields.request_parameters.as_ref())
}

fn check_aws_identity(identity: &Identity<'_>) -> Result<(), String> {
    let Identity { kind, principal_id, arn, account_id, user_name, session_context, details, .. } = identity;
    demand(
        matches!(&**kind, "AssumedRole" | "IAMUser" | "Root" | "FederatedUser" | "Unknown"),
        "userIdentity.type is none of AWS's",
    )?;
    demand(arn.as_ref().is_some_and(|arn| arn.starts_with("arn:aws")), "userIdentity.arn is no ARN")?;
    demand(account_id.as_ref().is_some_and(|id| is_account(id)), "userIdentity.accountId is not 12 digits")?;
    if &**kind == "AssumedRole" {
        let is_session = arn.as_ref().is_some_and(|arn| arn.contains(":assumed-role/"));
        demand(
            is_session && principal_id.contains(':') && user_name.is_none() && session_context.is_some(),
            "userIdentity is no assumed role's",
        )?;
    }
    demand(details.is_none(), "userIdentity has details, which only workloads have")
}

/// What CloudTrail has of what an operation was asked.
fn check_kms_parameters(operation: &str, parameters: Option<&Parameters<'_>>) -> Result<(), String> {
    let Some(asked) = parameters else {
        return demand(operation == "GenerateRandom", "requestParameters is null");
    };
    let has_length = asked.key_spec.is_some() != asked.number_of_bytes.is_some();
    let no_length = asked.key_spec.is_none() && asked.number_of_bytes.is_none();
    let no_context = asked.encryption_context.is_none();
    let signs = asked.message_type.is_some() && asked.signing_algorithm.is_some();
    let no_signing = asked.message_type.is_none() && asked.signing_algorithm.is_none();
    let has_key = asked.key_id.is_some();
    let algorithm = asked.encryption_algorithm.is_some();
    let fits = match operation {
        "Decrypt" => algorithm && no_length && no_signing,
        "GenerateDataKey" | "GenerateDataKeyWithoutPlaintext" => {
            has_key && has_length && !algorithm && no_signing
        }
        "DescribeKey" | "GetPublicKey" => has_key && no_length && no_context && !algorithm && no_signing,
        "Sign" => has_key && no_length && no_context && !algorithm && signs,
        "GenerateRandom" => return Err("CloudTrail has no requestParameters of GenerateRandom".into()),
        other => return Err(format!("eventName {other:?} is no call that a broker makes to KMS")),
    };
    demand(fits, "requestParameters are not those of this operation")?;
    demand(
        asked.declared_use.is_none() && asked.ciphertext_sha256.is_none(),
        "requestParameters have what only activity records have",
    )?;
    check_values(asked)
}

fn check_values(asked: &Parameters<'_>) -> Result<(), String> {
    demand(
        asked.key_spec.as_deref().is_none_or(|spec| matches!(spec, "AES_256" | "AES_128")),
        "keySpec is neither AES_256 nor AES_128",
    )?;
    demand(
        asked.number_of_bytes.is_none_or(|n| (1..=1_024).contains(&n)),
        "numberOfBytes is not 1 to 1,024",
    )?;
    demand(
        asked.encryption_context.as_ref().is_none_or(|context| !context.0.is_empty()),
        "encryptionContext is there, and empty",
    )
}

/// The rest of an activity record.
pub(super) fn check_activity<'a>(fields: &Fields<'a>) -> Result<ActivityData<'a>, String> {
    equal("eventSource", &fields.event_source, "keybroker.v1.KeyBroker")?;
    equal("eventType", &fields.event_type, "ActivityLog")?;
    demand(!fields.management_event, "managementEvent is not false")?;
    demand(
        Action::ALL.iter().any(|action| action.name() == &*fields.event_name),
        "eventName is no action of the broker",
    )?;
    let identity = &fields.user_identity;
    demand(
        matches!(&*identity.kind, "SpiffeWorkload" | "UnixWorkload" | "EnclaveWorkload" | "Unknown"),
        "userIdentity.type is no workload's",
    )?;
    demand(
        identity.arn.is_none()
            && identity.account_id.is_none()
            && identity.access_key_id.is_none()
            && identity.user_name.is_none()
            && identity.session_context.is_none()
            && identity.invoked_by.is_none(),
        "userIdentity has what only AWS's principals have",
    )?;
    demand(ids::uuid(&fields.request_id).is_some(), "requestID is no UUID in lower case")?;
    if let Some(asked) = &fields.request_parameters {
        check_values(asked)?;
        demand(
            asked.ciphertext_sha256.as_deref().is_none_or(|hash| is_hex(hash, 64)),
            "ciphertextBlobSHA256 is not 64 lower-case hex digits",
        )?;
    }
    let extra = fields.additional_event_data.ok_or("there is no additionalEventData")?;
    let extra: ActivityData<'a> = parse("additionalEventData", extra.get())?;
    let is_allowed = match &*extra.outcome {
        "Allowed" => true,
        "Denied" | "Rejected" | "Throttled" | "Failed" | "Aborted" => false,
        other => return Err(format!("outcome {other:?} is none")),
    };
    demand(
        is_allowed == fields.error_code.is_none(),
        "an errorCode goes with every outcome but Allowed, and with that never",
    )?;
    if let Some(data_key) = &extra.data_key {
        check_data_key(data_key, is_allowed)?;
    }
    Ok(extra)
}

fn check_data_key(data_key: &DataKey<'_>, is_allowed: bool) -> Result<(), String> {
    let from_cache = match &*data_key.served_from {
        "KMS" => false,
        "CACHE" => true,
        other => return Err(format!("servedFrom {other:?} is neither KMS nor CACHE")),
    };
    demand(
        data_key.kms_request_id.as_deref().is_none_or(|id| !id.is_empty()),
        "dataKey.kmsRequestID is empty",
    )?;
    demand(
        !(from_cache || is_allowed) || (data_key.kms_request_id.is_some() && data_key.kms_event_id.is_some()),
        "an answer names the KMS record behind it: dataKey has no kmsRequestID or kmsEventID",
    )?;
    demand(!is_allowed || data_key.minted_at.is_some(), "dataKey has no mintedAt")
}

/// What a draw took of a data key.
pub(super) fn charge(
    asked: Option<&Parameters<'_>>,
    data_key: &DataKey<'_>,
) -> Result<Option<Charge>, String> {
    let DataKey { messages_used, messages_limit, bytes_used, bytes_limit, .. } = data_key;
    match (messages_used, messages_limit, bytes_used, bytes_limit) {
        (None, None, None, None) => Ok(None),
        (Some(messages), Some(messages_limit), Some(bytes), Some(bytes_limit)) => {
            let declared = asked.and_then(|asked| asked.declared_use).ok_or("a data key without use")?;
            Ok(Some(Charge {
                messages: Amount { declared: declared.messages, used: *messages, limit: *messages_limit },
                bytes: Amount { declared: declared.bytes, used: *bytes, limit: *bytes_limit },
            }))
        }
        _ => {
            Err("dataKey has some of messagesUsed, messagesLimit, bytesUsed and bytesLimit, but not all"
                .into())
        }
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(name: &str, json: &'a str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| format!("{name}: {error}"))
}

fn demand(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn equal(name: &str, found: &Text<'_>, expected: &str) -> Result<(), String> {
    if &**found == expected { Ok(()) } else { Err(format!("{name} is {:?}, not {expected:?}", &**found)) }
}

/// `us-west-2`, `us-gov-east-1`, `eusc-de-east-1`: letters, some times, then a digit.
fn is_region(text: &str) -> bool {
    let Some((letters, digit)) = text.rsplit_once('-') else { return false };
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    letters.contains('-')
        && letters.split('-').all(is_word)
        && digit.len() == 1
        && digit.bytes().all(|b| b.is_ascii_digit())
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// CloudTrail: userAgent, errorCode and errorMessage have 1 KB at most.
const MAX_SHORT_TEXT_BYTES: usize = 1_024;

//! The two profiles: what each field of a record may contain. `tests/trail_verify.rs` checks the same records with JSON Schemas.

mod identity;
mod tls;
mod words;

use key_broker_core::{Action, Outcome};
use serde_json::value::RawValue;

use super::written::check_written;
use super::{Amount, Charge};
use crate::record::{
    ActivityEventData, BrokerData, BrokerEvent, ContextPairs, DataKeyData, EVENT_VERSION, EventCategory,
    KMS_KEY, KmsEventData, MAX_SHORT_TEXT_BYTES, OPERATOR_METHODS, Open, REPORT_FAILED_CHECK,
    REPORT_IDENTITY, REPORT_NOTICE, ReadRecord, Record, RequestParameters, Resource, ServedFrom, Text,
    lower_case_uuid, parse,
};
use words::{demand, equal, is_account, is_hex, is_object, is_region, is_there, known};

/// Checks what both profiles have in common. Returns the record's profile.
pub(super) fn check_head<D>(record: &Record<'_, D>, account_id: &str) -> Result<EventCategory, String> {
    equal("eventVersion", &record.event_version, EVENT_VERSION)?;
    demand(is_region(&record.aws_region), "awsRegion is no region")?;
    demand(is_there(record.source_ip_address.as_ref()), "sourceIPAddress is empty")?;
    let short = [&record.user_agent, &record.error_code, &record.error_message];
    demand(
        short.iter().all(|text| text.as_ref().is_none_or(|text| text.len() <= MAX_SHORT_TEXT_BYTES)),
        "userAgent, errorCode or errorMessage has more than 1 KB",
    )?;
    demand(!record.request_id.is_empty(), "requestID is empty")?;
    demand(
        record.error_code.as_deref().is_none_or(|code| !code.is_empty())
            && (record.error_code.is_some() || record.error_message.is_none()),
        "errorMessage without errorCode",
    )?;
    equal("recipientAccountId", &record.recipient_account_id, account_id)?;
    demand(record.shared_event_id.is_none(), "sharedEventID is in AWS's own records only")?;
    demand(record.read_only, "readOnly is not true")?;
    for resource in record.resources.iter().flatten() {
        check_resource(resource)?;
    }
    let category = known::<EventCategory>(&record.event_category).ok_or_else(|| {
        format!("eventCategory {:?} is neither Management nor ActivityAuditLog", &*record.event_category)
    })?;
    equal("eventSource", &record.event_source, category.event_source())?;
    equal("eventType", &record.event_type, category.event_type())?;
    demand(
        record.management_event == category.is_management(),
        "managementEvent is true in records of KMS, and in no others",
    )?;
    Ok(category)
}

fn check_resource(Resource { account_id, kind, arn }: &Resource<'_>) -> Result<(), String> {
    demand(account_id.as_deref().is_some_and(is_account), "a resource's accountId is not 12 digits")?;
    demand(kind.as_deref() == Some(KMS_KEY), "a resource's type is not AWS::KMS::Key")?;
    let is_key = |arn: &str| arn.starts_with("arn:aws") && arn.contains(":kms:") && arn.contains(":key/");
    demand(arn.as_deref().is_some_and(is_key), "a resource's ARN is no key's")
}

/// Checks the rest of a KMS record. Returns its `additionalEventData`.
pub(super) fn check_kms<'a>(record: &ReadRecord<'a>) -> Result<Option<KmsEventData<'a>>, String> {
    identity::check_aws(&record.user_identity, &record.recipient_account_id)?;
    let data = record.additional_event_data.map(|json| kms_data(json, record)).transpose()?;
    check_kms_rest(record)?;
    Ok(data)
}

/// The same with `additionalEventData` that is parsed already.
pub(super) fn check_kms_with<D>(
    record: &Record<'_, D>,
    data: Option<&KmsEventData<'_>>,
) -> Result<(), String> {
    identity::check_aws(&record.user_identity, &record.recipient_account_id)?;
    if let Some(data) = data {
        check_kms_data(data)?;
        check_redacted(&data.redacted, record.request_parameters.as_ref(), false)?;
    }
    check_kms_rest(record)
}

fn check_kms_rest<D>(record: &Record<'_, D>) -> Result<(), String> {
    record.tls_details.as_ref().map_or(Ok(()), |details| tls::check(details, record))?;
    check_kms_asked(record)
}

fn kms_data<'a>(json: &'a RawValue, record: &ReadRecord<'_>) -> Result<KmsEventData<'a>, String> {
    let data: KmsEventData<'_> =
        parse(json.get()).map_err(|malformed| format!("additionalEventData: {malformed}"))?;
    check_kms_data(&data)?;
    check_redacted(&data.redacted, record.request_parameters.as_ref(), false)?;
    check_written(json.get(), &data).map_err(|why| format!("additionalEventData: {why}"))?;
    Ok(data)
}

fn check_kms_asked<D>(record: &Record<'_, D>) -> Result<(), String> {
    if record.error_code.as_deref() == Some("AccessDenied") {
        return demand(
            record.request_parameters.is_none() && record.resources.is_none(),
            "CloudTrail has neither requestParameters nor resources where access was denied",
        );
    }
    demand(record.resources.is_some(), "there are no resources")?;
    check_kms_parameters(&record.event_name, record.request_parameters.as_ref())
}

fn check_kms_data(data: &KmsEventData<'_>) -> Result<(), String> {
    let KmsEventData {
        key_material_id,
        destination_key_material_id,
        source_key_material_id,
        recipient,
        redacted,
    } = data;
    let materials = [key_material_id, destination_key_material_id, source_key_material_id];
    demand(
        materials.iter().any(|id| id.is_some()) || recipient.is_some() || !redacted.is_empty(),
        "additionalEventData is empty",
    )?;
    demand(
        materials.into_iter().flatten().all(|id| is_hex(id, 64)),
        "keyMaterialId is not 64 lower-case hex digits",
    )?;
    demand(recipient.as_ref().is_none_or(is_object), "recipient is not an object")
}

/// Checks the parameters that CloudTrail records for an operation.
fn check_kms_parameters(operation: &str, parameters: Option<&RequestParameters<'_>>) -> Result<(), String> {
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
    let no_pair = asked.key_pair_spec.is_none();
    let re_encrypts = [
        &asked.source_encryption_algorithm,
        &asked.destination_key_id,
        &asked.destination_encryption_algorithm,
    ];
    let is_re_encryption = re_encrypts.iter().all(|part| part.is_some());
    let no_re_encryption = re_encrypts.iter().all(|part| part.is_none())
        && asked.source_key_id.is_none()
        && asked.source_encryption_context.is_none()
        && asked.destination_encryption_context.is_none();
    let fits = match operation {
        "ReEncrypt" => {
            is_re_encryption && !has_key && !algorithm && no_context && no_length && no_pair && no_signing
        }
        _ if !no_re_encryption => false,
        "GenerateDataKeyPair" | "GenerateDataKeyPairWithoutPlaintext" => {
            has_key && !no_pair && no_length && !algorithm && no_signing
        }
        _ if !no_pair => false,
        "Encrypt" => has_key && algorithm && no_length && no_signing,
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

fn check_values(asked: &RequestParameters<'_>) -> Result<(), String> {
    demand(
        asked.key_spec.as_deref().is_none_or(|spec| matches!(spec, "AES_256" | "AES_128")),
        "keySpec is neither AES_256 nor AES_128",
    )?;
    demand(
        asked.number_of_bytes.is_none_or(|n| (1..=1_024).contains(&n)),
        "numberOfBytes is not 1 to 1,024",
    )?;
    demand(
        asked.key_pair_spec.as_deref().is_none_or(|spec| KEY_PAIR_SPECS.contains(&spec)),
        "keyPairSpec is none of KMS's",
    )?;
    asked.contexts().try_for_each(check_context)
}

/// KMS: `DataKeyPairSpec` in all regions.
const KEY_PAIR_SPECS: [&str; 7] = [
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "ECC_NIST_P256",
    "ECC_NIST_P384",
    "ECC_NIST_P521",
    "ECC_SECG_P256K1",
];

/// Brokers write names sorted and without repetition, which JSON does not require.
fn check_context(context: &ContextPairs<'_>) -> Result<(), String> {
    demand(context.iter().next().is_some(), "encryptionContext is there, and empty")?;
    demand(
        context.iter().map(|(name, _)| name).is_sorted_by(|one, next| one < next),
        "the names of encryptionContext are not in their order, each once",
    )
}

/// Checks that redacted values are there as digests, except in a record that was cut.
fn check_redacted(
    names: &[Text<'_>],
    asked: Option<&RequestParameters<'_>>,
    is_cut: bool,
) -> Result<(), String> {
    demand(
        names.is_sorted_by(|one, next| **one < **next),
        "the names of redactedEncryptionContext are not in their order, each once",
    )?;
    for name in names {
        let pairs = asked.into_iter().flat_map(RequestParameters::contexts).flat_map(ContextPairs::iter);
        let mut values = pairs.filter(|pair| pair.0 == &**name).map(|(_, value)| value).peekable();
        let is_there = values.peek().is_some() && values.all(is_digest);
        demand(
            is_there || is_cut,
            "redactedEncryptionContext names a pair whose value is no digest, or is not there",
        )?;
    }
    Ok(())
}

fn is_digest(value: &str) -> bool {
    let hex = value.strip_prefix("hmac-sha256:").or_else(|| value.strip_prefix("sha256:"));
    hex.is_some_and(|hex| is_hex(hex, 64))
}

/// Checks the rest of an activity record. Returns its `additionalEventData`.
pub(super) fn check_activity<'a>(record: &ReadRecord<'a>) -> Result<ActivityEventData<'a>, String> {
    check_call(record)?;
    let extra = record.activity().map_err(|malformed| format!("additionalEventData: {malformed}"))?;
    let extra = extra.ok_or("there is no additionalEventData")?;
    check_told(record, &extra)?;
    Ok(extra)
}

/// The same with `additionalEventData` that is parsed already.
pub(super) fn check_activity_with<D>(
    record: &Record<'_, D>,
    extra: &ActivityEventData<'_>,
) -> Result<(), String> {
    check_call(record)?;
    check_told(record, extra)
}

/// Checks what an activity record says about its call.
fn check_call<D>(record: &Record<'_, D>) -> Result<(), String> {
    let is_own = is_own(&record.event_name);
    let is_operators = OPERATOR_METHODS.contains(&&*record.event_name);
    demand(is_own || is_operators || is_call(&record.event_name), "eventName is no action of the broker")?;
    identity::check_workload(&record.user_identity, is_own)?;
    demand(record.tls_details.is_none(), "tlsDetails is in records of KMS only")?;
    demand(lower_case_uuid(&record.request_id).is_some(), "requestID is not a UUID in lower case")?;
    if let Some(asked) = &record.request_parameters {
        check_values(asked)?;
        demand(
            asked.ciphertext_sha256.as_ref().is_none_or(|hash| is_hex(hash, 64)),
            "ciphertextBlobSHA256 is not 64 lower-case hex digits",
        )?;
    }
    Ok(())
}

/// Whether it is an event of the broker's own.
fn is_own(event_name: &str) -> bool {
    BrokerEvent::of(event_name).is_some()
        || matches!(event_name, REPORT_NOTICE | REPORT_IDENTITY | REPORT_FAILED_CHECK)
}

/// Checks what it says besides its call.
fn check_told<D>(record: &Record<'_, D>, extra: &ActivityEventData<'_>) -> Result<(), String> {
    let life = BrokerEvent::of(&record.event_name);
    let is_own = is_own(&record.event_name);
    let is_operators = OPERATOR_METHODS.contains(&&*record.event_name);
    check_redacted(&extra.redacted, record.request_parameters.as_ref(), extra.is_cut)?;
    let is_allowed = match extra.outcome {
        Outcome::Allowed => true,
        Outcome::Denied | Outcome::Rejected | Outcome::Throttled | Outcome::Failed | Outcome::Aborted => {
            false
        }
    };
    demand(
        is_allowed == record.error_code.is_none(),
        "an errorCode goes with every outcome but Allowed, and with that never",
    )?;
    if let Some(data_key) = &extra.data_key {
        check_data_key(data_key, is_allowed)?;
    }
    check_message(record, extra)?;
    demand(
        extra.broker.is_some() == life.is_some(),
        "additionalEventData.broker is in records of the broker's life, and in no others",
    )?;
    demand(
        extra.operator.as_ref().is_none_or(|operator| is_operators && is_object(operator)),
        "additionalEventData.operator is an object, in records of operators alone",
    )?;
    if is_operators {
        check_operators(record, extra)?;
    } else if is_allowed && !is_own {
        check_answer(record, extra)?;
    }
    check_many(record, extra)?;
    let tells = extra.journal.is_some() || extra.reloads.is_some();
    demand(extra.notice_id.is_none() || tells, "noticeID, and nothing is told")?;
    let may_have_identity = life == Some(BrokerEvent::Start);
    demand(
        may_have_identity || extra.identity.is_some() == (&*record.event_name == REPORT_IDENTITY),
        "additionalEventData.identity is in the broker's ReportIdentity and StartBroker, and in no other record",
    )?;
    demand(
        extra.failed_check.is_some() == (&*record.event_name == REPORT_FAILED_CHECK),
        "additionalEventData.failedCheck is in the broker's ReportFailedCheck, and in no other record",
    )?;
    if is_own { check_own(record, extra) } else { Ok(()) }
}

/// An answer must name the policy that permitted it, its key and its call to KMS; otherwise it could not be checked.
fn check_answer<D>(record: &Record<'_, D>, extra: &ActivityEventData<'_>) -> Result<(), String> {
    demand(extra.policy.is_some(), "an answer tells no policy that permitted it")?;
    demand(record.request_parameters.is_some(), "an answer tells no requestParameters")?;
    if extra.ends.is_some() {
        // The record that began the stream has the rest.
        return Ok(());
    }
    let Some(data_key) = &extra.data_key else {
        return Err("an answer names no KMS record behind it: there is no dataKey".into());
    };
    let action = known::<Action>(&record.event_name);
    let has_key = record.resources.as_ref().is_some_and(|resources| !resources.is_empty());
    demand(has_key || action == Some(Action::GenerateRandom), "an answer tells no key in resources")?;
    let is_counted = matches!(
        action,
        Some(Action::GenerateDataKey | Action::GenerateDataKeyWithoutPlaintext | Action::EncryptMessage)
    );
    demand(extra.message.is_some() || !is_of_message(record), "an answer tells nothing of its message")?;
    demand(
        !is_counted || data_key.messages_used.is_some(),
        "a data key that was handed out has no messagesUsed, messagesLimit, bytesUsed and bytesLimit",
    )
}

/// Whether it is a workload's call. A ReEncrypt is one call, although policy decides about both of its sides.
fn is_call(event_name: &str) -> bool {
    match known::<Action>(event_name) {
        Some(Action::ReEncryptFrom | Action::ReEncryptTo) => false,
        Some(_) => true,
        None => event_name == "ReEncrypt",
    }
}

fn is_of_message<D>(record: &Record<'_, D>) -> bool {
    matches!(known::<Action>(&record.event_name), Some(Action::EncryptMessage | Action::DecryptMessage))
}

/// Only records of messages describe a message, and no more is encrypted than was charged to the data key.
fn check_message<D>(record: &Record<'_, D>, extra: &ActivityEventData<'_>) -> Result<(), String> {
    let has_any = extra.message.is_some() || extra.ends.is_some();
    demand(!has_any || is_of_message(record), "message or endsEventID is told of a call without a message")?;
    demand(
        extra.ends.is_none() || (extra.data_key.is_none() && extra.message.is_some()),
        "the end of a stream tells its message, and has no dataKey: its beginning has",
    )?;
    let Some(message) = &extra.message else { return Ok(()) };
    demand(is_hex(&message.header_sha256, 64), "headerSHA256 is not 64 lower-case hex digits")?;
    demand(message.encrypted_data_keys >= 1, "a message has an encrypted data key")?;
    demand(
        matches!(&*message.suite, "0x0178" | "0x0378" | "0x0478" | "0x0578"),
        "the message's suite is none that a broker takes",
    )?;
    let declared = record.request_parameters.as_ref().and_then(|asked| asked.declared_use);
    let is_encrypted = known::<Action>(&record.event_name) == Some(Action::EncryptMessage);
    let charged = declared.and_then(|declared| declared.bytes).filter(|_| is_encrypted);
    demand(
        message.plaintext_length.is_none_or(|length| charged.is_none_or(|charged| length <= charged)),
        "more was encrypted than the data key was charged with",
    )
}

/// A record that withdraws another, or counts refusals, cannot be about an answer.
fn check_many<D>(record: &Record<'_, D>, extra: &ActivityEventData<'_>) -> Result<(), String> {
    let was_answered = extra.outcome == Outcome::Allowed;
    demand(!was_answered || extra.withdraws.is_none(), "an answered call withdraws no record")?;
    let Some(refusals) = &extra.refusals else { return Ok(()) };
    demand(!was_answered && extra.data_key.is_none(), "refusals have an answer")?;
    demand(record.request_parameters.is_none(), "refusals have the requestParameters of one")?;
    demand(refusals.count >= 1, "no refusals are counted")?;
    let ids = [&refusals.first_request_id, &refusals.last_request_id];
    demand(
        ids.iter().all(|id| lower_case_uuid(id).is_some()),
        "firstRequestID or lastRequestID is not a UUID in lower case",
    )
}

/// Events of the broker's own have no request.
fn check_own<D>(record: &Record<'_, D>, extra: &ActivityEventData<'_>) -> Result<(), String> {
    if let Some(identity) = &extra.identity {
        identity::check_reported(identity, &record.recipient_account_id)?;
    }
    let tells = extra.identity.is_some()
        || extra.notice_id.is_some()
        || extra.broker.is_some()
        || extra.failed_check.is_some();
    demand(tells, "a record of the broker's own tells nothing")?;
    if let Some(json) = extra.broker.as_ref().and_then(Open::json) {
        let broker: BrokerData<'_> = parse(json).map_err(|malformed| format!("broker: {malformed}"))?;
        demand(
            !broker.version.is_empty() && broker.format_version > 0,
            "broker has no version or formatVersion",
        )?;
        demand(
            broker.configuration_sha256.as_ref().is_none_or(|hash| is_hex(hash, 64)),
            "configurationSHA256 is not 64 lower-case hex digits",
        )?;
    }
    demand(
        record.request_parameters.is_none()
            && record.resources.is_none()
            && extra.data_key.is_none()
            && extra.outcome == Outcome::Allowed,
        "a record of the broker's own has what only calls have",
    )
}

/// Operators' calls have no key.
fn check_operators<D>(record: &Record<'_, D>, extra: &ActivityEventData<'_>) -> Result<(), String> {
    let has_none = extra.policy.is_none() && extra.data_key.is_none() && extra.recipient.is_none();
    demand(
        has_none && record.request_parameters.is_none() && record.resources.is_none(),
        "an operator's record has what only workloads' calls have",
    )
}

fn check_data_key(data_key: &DataKeyData<Text<'_>>, is_allowed: bool) -> Result<(), String> {
    let from_cache = match data_key.served_from {
        ServedFrom::Kms => false,
        ServedFrom::Cache => true,
    };
    demand(
        data_key.kms_request_id.as_deref().is_none_or(|id| !id.is_empty()),
        "dataKey.kmsRequestID is empty",
    )?;
    demand(
        !(from_cache || is_allowed) || (data_key.kms_request_id.is_some() && data_key.kms_event_id.is_some()),
        "an answer names the KMS record behind it: dataKey has no kmsRequestID or kmsEventID",
    )?;
    demand(!is_allowed || data_key.minted_at.is_some(), "dataKey has no mintedAt")?;
    demand(
        data_key.ciphertext_sha256.as_ref().is_none_or(|hash| is_hex(hash, 64)),
        "dataKey.ciphertextBlobSHA256 is not 64 lower-case hex digits",
    )
}

/// Extracts the charge of a draw.
pub(super) fn charge(
    asked: Option<&RequestParameters<'_>>,
    data_key: &DataKeyData<Text<'_>>,
) -> Result<Option<Charge>, String> {
    let DataKeyData { messages_used, messages_limit, bytes_used, bytes_limit, .. } = data_key;
    match (messages_used, messages_limit, bytes_used, bytes_limit) {
        (None, None, None, None) => Ok(None),
        (Some(messages), Some(messages_limit), Some(bytes), Some(bytes_limit)) => {
            let declared = asked.and_then(|asked| asked.declared_use).ok_or("a data key without use")?;
            let is_once = data_key.expires_at.is_none();
            demand(
                declared.bytes.is_some() || is_once,
                "a data key that others may get is used without a length",
            )?;
            Ok(Some(Charge {
                messages: Amount { declared: declared.messages, used: *messages, limit: *messages_limit },
                bytes: Amount {
                    declared: declared.bytes.unwrap_or_default(),
                    used: *bytes,
                    limit: *bytes_limit,
                },
            }))
        }
        _ => {
            Err("dataKey has some of messagesUsed, messagesLimit, bytesUsed and bytesLimit, but not all"
                .into())
        }
    }
}

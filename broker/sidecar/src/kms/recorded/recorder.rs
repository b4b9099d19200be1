//! Makes KMS records of the attempts that KMS answered.

use std::sync::Arc;

use key_broker_core::KeyArn;
use key_broker_trail::journal::Journal;
use key_broker_trail::record::{
    AwsCaller, KmsEventData, KmsRecord, Open, RecipientData, TlsDetails, UserIdentity,
};
use uuid::Uuid;

use super::{Provenance, RecordedReply, UnwrittenRecords};
use crate::error::{BrokerError, cloudtrail_error_code};
use crate::kms::Attempt;
use crate::kms::aws::Encryption;
use crate::operation::{KmsReply, KmsRequest, key_in_region, recorded_at_kms};
use crate::policy::{Permitted, Requester};
use crate::redaction::Redaction;

/// What all KMS records have in common.
#[derive(Clone)]
pub(crate) struct Recorder {
    /// Where records are written.
    pub journal: Journal,
    /// The broker as the caller of KMS.
    pub caller: Arc<AwsCaller>,
    /// The redaction of records.
    pub redaction: Option<Arc<Redaction>>,
}

impl Recorder {
    pub(super) fn record(
        &self,
        permitted: &Permitted<KmsRequest>,
        result: Result<KmsReply, BrokerError>,
        attempts: &[Attempt],
        region: Arc<str>,
    ) -> RecordedReply<KmsReply> {
        let used_keys = result.as_ref().map_or([None, None], KmsReply::used_keys);
        let mut lines = Vec::new();
        let mut source = None;
        for attempt in attempts {
            let redaction = self.redaction.as_deref();
            let event_id = append_record(&mut lines, &self.caller, redaction, permitted, attempt, used_keys);
            let request_id = attempt.request_id.as_str().into();
            source = Some(Provenance { request_id, event_id, at: attempt.at, span: None });
        }
        let records = UnwrittenRecords { journal: self.journal.clone(), lines };
        RecordedReply { result, source, region, records }
    }
}

/// Adds the record of one attempt, made as `caller`, to `lines`, redacted by `redaction`, and returns its eventID. `used_keys` are the keys
/// and materials in KMS's reply: the one that was used, and for ReEncrypt the one that encrypts now.
#[must_use]
pub(crate) fn append_record(
    lines: &mut Vec<u8>,
    caller: &AwsCaller,
    redaction: Option<&Redaction>,
    permitted: &Permitted<KmsRequest>,
    attempt: &Attempt,
    used_keys: [Option<(&KeyArn, Option<&str>)>; 2],
) -> Uuid {
    let operation = permitted.subject().operation();
    // A multi-Region key has the ARN under which KMS was asked in that region.
    let sent_key = operation.sent_key().map(|key| key_in_region(key, &caller.region));
    let used_keys = used_keys.map(|key| key.map(|(arn, material)| (arn.in_region(&caller.region), material)));
    let mut identity = identity(attempt);
    identity.invoked_by = (permitted.requester() == Requester::Broker).then_some(INVOKED_BY.into());
    let event_id = Uuid::new_v4();
    let mut record =
        KmsRecord::new(identity, attempt.at, operation.name(), &caller.region, &attempt.request_id, event_id);
    record.user_agent = Some((&attempt.user_agent).into());
    // Credentials of another account than the trail's are never used.
    record.recipient_account_id = (&caller.account_id).into();
    let source_address = attempt.source_address.map(|address| address.to_string());
    record.source_ip_address = Some(source_address.as_ref().unwrap_or(&caller.source_address).into());
    if permitted.requester() != Requester::Broker {
        record.tls_details =
            attempt.encryption.as_ref().map(|(encryption, host)| tls_details(encryption, host));
    }
    let (named_in_error, words);
    if let Some((code, message)) = &attempt.error {
        let error_code = cloudtrail_error_code(code);
        words = redaction.map(|redaction| redaction.words(message, operation.parameters()));
        record.fail(error_code, words.as_deref().unwrap_or(message));
        if error_code == "AccessDenied" {
            // A genuine record of AccessDenied has neither parameters nor resources.
            record.append_to(lines);
            return event_id;
        }
        named_in_error =
            KeyArn::find_in(message).or_else(|| sent_key.as_ref().and_then(|key| caller.key_arn(key)));
        record.resources = Some(named_in_error.iter().map(Into::into).collect());
    } else {
        record.resources = Some(used_keys.iter().flatten().map(|(arn, _)| arn.into()).collect());
        let recipient = operation.recipient().map(|measured| Open::Written(recorded_at_kms(measured)));
        record.additional_event_data = event_data(&used_keys, recipient);
    }
    record.request_parameters = operation.parameters();
    if let Some(parameters) = &mut record.request_parameters
        && parameters.destination_key_id.is_none()
    {
        parameters.key_id = sent_key.as_ref().map(Into::into);
    }
    if let Some(redaction) = redaction
        && let Some(parameters) = record.request_parameters.take()
    {
        let (parameters, redacted) = redaction.of(parameters);
        record.request_parameters = Some(parameters);
        if !redacted.is_empty() {
            record.additional_event_data.get_or_insert_default().redacted = redacted;
        }
    }
    record.append_to(lines);
    event_id
}

/// TLS details of a call to KMS.
fn tls_details<'a>(encryption: &Encryption, host: &'a str) -> TlsDetails<'a> {
    TlsDetails {
        tls_version: Some(encryption.version.into()),
        cipher_suite: Some(encryption.cipher_suite.into()),
        client_provided_host_header: Some(host.into()),
        key_exchange: encryption.key_exchange.map(Into::into),
    }
}

/// The key material that was used, and the recipient for whom KMS encrypted the answer.
fn event_data<'a>(
    used_keys: &[Option<(KeyArn, Option<&'a str>)>; 2],
    recipient: Option<Open<'a, RecipientData<'a>>>,
) -> Option<KmsEventData<'a>> {
    let [used, new] =
        used_keys.each_ref().map(|key| key.as_ref().and_then(|(_, material)| *material).map(Into::into));
    let redacted = Vec::new();
    let data = if used_keys[1].is_some() {
        KmsEventData {
            source_key_material_id: used,
            destination_key_material_id: new,
            recipient,
            redacted,
            ..KmsEventData::default()
        }
    } else {
        KmsEventData { key_material_id: used, recipient, redacted, ..KmsEventData::default() }
    };
    let is_empty = data.key_material_id.is_none()
        && data.source_key_material_id.is_none()
        && data.destination_key_material_id.is_none()
        && data.recipient.is_none();
    (!is_empty).then_some(data)
}

/// The owner of the access key that signed the attempt or, until STS has returned it, the key alone.
fn identity(attempt: &Attempt) -> UserIdentity<'_> {
    if let Some(session) = &attempt.session {
        return UserIdentity::clone(session);
    }
    let mut identity = UserIdentity::default();
    identity.kind = "Unknown".into();
    identity.access_key_id = attempt.access_key_id.as_deref().map(Into::into);
    identity
}

/// `invokedBy`, which CloudTrail has for calls that no workload asked for.
const INVOKED_BY: &str = "key-broker";

//! Answers of KMS made into KMS records.

use std::sync::Arc;

use key_broker_core::{KeyArn, KeyId, Measurements};
use uuid::Uuid;

use super::{Recorded, Source, UnwrittenRecords};
use crate::audit::journal::Journal;
use crate::audit::record::{KmsEventData, KmsRecord, RecordedError};
use crate::error::{BrokerError, cloudtrail_error_code};
use crate::kms::caller::AwsCaller;
use crate::kms::{Answer, Asked, Uses};

/// What is the same for every KMS record.
#[derive(Clone)]
pub struct Recorder {
    /// Where records go.
    pub journal: Journal,
    /// Who calls KMS.
    pub caller: Arc<AwsCaller>,
}

impl Recorder {
    pub(super) fn record<T: Uses>(
        &self,
        operation: &'static str,
        asked: &Asked,
        recipient: Option<&Measurements>,
        result: Result<T, BrokerError>,
        answers: &[Answer],
    ) -> Recorded<T> {
        let used_key = result.as_ref().ok().and_then(Uses::used_key);
        let mut lines = Vec::new();
        let mut source = None;
        for answer in answers {
            let event_id = self.caller.record(&mut lines, operation, asked, answer, used_key, recipient);
            let request_id = answer.request_id.as_str().into();
            source = Some(Source { request_id, event_id, at: answer.at, span: None });
        }
        Recorded { result, source, records: UnwrittenRecords { journal: self.journal.clone(), lines } }
    }
}

impl AwsCaller {
    /// Adds the record of one answer to `lines` and returns its eventID.
    #[must_use]
    pub fn record(
        &self,
        lines: &mut Vec<u8>,
        operation: &'static str,
        asked: &Asked,
        answer: &Answer,
        used_key: Option<(&KeyArn, Option<&str>)>,
        recipient: Option<&Measurements>,
    ) -> Uuid {
        let mut identity = self.identity(answer.access_key_id.as_deref());
        identity.invoked_by = asked.invoked_by();
        let mut record = KmsRecord::new(identity, answer.at, operation, &self.region, &answer.request_id);
        record.user_agent = &answer.user_agent;
        record.source_ip_address = &self.source_address;
        let named_in_error;
        if let Some((code, message)) = &answer.error {
            let error_code = cloudtrail_error_code(code);
            record.error = Some(RecordedError { error_code, error_message: message });
            if error_code == "AccessDenied" {
                // A genuine record of AccessDenied has neither parameters nor resources.
                record.append_to(lines);
                return record.event_id;
            }
            named_in_error =
                KeyArn::find_in(message).or_else(|| asked.asked_key().and_then(|key| self.arn_of(key)));
            record.resources = Some(named_in_error.iter().map(Into::into).collect());
        } else {
            record.resources = Some(used_key.iter().map(|(arn, _)| (*arn).into()).collect());
            let key_material_id = used_key.and_then(|(_, material)| material);
            record.additional_event_data = (key_material_id.is_some() || recipient.is_some())
                .then_some(KmsEventData { key_material_id, recipient });
        }
        record.request_parameters = asked.parameters();
        record.append_to(lines);
        record.event_id
    }

    fn arn_of(&self, key: &KeyId) -> Option<KeyArn> {
        key.key_arn(&self.region, &self.account_id)
    }
}

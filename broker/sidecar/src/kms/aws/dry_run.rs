//! Operations that KMS only judges: with `DryRun` it answers with an error that says yes, or with the one that says why not
//! (<https://docs.aws.amazon.com/kms/latest/developerguide/testing-permissions.html>).

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DryRunModifierType, MessageType, SigningAlgorithmSpec};

use super::error::{kms_error, unexpected};
use super::input::{context_map, length_fields};
use super::operations::Way;
use crate::kms::KmsError;
use crate::operation::{DryRunOf, DryRunRequest, KmsReply};

impl Way<'_> {
    pub(super) async fn dry_run(self, request: &DryRunRequest) -> Result<KmsReply, KmsError> {
        let (key, context) = (self.sent(&request.key), context_map(&request.context));
        let sent = match &request.of {
            DryRunOf::GenerateDataKey(length) => {
                let (key_spec, number_of_bytes) = length_fields(*length);
                self.client
                    .generate_data_key()
                    .key_id(key.as_str())
                    .set_key_spec(key_spec)
                    .set_number_of_bytes(number_of_bytes)
                    .set_encryption_context(context)
                    .dry_run(true)
                    .customize()
                    .interceptor(self.watch)
                    .send()
                    .await
                    .map(drop)
                    .map_err(|error| kms_error(&error))
            }
            DryRunOf::GenerateDataKeyWithoutPlaintext(length) => {
                let (key_spec, number_of_bytes) = length_fields(*length);
                self.client
                    .generate_data_key_without_plaintext()
                    .key_id(key.as_str())
                    .set_key_spec(key_spec)
                    .set_number_of_bytes(number_of_bytes)
                    .set_encryption_context(context)
                    .dry_run(true)
                    .customize()
                    .interceptor(self.watch)
                    .send()
                    .await
                    .map(drop)
                    .map_err(|error| kms_error(&error))
            }
            DryRunOf::Decrypt(ciphertext) => {
                let modifier = ciphertext.is_none().then_some(DryRunModifierType::IgnoreCiphertext);
                self.client
                    .decrypt()
                    .key_id(key.as_str())
                    .set_ciphertext_blob(ciphertext.as_ref().map(|blob| Blob::new(blob.as_bytes())))
                    .set_encryption_context(context)
                    .dry_run(true)
                    .set_dry_run_modifiers(modifier.map(|modifier| vec![modifier]))
                    .customize()
                    .interceptor(self.watch)
                    .send()
                    .await
                    .map(drop)
                    .map_err(|error| kms_error(&error))
            }
            DryRunOf::Sign => self
                .client
                .sign()
                .key_id(key.as_str())
                .message(Blob::new([0; 32]))
                .message_type(MessageType::Digest)
                .signing_algorithm(SigningAlgorithmSpec::RsassaPkcs1V15Sha256)
                .dry_run(true)
                .customize()
                .interceptor(self.watch)
                .send()
                .await
                .map(drop)
                .map_err(|error| kms_error(&error)),
        };
        match sent {
            Ok(()) => Err(unexpected("KMS did what it was asked a dry run of")),
            Err(error) if error.code == "DryRunOperationException" => Ok(KmsReply::Permitted),
            Err(error) => Err(error),
        }
    }
}

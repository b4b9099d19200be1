//! Dry runs: with `DryRun`, KMS answers either with the error that means yes, or with the error that says why not
//! (<https://docs.aws.amazon.com/kms/latest/developerguide/testing-permissions.html>).

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DryRunModifierType, MessageType, SigningAlgorithmSpec};

use super::error::{kms_error, unexpected};
use super::input::{context_map, length_fields};
use super::operations::Way;
use crate::kms::KmsError;
use crate::operation::{DryRunOf, DryRunRequest, KmsReply};

/// Sends a request with `DryRun`: the SDK has a separate type for each operation.
macro_rules! dry_run {
    ($way:ident, $asked:expr) => {
        $asked
            .dry_run(true)
            .customize()
            .interceptor($way.watch)
            .send()
            .await
            .map(drop)
            .map_err(|error| kms_error(&error))
    };
}

impl Way<'_> {
    pub(super) async fn dry_run(self, request: &DryRunRequest) -> Result<KmsReply, KmsError> {
        let (key, context) = (self.sent(&request.key), context_map(&request.context));
        let sent = match &request.of {
            DryRunOf::GenerateDataKey(length) => {
                let (key_spec, number_of_bytes) = length_fields(*length);
                let asked =
                    self.client.generate_data_key().key_id(key.as_str()).set_encryption_context(context);
                dry_run!(self, asked.set_key_spec(key_spec).set_number_of_bytes(number_of_bytes))
            }
            DryRunOf::GenerateDataKeyWithoutPlaintext(length) => {
                let (key_spec, number_of_bytes) = length_fields(*length);
                let asked = self.client.generate_data_key_without_plaintext().key_id(key.as_str());
                let asked = asked.set_encryption_context(context);
                dry_run!(self, asked.set_key_spec(key_spec).set_number_of_bytes(number_of_bytes))
            }
            DryRunOf::Decrypt(ciphertext) => {
                let modifier = ciphertext.is_none().then_some(DryRunModifierType::IgnoreCiphertext);
                let ciphertext = ciphertext.as_ref().map(|blob| Blob::new(blob.as_bytes()));
                let asked = self.client.decrypt().key_id(key.as_str()).set_encryption_context(context);
                let modifiers = modifier.map(|modifier| vec![modifier]);
                dry_run!(self, asked.set_ciphertext_blob(ciphertext).set_dry_run_modifiers(modifiers))
            }
            DryRunOf::Sign => {
                let asked = self.client.sign().key_id(key.as_str()).message(Blob::new([0; 32]));
                let asked = asked.message_type(MessageType::Digest);
                dry_run!(self, asked.signing_algorithm(SigningAlgorithmSpec::RsassaPkcs1V15Sha256))
            }
        };
        match sent {
            Ok(()) => Err(unexpected("KMS did what it was asked a dry run of")),
            Err(error) if error.code == "DryRunOperationException" => Ok(KmsReply::Permitted),
            Err(error) => Err(error),
        }
    }
}

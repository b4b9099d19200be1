"""For what takes a KMS client of boto3, such as the keyrings of the AWS Encryption SDK: the same, through the broker.

    keyring = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig()).create_aws_kms_keyring(
        input=CreateAwsKmsKeyringInput(kms_key_id=KEY_ARN, kms_client=key_broker.aws.kms_client(broker))
    )

The process needs no AWS credentials, and the broker's reuse of data keys takes the place of a caching CMM. The SDK has the data keys then:
`Client.encrypt` writes the same messages without.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ._client import Client
from ._options import CallOptions

_LENGTHS = {"AES_256": 32, "AES_128": 16}


def kms_client(broker: Client, region: str | None = None) -> "KmsClient":
    """The broker as a KMS client of boto3, with the two methods that encryption in this process takes.

    `region` is for keyrings that ask their client for it: those of multi-Region keys.
    """
    return KmsClient(broker, region)


class KmsClient:
    """Takes and answers what boto3's KMS client does. Errors are `KeyBrokerError`."""

    def __init__(self, broker: Client, region: str | None) -> None:
        self._broker = broker
        # The Encryption SDK writes its name there.
        self.meta = SimpleNamespace(region_name=region, config=SimpleNamespace(user_agent_extra=None))

    def generate_data_key(
        self,
        *,
        KeyId: str,
        NumberOfBytes: int | None = None,
        KeySpec: str | None = None,
        EncryptionContext: Mapping[str, str] | None = None,
        GrantTokens: Sequence[str] = (),
    ) -> dict[str, Any]:
        """KMS GenerateDataKey."""
        length = NumberOfBytes if KeySpec is None else _LENGTHS[KeySpec]
        if length is None:
            raise ValueError("give NumberOfBytes or KeySpec")
        options: CallOptions = {"grant_tokens": GrantTokens}
        with self._broker.data_key(KeyId, EncryptionContext, length=length, **options) as key:
            return {"Plaintext": bytes(key.plaintext), "CiphertextBlob": key.ciphertext_blob, "KeyId": key.key_id}

    def decrypt(
        self,
        *,
        CiphertextBlob: bytes,
        KeyId: str,
        EncryptionContext: Mapping[str, str] | None = None,
        GrantTokens: Sequence[str] = (),
    ) -> dict[str, Any]:
        """KMS Decrypt."""
        options: CallOptions = {"grant_tokens": GrantTokens}
        with self._broker.decrypt_data_key(CiphertextBlob, KeyId, EncryptionContext, **options) as key:
            return {
                "Plaintext": bytes(key.plaintext),
                "KeyId": key.key_id,
                "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            }

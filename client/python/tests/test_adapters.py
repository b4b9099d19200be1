"""Proves: the AWS Encryption SDK and Tink encrypt through the broker, with no AWS credentials in this process."""

import os

import pytest
from conftest import CONTEXT, KEY


@pytest.fixture
def no_credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_the_encryption_sdk_and_the_broker_read_one_another(broker, no_credentials):
    sdk = pytest.importorskip("aws_encryption_sdk")
    from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
    from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
    from aws_cryptographic_material_providers.mpl.models import CreateAwsKmsKeyringInput
    from key_broker import aws

    arn = broker.describe_key(KEY).arn
    providers = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
    keyring = providers.create_aws_kms_keyring(
        input=CreateAwsKmsKeyringInput(kms_key_id=arn, kms_client=aws.kms_client(broker))
    )
    client = sdk.EncryptionSDKClient()

    written_here, _ = client.encrypt(source=b"hello", keyring=keyring, encryption_context=CONTEXT)
    assert client.decrypt(source=written_here, keyring=keyring)[0] == b"hello"
    # Its default suite, which is signed.
    assert broker.decrypt(written_here, CONTEXT) == b"hello"
    written_there = broker.encrypt(b"and back", KEY, CONTEXT)
    assert client.decrypt(source=written_there, keyring=keyring)[0] == b"and back"


def test_what_boto3_takes_is_taken(broker):
    from key_broker import aws

    kms = aws.kms_client(broker)
    key = kms.generate_data_key(KeyId=KEY, KeySpec="AES_128", EncryptionContext=CONTEXT)
    assert len(key["Plaintext"]) == 16
    again = kms.decrypt(CiphertextBlob=key["CiphertextBlob"], KeyId=key["KeyId"], EncryptionContext=CONTEXT)
    assert again["Plaintext"] == key["Plaintext"]
    with pytest.raises(ValueError):
        kms.generate_data_key(KeyId=KEY)


def test_tink_encrypts_with_the_broker(broker):
    tink = pytest.importorskip("tink")
    from key_broker.tink import kms_client
    from tink import aead

    aead.register()
    remote = kms_client(broker).get_aead(f"key-broker://{KEY}")
    for used in (remote, aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, remote)):
        for associated in (b"", b"tenant acme"):
            sealed = used.encrypt(b"hello", associated)
            assert used.decrypt(sealed, associated) == b"hello"
            with pytest.raises(tink.TinkError):
                used.decrypt(sealed, b"other")
    with pytest.raises(tink.TinkError):
        remote.decrypt(remote.encrypt(b"hello", b"some"), b"")
    assert not kms_client(broker).does_support("aws-kms://" + KEY)
    with pytest.raises(tink.TinkError):
        kms_client(broker).get_aead("aws-kms://" + KEY)

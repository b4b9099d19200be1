"""The differences between the emulator and moto: who is right, and AWS's page for it.

KNOWN: case -> (what the emulator gives, what moto gives, who is right, source).
"""

API = "https://docs.aws.amazon.com/kms/latest/APIReference/"
GUIDE = "https://docs.aws.amazon.com/kms/latest/developerguide/"
STATES = GUIDE + "key-state.html"
DRY_RUN = GUIDE + "testing-permissions.html"

DATA_KEY = "ok: CiphertextBlob KeyId Plaintext"
DATA_KEY_WITH_MATERIAL = "ok: CiphertextBlob KeyId KeyMaterialId Plaintext"
ENCRYPTED = "ok: CiphertextBlob KeyId"
DECRYPTED = "ok: KeyId Plaintext"
DECRYPTED_WITH_MATERIAL = "ok: EncryptionAlgorithm KeyId KeyMaterialId Plaintext"
METADATA = (
    "Description Enabled EncryptionAlgorithms KeyId KeyManager KeySpec KeyState KeyUsage MultiRegion Origin",
    "Description Enabled EncryptionAlgorithms KeyId KeyManager KeySpec KeyState Origin SigningAlgorithms",
)

KNOWN = {}


def differ(ours, theirs, source, *cases, right="emulator"):
    """Notes cases that differ in the same way."""
    for case in cases:
        KNOWN[case] = (ours, theirs, right, source)


# Members that moto's answers lack.
differ(
    DATA_KEY_WITH_MATERIAL,
    DATA_KEY,
    API + "API_GenerateDataKey.html",
    "GenerateDataKey AES_256",
    "GenerateDataKey by alias",
    "GenerateDataKey by ARN",
    "GenerateDataKey with NumberOfBytes",
)
differ(
    "ok: CiphertextBlob KeyId KeyMaterialId",
    ENCRYPTED,
    API + "API_GenerateDataKeyWithoutPlaintext.html",
    "GenerateDataKeyWithoutPlaintext",
)
differ(
    "ok: CiphertextBlob EncryptionAlgorithm KeyId",
    ENCRYPTED,
    API + "API_Encrypt.html",
    "Encrypt",
    "Encrypt 4096 bytes",
)
differ(DECRYPTED_WITH_MATERIAL, DECRYPTED, API + "API_Decrypt.html", "Decrypt", "Decrypt, right key")
differ(
    "ok: CustomerMasterKeySpec KeyId KeySpec KeyUsage PublicKey SigningAlgorithms",
    "ok: CustomerMasterKeySpec KeyId KeyUsage PublicKey SigningAlgorithms",
    API + "API_GetPublicKey.html",
    "GetPublicKey",
)
differ(
    f"ok: AWSAccountId Arn CreationDate CurrentKeyMaterialId CustomerMasterKeySpec {METADATA[0]}",
    f"ok: AWSAccountId Arn CreationDate CustomerMasterKeySpec {METADATA[1]}",
    API + "API_KeyMetadata.html",
    "DescribeKey",
)
differ(
    f"ok: AWSAccountId Arn CreationDate CurrentKeyMaterialId CustomerMasterKeySpec DeletionDate {METADATA[0]}",
    f"ok: AWSAccountId Arn CreationDate CustomerMasterKeySpec DeletionDate {METADATA[1]}",
    API + "API_KeyMetadata.html",
    "DescribeKey, key pending deletion",
)
differ(
    "ok: [True, 'Enabled', 'ENCRYPT_DECRYPT', 'SYMMETRIC_DEFAULT', 'AWS_KMS', 'CUSTOMER', False, '']",
    "ok: [True, 'Enabled', None, 'SYMMETRIC_DEFAULT', 'AWS_KMS', 'CUSTOMER', None, '']",
    API + "API_KeyMetadata.html",
    "values of DescribeKey",
)
differ(
    "ok: DeletionDate KeyId KeyState PendingWindowInDays",
    "ok: DeletionDate KeyId",
    API + "API_ScheduleKeyDeletion.html",
    "ScheduleKeyDeletion",
)
differ(
    "ok: ['PendingDeletion', 'Disabled']",
    "ok: [None, 'Disabled']",
    API + "API_ScheduleKeyDeletion.html",
    "state after CancelKeyDeletion",
)
differ(
    "ok: AliasArn AliasName CreationDate LastUpdatedDate TargetKeyId",
    "ok: AliasArn AliasName TargetKeyId",
    API + "API_AliasListEntry.html",
    "members of ListAliases",
)
differ("ok: True", "ok: False", GUIDE + "logging-using-cloudtrail.html", "request ids are UUIDs")

# What moto does not look at.
for operation, theirs in [("GenerateDataKey", DATA_KEY), ("Encrypt", ENCRYPTED), ("Decrypt", DECRYPTED)]:
    differ("DryRunOperationException 400", theirs, DRY_RUN, f"{operation}, DryRun")
    differ("DisabledException 400", theirs, STATES, f"{operation}, disabled key")
    differ("KMSInvalidStateException 400", theirs, STATES, f"{operation}, key pending deletion")
differ(
    "InvalidKeyUsageException 400",
    DATA_KEY,
    API + "API_GenerateDataKey.html",
    "GenerateDataKey, signing key",
    "GenerateDataKey, HMAC key",
)
differ("InvalidKeyUsageException 400", ENCRYPTED, API + "API_Encrypt.html", "Encrypt, signing key")
differ("ValidationException 400", DATA_KEY, API + "API_GenerateDataKey.html", "GenerateDataKey, 11 grant tokens")
differ(
    "ValidationException 400",
    DATA_KEY,
    "AWS's model states no limit",
    "GenerateDataKey, context of 8193 bytes",
    right="unknown",
)
differ(
    "ValidationException 400",
    DATA_KEY,
    GUIDE + "cryptographic-attestation.html",
    "GenerateDataKey with a bad attestation document",
)
differ("NotFoundException 400", "ok: KeyMetadata", API + "API_DescribeKey.html", "DescribeKey in another Region")
differ("ValidationException 400", "ok: KeyMetadata", API + "API_CreateKey.html", "CreateKey, RSA without KeyUsage")
differ("ValidationException 400", "ok: Plaintext", API + "API_GenerateRandom.html", "GenerateRandom 0")
differ(
    "ValidationException 400",
    "ok: KeyId Signature SigningAlgorithm",
    API + "API_Sign.html",
    "Sign a digest of the wrong length",
)
differ("KMSInvalidStateException 400", "ok: ", STATES, "EnableKey, key pending deletion")
differ("KMSInvalidStateException 400", "ok: ", STATES, "DisableKey, key pending deletion")
differ("KMSInvalidStateException 400", "ok: DeletionDate KeyId", STATES, "ScheduleKeyDeletion twice")
differ("KMSInvalidStateException 400", "ok: KeyId", STATES, "CancelKeyDeletion, nothing pending")
differ(
    "ValidationException 400", "ok: KeyId", API + "API_ScheduleKeyDeletion.html", "ScheduleKeyDeletion in 6 days"
)
differ(
    "UnsupportedOperationException 400",
    "ok: CustomerMasterKeySpec EncryptionAlgorithms KeyId PublicKey SigningAlgorithms",
    API + "API_GetPublicKey.html",
    "GetPublicKey, encryption key",
)

# What moto refuses in another way.
differ("IncorrectKeyException 400", "AccessDeniedException 400", API + "API_Decrypt.html", "Decrypt, wrong key")
differ("InvalidCiphertextException 400", "AccessDeniedException 400", API + "API_Decrypt.html", "Decrypt garbage")
differ("ValidationException 400", "AccessDeniedException 400", API + "API_Decrypt.html", "Decrypt 6145 bytes")
differ("ValidationException 400", "500 500", API + "API_GenerateRandom.html", "GenerateRandom of no length")
differ("InvalidKeyUsageException 400", "ValidationException 400", API + "API_Sign.html", "Sign, encryption key")
differ("ValidationException 400", "NotFoundException 400", API + "API_DescribeKey.html", "DescribeKey, empty key id")

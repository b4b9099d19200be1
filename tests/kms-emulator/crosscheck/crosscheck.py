#!/usr/bin/env python3
"""Makes the same boto3 calls against the KMS emulator and against moto, and compares what comes back.

    crosscheck.py --emulator http://127.0.0.1:PORT --moto http://127.0.0.1:PORT [--table FILE]

Compared are the members of an answer, or the error's type and HTTP status. Each difference must be in KNOWN, with who
is right and AWS's page for it, and each entry of KNOWN must still be seen. Prints the differences as a Markdown table;
with --table, also compares it with that file. Exit code 0: all as expected. 1: not.
"""

import argparse
import re
import sys
import uuid

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from known import KNOWN

REGION = "us-west-2"
ABSENT = "00000000-0000-4000-8000-000000000000"
CASES = []


class Side:
    """One server, and the same keys on it."""

    def __init__(self, endpoint):
        # boto3 must not refuse what the server is to refuse, nor try twice.
        config = Config(parameter_validation=False, retries={"total_max_attempts": 1})
        credentials = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "none", "region_name": REGION}
        self.kms = boto3.client("kms", endpoint_url=endpoint, config=config, **credentials)
        self.sts = boto3.client("sts", endpoint_url=endpoint, config=config, **credentials)
        self.alias = f"alias/crosscheck-{uuid.uuid4()}"
        self.key = self.create()
        self.kms.create_alias(AliasName=self.alias, TargetKeyId=self.key)
        self.arn = self.kms.describe_key(KeyId=self.key)["KeyMetadata"]["Arn"]
        self.other = self.create()
        self.rsa = self.create(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
        self.hmac = self.create(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")
        self.disabled = self.create()
        self.of_disabled = self.encrypt(KeyId=self.disabled)
        self.kms.disable_key(KeyId=self.disabled)
        self.pending = self.create()
        self.of_pending = self.encrypt(KeyId=self.pending)
        self.kms.schedule_key_deletion(KeyId=self.pending, PendingWindowInDays=7)
        self.blob = self.encrypt(KeyId=self.key, EncryptionContext={"a": "b"})

    def create(self, **request):
        return self.kms.create_key(**request)["KeyMetadata"]["KeyId"]

    def encrypt(self, **request):
        return self.kms.encrypt(Plaintext=b"x", **request)["CiphertextBlob"]

    def outcome(self, case):
        """What a case gives, as one line."""
        try:
            result = case(self)
        except ClientError as error:
            return f"{error.response['Error']['Code']} {error.response['ResponseMetadata']['HTTPStatusCode']}"
        if isinstance(result, dict):
            result = " ".join(sorted(name for name in result if name != "ResponseMetadata"))
        return f"ok: {result}"


def case(name):
    """Registers a case under a name."""

    def register(function):
        CASES.append((name, function))
        return function

    return register


def simple(name, operation, **request):
    """Registers one call; a value that is a function is taken from the side."""

    def call(side):
        values = {key: value(side) if callable(value) else value for key, value in request.items()}
        return getattr(side.kms, operation)(**values)

    CASES.append((name, call))


def key(side):
    return side.key


# Data keys.
simple("GenerateDataKey AES_256", "generate_data_key", KeyId=key, KeySpec="AES_256")
simple("GenerateDataKey by alias", "generate_data_key", KeyId=lambda s: s.alias, KeySpec="AES_256")
simple("GenerateDataKey by ARN", "generate_data_key", KeyId=lambda s: s.arn, KeySpec="AES_128")
simple("GenerateDataKey with NumberOfBytes", "generate_data_key", KeyId=key, NumberOfBytes=64)
simple("GenerateDataKey with 0 bytes", "generate_data_key", KeyId=key, NumberOfBytes=0)
simple("GenerateDataKey with 1025 bytes", "generate_data_key", KeyId=key, NumberOfBytes=1025)
simple("GenerateDataKey of unknown KeySpec", "generate_data_key", KeyId=key, KeySpec="AES_512")
simple("GenerateDataKey of no length", "generate_data_key", KeyId=key)
simple("GenerateDataKey of two lengths", "generate_data_key", KeyId=key, KeySpec="AES_256", NumberOfBytes=32)
simple("GenerateDataKey, DryRun", "generate_data_key", KeyId=key, KeySpec="AES_256", DryRun=True)
simple("GenerateDataKey, disabled key", "generate_data_key", KeyId=lambda s: s.disabled, KeySpec="AES_256")
simple("GenerateDataKey, key pending deletion", "generate_data_key", KeyId=lambda s: s.pending, KeySpec="AES_256")
simple("GenerateDataKey, signing key", "generate_data_key", KeyId=lambda s: s.rsa, KeySpec="AES_256")
simple("GenerateDataKey, HMAC key", "generate_data_key", KeyId=lambda s: s.hmac, KeySpec="AES_256")
simple("GenerateDataKey, absent key", "generate_data_key", KeyId=ABSENT, KeySpec="AES_256")
simple("GenerateDataKey, no key id", "generate_data_key", KeyId="fake-key-id", KeySpec="AES_256")
simple("GenerateDataKey, absent alias", "generate_data_key", KeyId="alias/absent", KeySpec="AES_256")
simple(
    "GenerateDataKey, 11 grant tokens", "generate_data_key", KeyId=key, KeySpec="AES_256", GrantTokens=["AAAA"] * 11
)
simple(
    "GenerateDataKey, context of 8193 bytes",
    "generate_data_key",
    KeyId=key,
    KeySpec="AES_256",
    EncryptionContext={"k": "v" * 8192},
)
simple(
    "GenerateDataKey with a bad attestation document",
    "generate_data_key",
    KeyId=key,
    KeySpec="AES_256",
    Recipient={"AttestationDocument": b"none", "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"},
)
simple("GenerateDataKeyWithoutPlaintext", "generate_data_key_without_plaintext", KeyId=key, KeySpec="AES_256")


@case("length of a data key")
def _(side):
    return [
        len(side.kms.generate_data_key(KeyId=side.key, **request)["Plaintext"])
        for request in ({"KeySpec": "AES_256"}, {"KeySpec": "AES_128"}, {"NumberOfBytes": 1}, {"NumberOfBytes": 1024})
    ]


@case("a data key decrypts to itself, its KeyId is the key's ARN")
def _(side):
    context = {"tenant": "7", "a": "b"}
    made = side.kms.generate_data_key(KeyId=side.alias, KeySpec="AES_256", EncryptionContext=context)
    opened = side.kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext=context)
    return [made["Plaintext"] == opened["Plaintext"], made["KeyId"] == opened["KeyId"] == side.arn]


# Encrypt and Decrypt.
simple("Encrypt", "encrypt", KeyId=key, Plaintext=b"x")
simple("Encrypt 4096 bytes", "encrypt", KeyId=key, Plaintext=bytes(4096))
simple("Encrypt 4097 bytes", "encrypt", KeyId=key, Plaintext=bytes(4097))
simple("Encrypt 0 bytes", "encrypt", KeyId=key, Plaintext=b"")
simple("Encrypt, DryRun", "encrypt", KeyId=key, Plaintext=b"x", DryRun=True)
simple("Encrypt, disabled key", "encrypt", KeyId=lambda s: s.disabled, Plaintext=b"x")
simple("Encrypt, key pending deletion", "encrypt", KeyId=lambda s: s.pending, Plaintext=b"x")
simple("Encrypt, signing key", "encrypt", KeyId=lambda s: s.rsa, Plaintext=b"x")
simple("Encrypt, absent key", "encrypt", KeyId=ABSENT, Plaintext=b"x")
simple("Decrypt", "decrypt", CiphertextBlob=lambda s: s.blob, EncryptionContext={"a": "b"})
simple("Decrypt, right key", "decrypt", CiphertextBlob=lambda s: s.blob, EncryptionContext={"a": "b"}, KeyId=key)
simple(
    "Decrypt, wrong key",
    "decrypt",
    CiphertextBlob=lambda s: s.blob,
    EncryptionContext={"a": "b"},
    KeyId=lambda s: s.other,
)
simple("Decrypt, absent key", "decrypt", CiphertextBlob=lambda s: s.blob, EncryptionContext={"a": "b"}, KeyId=ABSENT)
simple("Decrypt, wrong context", "decrypt", CiphertextBlob=lambda s: s.blob, EncryptionContext={"a": "B"})
simple("Decrypt, no context", "decrypt", CiphertextBlob=lambda s: s.blob)
simple(
    "Decrypt, flipped bit",
    "decrypt",
    CiphertextBlob=lambda s: s.blob[:-1] + bytes([s.blob[-1] ^ 1]),
    EncryptionContext={"a": "b"},
)
simple("Decrypt garbage", "decrypt", CiphertextBlob=b"garbage" * 20)
simple("Decrypt 6145 bytes", "decrypt", CiphertextBlob=bytes(6145))
simple("Decrypt, disabled key", "decrypt", CiphertextBlob=lambda s: s.of_disabled)
simple("Decrypt, key pending deletion", "decrypt", CiphertextBlob=lambda s: s.of_pending)
simple("Decrypt, DryRun", "decrypt", CiphertextBlob=lambda s: s.blob, EncryptionContext={"a": "b"}, DryRun=True)

# Random bytes.
simple("GenerateRandom 32", "generate_random", NumberOfBytes=32)
simple("GenerateRandom 1025", "generate_random", NumberOfBytes=1025)
simple("GenerateRandom 0", "generate_random", NumberOfBytes=0)
simple("GenerateRandom of no length", "generate_random")

# Signatures.
for algorithm in ("RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_512"):
    simple(f"Sign {algorithm}", "sign", KeyId=lambda s: s.rsa, Message=b"m", SigningAlgorithm=algorithm)
simple("Sign, encryption key", "sign", KeyId=key, Message=b"m", SigningAlgorithm="RSASSA_PSS_SHA_256")
simple("Sign, unknown algorithm", "sign", KeyId=lambda s: s.rsa, Message=b"m", SigningAlgorithm="ROT13")
simple("Sign an empty message", "sign", KeyId=lambda s: s.rsa, Message=b"", SigningAlgorithm="RSASSA_PSS_SHA_256")
simple(
    "Sign a digest of the wrong length",
    "sign",
    KeyId=lambda s: s.rsa,
    Message=b"short",
    MessageType="DIGEST",
    SigningAlgorithm="RSASSA_PKCS1_V1_5_SHA_256",
)
simple("GetPublicKey", "get_public_key", KeyId=lambda s: s.rsa)
simple("GetPublicKey, encryption key", "get_public_key", KeyId=key)


@case("a signature verifies under the public key")
def _(side):
    request = {"KeyId": side.rsa, "Message": b"m", "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256"}
    signature = side.kms.sign(**request)["Signature"]
    return verify(side.kms.get_public_key(KeyId=side.rsa)["PublicKey"], signature, b"m")


def verify(public_key, signature, message):
    """An independent judge: pyca/cryptography, which moto brings along."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    load_der_public_key(public_key).verify(signature, message, PKCS1v15(), SHA256())
    return "verified"


# Keys and aliases.
@case("DescribeKey")
def _(side):
    return side.kms.describe_key(KeyId=side.key)["KeyMetadata"]


@case("DescribeKey, key pending deletion")
def _(side):
    return side.kms.describe_key(KeyId=side.pending)["KeyMetadata"]


@case("values of DescribeKey")
def _(side):
    metadata = side.kms.describe_key(KeyId=side.alias)["KeyMetadata"]
    names = ("Enabled", "KeyState", "KeyUsage", "KeySpec", "Origin", "KeyManager", "MultiRegion", "Description")
    return [metadata.get(name) for name in names]


simple("DescribeKey, absent alias", "describe_key", KeyId="alias/absent")
simple("DescribeKey, empty key id", "describe_key", KeyId="")
simple("DescribeKey in another Region", "describe_key", KeyId=lambda s: s.arn.replace(REGION, "eu-west-1"))
simple("CreateKey, RSA without KeyUsage", "create_key", KeySpec="RSA_2048")
simple("CreateKey, unknown spec", "create_key", KeySpec="RSA_1024", KeyUsage="SIGN_VERIFY")
simple("CreateAlias twice", "create_alias", AliasName=lambda s: s.alias, TargetKeyId=key)
simple("CreateAlias without prefix", "create_alias", AliasName="x", TargetKeyId=key)
simple("CreateAlias, reserved", "create_alias", AliasName="alias/aws/s3", TargetKeyId=key)
simple("CreateAlias, colon", "create_alias", AliasName="alias/a:b", TargetKeyId=key)
simple("CreateAlias, space", "create_alias", AliasName="alias/a b", TargetKeyId=key)
simple("CreateAlias to an alias", "create_alias", AliasName="alias/chain", TargetKeyId=lambda s: s.alias)
simple("CreateAlias to an absent key", "create_alias", AliasName="alias/chain", TargetKeyId=ABSENT)
simple("UpdateAlias, absent", "update_alias", AliasName="alias/absent", TargetKeyId=key)
simple("DeleteAlias, absent", "delete_alias", AliasName="alias/absent")
simple("EnableKey, absent", "enable_key", KeyId=ABSENT)
simple("EnableKey, key pending deletion", "enable_key", KeyId=lambda s: s.pending)
simple("EnableKey", "enable_key", KeyId=key)
simple("DisableKey, key pending deletion", "disable_key", KeyId=lambda s: s.pending)
simple("ScheduleKeyDeletion, absent", "schedule_key_deletion", KeyId=ABSENT)
simple("ScheduleKeyDeletion in 6 days", "schedule_key_deletion", KeyId=lambda s: s.other, PendingWindowInDays=6)
simple("ScheduleKeyDeletion twice", "schedule_key_deletion", KeyId=lambda s: s.pending, PendingWindowInDays=7)
simple("CancelKeyDeletion, nothing pending", "cancel_key_deletion", KeyId=key)


@case("state after CancelKeyDeletion")
def _(side):
    made = side.create()
    scheduled = side.kms.schedule_key_deletion(KeyId=made, PendingWindowInDays=7)
    side.kms.cancel_key_deletion(KeyId=made)
    return [scheduled.get("KeyState"), side.kms.describe_key(KeyId=made)["KeyMetadata"]["KeyState"]]


@case("ScheduleKeyDeletion")
def _(side):
    return side.kms.schedule_key_deletion(KeyId=side.create(), PendingWindowInDays=30)


@case("members of ListAliases")
def _(side):
    return side.kms.list_aliases(KeyId=side.key)["Aliases"][0]


simple("ListKeys", "list_keys", Limit=1000)

# STS, and the answers' form.
CASES.append(("GetCallerIdentity", lambda side: side.sts.get_caller_identity()))


@case("request ids are UUIDs")
def _(side):
    request_id = side.kms.list_keys(Limit=1)["ResponseMetadata"]["RequestId"]
    return bool(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id))


def compare(emulator, moto):
    """The differences, and what is wrong about them."""
    rows, wrong = [], []
    for name, function in CASES:
        ours, theirs = emulator.outcome(function), moto.outcome(function)
        known = KNOWN.get(name)
        if ours == theirs:
            if known:
                wrong.append(f"{name}: no longer a difference, both give {ours!r}")
            continue
        if known is None:
            wrong.append(f"{name}: the emulator gives {ours!r}, moto {theirs!r}")
        elif known[:2] != (ours, theirs):
            wrong.append(f"{name}: expected {known[:2]!r}, the emulator gives {ours!r}, moto {theirs!r}")
        rows.append((name, ours, theirs, *(known[2:] if known else ("unknown", ""))))
    return rows, wrong


def table(rows):
    """The differences as a document."""
    lines = [
        "# The emulator and moto",
        "",
        f"Where they answer differently, of {len(CASES)} cases; in all others they agree. Made by `crosscheck.py`.",
        "",
        "| case | emulator | moto | right | source |",
        "|---|---|---|---|---|",
    ]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulator", required=True, metavar="URL")
    parser.add_argument("--moto", required=True, metavar="URL")
    parser.add_argument("--table", metavar="FILE", help="the table as it should be")
    arguments = parser.parse_args()
    rows, wrong = compare(Side(arguments.emulator), Side(arguments.moto))
    text = table(rows)
    print(text, end="")
    if arguments.table:
        with open(arguments.table, encoding="utf-8") as file:
            if file.read() != text:
                wrong.append(f"{arguments.table} is not the table above")
    for line in wrong:
        print(f"crosscheck: {line}", file=sys.stderr)
    print(f"crosscheck: {len(CASES)} cases, {len(rows)} differences, {len(wrong)} unexpected", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

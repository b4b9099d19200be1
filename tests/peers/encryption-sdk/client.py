"""Opens and seals files with the AWS Encryption SDK, for ../../encryption_sdk.rs and ../../message_peers.rs.

    client.py PLAN.json

PLAN.json has these members, and AWS_ENDPOINT_URL_KMS says where KMS is:
  keys     ARNs of KMS keys, the first of which makes the data key
  open     files to open, each into a file beside it with ".opened" at the end
  seal     objects {plaintext, to, suite, context, frame_length}: files, a name of `Algorithm`, the encryption context, and 0 for no frames

Prints one JSON object a file. Opening requires key commitment; sealing does where the suite has it.
"""

import json
import sys
from pathlib import Path

import aws_encryption_sdk
from aws_encryption_sdk import CommitmentPolicy, StrictAwsKmsMasterKeyProvider
from aws_encryption_sdk.identifiers import Algorithm


def main():
    plan = json.loads(Path(sys.argv[1]).read_text())
    provider = StrictAwsKmsMasterKeyProvider(key_ids=plan["keys"])
    strict = aws_encryption_sdk.EncryptionSDKClient(
        commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
    )
    old = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT)

    for path in plan["open"]:
        with open(path, "rb") as message, open(f"{path}.opened", "wb") as opened:
            with strict.stream(mode="decrypt-unsigned", source=message, key_provider=provider) as plaintext:
                header = plaintext.header
                for piece in plaintext:
                    opened.write(piece)
        say(opened=path, suite=header.algorithm.name, context=header.encryption_context, frame_length=header.frame_length)

    for wish in plan["seal"]:
        suite = Algorithm[wish["suite"]]
        message, header = (strict if suite.is_committing() else old).encrypt(
            source=Path(wish["plaintext"]).read_bytes(),
            key_provider=provider,
            encryption_context=wish["context"],
            algorithm=suite,
            frame_length=wish["frame_length"],
        )
        Path(wish["to"]).write_bytes(message)
        say(sealed=wish["to"], suite=header.algorithm.name)


def say(**fields):
    print(json.dumps(fields))


main()

"""Uses a key-broker as a workload in Python would: a channel with no options, and the stubs of the .proto file.

    client.py unix:<path> FACTS.json

FACTS.json is a dev.json, with these members beside it, all optional:
  disabled_key  the id of a disabled key
  slow_action   "GenerateRandom" when KMS takes seconds for it
  file          the file to encrypt; FACTS.json itself if left out

Prints one JSON object a case: what came back, for ../../grpc_clients.rs to compare with the broker's journal.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "proto"))
pb, stubs = grpc.protos_and_services("keybroker/v1/key_broker.proto")

CONTEXT = {"tenant": "acme"}
ABSENT = "00000000-0000-4000-8000-000000000000"


def main():
    target, facts = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    plain = Path(facts.get("file", sys.argv[2])).read_bytes()
    channel = grpc.insecure_channel(target)
    broker = stubs.KeyBrokerStub(channel)

    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "keybroker.v1.KeyBroker"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        say("health", code="OK", status=health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    # Python's reflection client, like many, asks for v1alpha.
    try:
        say("reflection", code="OK", services=list(ProtoReflectionDescriptorDatabase(channel).get_services()))
    except grpc.RpcError as error:
        say("reflection", code=error.code().name, services=[])

    blob, sealed = seal(broker, plain)
    decrypted = call("decrypt", broker.Decrypt, pb.DecryptRequest(ciphertext_blob=blob, encryption_context=CONTEXT))
    opened = AESGCM(decrypted.plaintext).decrypt(sealed[:12], sealed[12:], None)
    say("file", same=opened == plain, bytes=len(plain))

    refused(broker, facts, blob)
    for _ in range(200):
        call("sequential", broker.GenerateDataKey, draw())
    with ThreadPoolExecutor(50) as threads:
        request = pb.DecryptRequest(ciphertext_blob=blob, encryption_context=CONTEXT)
        for done in [threads.submit(call, "concurrent", broker.Decrypt, request) for _ in range(50)]:
            done.result()


def seal(broker, plain):
    """Encrypts under a new data key, which is gone when this returns."""
    answer = call("generate", broker.GenerateDataKey, draw())
    nonce = os.urandom(12)
    return answer.ciphertext_blob, nonce + AESGCM(answer.plaintext).encrypt(nonce, plain, None)


def refused(broker, facts, blob):
    flipped = blob[:-1] + bytes([blob[-1] ^ 1])
    call("wrong_context", broker.Decrypt, pb.DecryptRequest(ciphertext_blob=blob, encryption_context={"tenant": "other"}))
    call("flipped_bit", broker.Decrypt, pb.DecryptRequest(ciphertext_blob=flipped, encryption_context=CONTEXT))
    call("unknown_key", broker.GenerateDataKey, draw(key_id=ABSENT))
    if "disabled_key" in facts:
        call("disabled_key", broker.GenerateDataKey, draw(key_id=facts["disabled_key"]))
    call("oversized", broker.Decrypt, pb.DecryptRequest(ciphertext_blob=bytes(524_288)))
    call("no_length", broker.GenerateDataKey, pb.GenerateDataKeyRequest(key_id="alias/dev"))
    if facts.get("slow_action") == "GenerateRandom":
        call("deadline", broker.GenerateRandom, pb.GenerateRandomRequest(number_of_bytes=32), timeout=0.3)


def draw(key_id="alias/dev"):
    return pb.GenerateDataKeyRequest(key_id=key_id, key_spec=pb.KEY_SPEC_AES_256, encryption_context=CONTEXT)


def call(case, method, request, timeout=None):
    """One call and its line; the answer, or None for an error."""
    try:
        answer, done = method.with_call(request, timeout=timeout)
    except grpc.RpcError as error:
        answer, done = None, error
    metadata = dict(done.initial_metadata() or ()) | dict(done.trailing_metadata() or ())
    say(
        case,
        code=done.code().name,
        requestId=metadata.get("x-request-id"),
        kmsRequestId=metadata.get("x-amzn-requestid"),
        **(error_info(done) if answer is None else {}),
    )
    return answer


def error_info(error):
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)}
    return {}


def say(case, **what):
    # One write a line: lines of several threads do not mix.
    sys.stdout.write(json.dumps({"case": case, **what}) + "\n")


if __name__ == "__main__":
    main()

"""Calls a key-broker over mutual TLS, as gRPC's C core does.

    tls.py HOST:PORT SERVER-NAME BUNDLE CERTIFICATE KEY

Prints one JSON object: the code, and the key id on success.
"""

import json
import sys
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "proto"))
pb, stubs = grpc.protos_and_services("keybroker/v1/key_broker.proto")

target, name = sys.argv[1:3]
bundle, certificate, key = (Path(path).read_bytes() for path in sys.argv[3:6])
credentials = grpc.ssl_channel_credentials(bundle, key, certificate)
channel = grpc.secure_channel(target, credentials, [("grpc.ssl_target_name_override", name)])
request = pb.GenerateDataKeyRequest(key_id="alias/dev", key_spec=pb.KEY_SPEC_AES_256)
try:
    answer = stubs.KeyBrokerStub(channel).GenerateDataKey(request, timeout=10)
    print(json.dumps({"code": "OK", "keyId": answer.key_id}))
except grpc.RpcError as error:
    print(json.dumps({"code": error.code().name, "details": error.details()}))

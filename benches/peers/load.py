"""Python's part of the peers bench: what it loads is one of

    load.py data-key         `data_key` of key-broker's package; KEY_BROKER_ADDRESS says where the broker is
    load.py message          `encrypt` of the package
    load.py encryption-sdk   the same with the AWS Encryption SDK and its caching materials manager
    load.py kms              GenerateDataKey of boto3

KMS_KEY is the ARN of the KMS key, AWS_ENDPOINT_URL_KMS where KMS is. The first line that it prints has versions. Then each line read has the
number of threads and milliseconds, and each line printed how long it took and the time of each call, in microseconds.
"""

import importlib.metadata
import json
import os
import platform
import sys
import threading
import time

KEY = os.environ["KMS_KEY"]
CONTEXT = {"tenant": "acme", "purpose": "orders"}
PLAINTEXT = b"x" * 1024


def data_key():
    import key_broker

    broker = key_broker.connect()

    def call():
        with broker.data_key("alias/bench", CONTEXT):
            pass

    return call


def message():
    import key_broker

    broker = key_broker.connect()
    return lambda: broker.encrypt(PLAINTEXT, "alias/bench", CONTEXT)


def encryption_sdk():
    import aws_encryption_sdk as sdk

    provider = sdk.StrictAwsKmsMasterKeyProvider(key_ids=[KEY])
    cache = sdk.LocalCryptoMaterialsCache(capacity=100)
    # Data keys live as long as the broker's do by default, and the suite and the frames are the broker's.
    manager = sdk.CachingCryptoMaterialsManager(master_key_provider=provider, cache=cache, max_age=300.0)
    suite = sdk.identifiers.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
    client = sdk.EncryptionSDKClient()
    return lambda: client.encrypt(
        source=PLAINTEXT,
        materials_manager=manager,
        encryption_context=CONTEXT,
        algorithm=suite,
        frame_length=4096,
    )


def kms():
    import boto3
    from botocore.config import Config

    client = boto3.client("kms", config=Config(max_pool_connections=64))
    return lambda: client.generate_data_key(KeyId=KEY, KeySpec="AES_256", EncryptionContext=CONTEXT)


def run(call, threads, seconds):
    """The times of calls, in microseconds, and how long all of it took."""
    began = time.perf_counter()
    end = began + seconds

    def work(times):
        start = time.perf_counter()
        while start < end:
            call()
            ended = time.perf_counter()
            times.append(round((ended - start) * 1e6))
            start = ended

    every = [[] for _ in range(threads)]
    # Threads of their own even for one call in flight, as a server has them.
    workers = [threading.Thread(target=guarded, args=(work, times)) for times in every]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"seconds": time.perf_counter() - began, "micros": sum(every, [])}


def guarded(work, times):
    """A call that fails ends the measurement."""
    try:
        work(times)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def main():
    kinds = {
        "data-key": (data_key, "grpcio"),
        "message": (message, "grpcio"),
        "encryption-sdk": (encryption_sdk, "aws-encryption-sdk"),
        "kms": (kms, "boto3"),
    }
    make, library = kinds[sys.argv[1]]
    call = make()
    print(f"Python {platform.python_version()}, {library} {importlib.metadata.version(library)}", flush=True)
    for line in sys.stdin:
        threads, milliseconds = map(int, line.split())
        print(json.dumps(run(call, threads, milliseconds / 1000)), flush=True)


main()

"""Calls the broker at KEY_BROKER_ADDRESS, eight calls in flight, until standard input is closed.

    load.py package|bare

`package` calls as the package does, `bare` with the same stubs on a channel without options. Prints one JSON object: how many calls were
made, how many failed, the first failure, and the slowest call in milliseconds.
"""

import json
import os
import sys
import threading
import time

import grpc
import key_broker
from key_broker._stubs import key_broker_pb2 as pb

KEY, CONTEXT = "alias/dev", {"tenant": "acme"}


def package():
    broker = key_broker.connect()
    return lambda: broker.encrypt(b"hello", KEY, CONTEXT)


def bare():
    method = grpc.insecure_channel(os.environ["KEY_BROKER_ADDRESS"]).unary_unary(
        "/keybroker.v1.KeyBroker/EncryptMessage",
        request_serializer=pb.EncryptMessageRequest.SerializeToString,
        response_deserializer=pb.EncryptMessageResponse.FromString,
    )
    request = pb.EncryptMessageRequest(key_id=KEY, encryption_context=CONTEXT, plaintext=b"hello")
    return lambda: method(request, timeout=10)


class Load:
    def __init__(self, call):
        self.call, self.lock, self.ended = call, threading.Lock(), threading.Event()
        self.seen = {"calls": 0, "failed": 0, "first": None, "slowest": 0}

    def run(self):
        while not self.ended.is_set():
            begun, failure = time.monotonic(), None
            try:
                self.call()
            except Exception as error:  # whatever it is, it is counted
                failure = str(error)
            took = int((time.monotonic() - begun) * 1000)
            with self.lock:
                self.seen["calls"] += 1
                self.seen["failed"] += failure is not None
                self.seen["first"] = self.seen["first"] or failure
                self.seen["slowest"] = max(self.seen["slowest"], took)
            # As much as a service does, so that the broker is not all that this machine is busy with.
            time.sleep(0.005)


def main():
    load = Load({"package": package, "bare": bare}[sys.argv[1]]())
    threads = [threading.Thread(target=load.run) for _ in range(8)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    load.ended.set()
    for thread in threads:
        thread.join()
    print(json.dumps(load.seen))


main()

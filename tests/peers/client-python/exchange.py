"""Exchanges messages with a program of another language, for ../../message_exchange.rs: four callers, each with a broker.

    exchange.py package|bare FIRST SECOND

FIRST and SECOND are addresses of brokers: callers with an even number have the first. `package` calls as the package does, `bare` with
the same stubs on a channel without options. A failed call is counted, and made again.

A line of standard input is a JSON object: the number of a `caller`, and a `message` with its `plaintext` (both in Base64), which the caller
decrypts and compares. It answers by a line of the same form with a message of its own, unless the line it got has `last`. To begin, it gets
a line without a message. The last line printed has how many calls were made, how many of them failed, the first failure, and the slowest call
in milliseconds.
"""

import base64
import json
import os
import queue
import sys
import threading
import time

import grpc
import key_broker
from key_broker._stubs import key_broker_pb2 as pb

KEY, CONTEXT = "alias/dev", {"tenant": "acme"}
CALLERS = 4


def package(address):
    broker = key_broker.connect(address)
    return lambda plaintext: broker.encrypt(plaintext, KEY, CONTEXT), lambda message: broker.decrypt(message, CONTEXT)


def bare(address):
    channel = grpc.insecure_channel(address)

    def method(name):
        return channel.unary_unary(
            f"/keybroker.v1.KeyBroker/{name}",
            request_serializer=getattr(pb, f"{name}Request").SerializeToString,
            response_deserializer=getattr(pb, f"{name}Response").FromString,
        )

    encrypts, decrypts = method("EncryptMessage"), method("DecryptMessage")

    def encrypt(plaintext):
        request = pb.EncryptMessageRequest(key_id=KEY, encryption_context=CONTEXT, plaintext=plaintext)
        return encrypts(request, timeout=10).message

    def decrypt(message):
        request = pb.DecryptMessageRequest(message=message, encryption_context=CONTEXT)
        return decrypts(request, timeout=10).plaintext

    return encrypt, decrypt


class Exchange:
    def __init__(self):
        self.lock = threading.Lock()
        self.seen = {"calls": 0, "failed": 0, "first": None, "slowest": 0}

    def called(self, call, argument):
        while True:
            begun, failure = time.monotonic(), None
            try:
                answer = call(argument)
            except Exception as error:  # whatever it is, it is counted
                failure = str(error)
            took = int((time.monotonic() - begun) * 1000)
            with self.lock:
                self.seen["calls"] += 1
                self.seen["failed"] += failure is not None
                self.seen["first"] = self.seen["first"] or failure
                self.seen["slowest"] = max(self.seen["slowest"], took)
            # As much as a service does, so that the brokers are not all that this machine is busy with.
            time.sleep(0.02)
            if failure is None:
                return answer

    def run(self, caller, broker, lines):
        encrypt, decrypt = broker
        number = 0
        while (line := lines.get()) is not None:
            if "message" in line:
                plaintext = self.called(decrypt, base64.b64decode(line["message"]))
                if plaintext != base64.b64decode(line["plaintext"]):
                    print(f"caller {caller}: another plaintext", file=sys.stderr, flush=True)
                    os._exit(1)
            if line["last"]:
                continue
            number += 1
            plaintext = f"Python {caller} {number} ".encode() + bytes(range(251)) * (number * 7 % 80)
            message = self.called(encrypt, plaintext)
            line = {"caller": caller, "message": message, "plaintext": plaintext}
            line.update({name: base64.b64encode(line[name]).decode() for name in ("message", "plaintext")})
            with self.lock:
                print(json.dumps(line), flush=True)


def main():
    brokers = [{"package": package, "bare": bare}[sys.argv[1]](address) for address in sys.argv[2:]]
    exchange, callers = Exchange(), []
    for caller in range(CALLERS):
        lines = queue.SimpleQueue()
        thread = threading.Thread(target=exchange.run, args=(caller, brokers[caller % 2], lines))
        thread.start()
        callers.append((thread, lines))
    for line in sys.stdin:
        line = json.loads(line)
        callers[line["caller"]][1].put(line)
    for _, lines in callers:
        lines.put(None)
    for thread, _ in callers:
        thread.join()
    print(json.dumps(exchange.seen))


main()

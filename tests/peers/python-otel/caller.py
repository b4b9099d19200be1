"""Calls a key-broker as an instrumented workload would: OpenTelemetry's own instrumentation of gRPC, nothing by hand.

    caller.py unix:<path> PLAN

PLAN is JSON, [{"kind", "times", "at_once", "key_id"}, …]: so many calls of a kind, one after another or all at once. Kinds:
  generate, fresh (not from reuse), without_plaintext, random, describe, no_length (malformed),
  decrypt (what the last generate gave), wrong_context (the same, in another encryption context)
All calls are children of one span, `checkout`. Spans go where the standard OTEL_* variables say.

Prints one JSON object a call when it has ended, and at the end {"kind": "checkout", "traceId", "spanId"}.
"""

import contextvars
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from otlp import provider

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "proto"))
pb, stubs = grpc.protos_and_services("keybroker/v1/key_broker.proto")

CONTEXT = {"tenant": "acme-which-nobody-is-told"}
span_of_call = contextvars.ContextVar("span_of_call")


def main():
    target, plan = sys.argv[1], json.loads(sys.argv[2])
    traces = provider()
    # The instrumentation takes the global one only, whatever it is told.
    trace.set_tracer_provider(traces)
    # The hook is called with the client span of the call that is under way.
    GrpcInstrumentorClient().instrument(request_hook=lambda span, _: span_of_call.set(span))
    caller = Caller(stubs.KeyBrokerStub(grpc.insecure_channel(target)))
    with traces.get_tracer("caller.py").start_as_current_span("checkout") as checkout:
        for step in plan:
            times = step.get("times", 1)
            if not step.get("at_once"):
                for _ in range(times):
                    caller.call(step)
                continue
            start = threading.Barrier(times)
            with ThreadPoolExecutor(times) as threads:
                # Each thread begins in the context of the span.
                contexts = [contextvars.copy_context() for _ in range(times)]
                for done in [threads.submit(context.run, caller.call, step, start) for context in contexts]:
                    done.result()
    say("checkout", **ids(checkout))
    traces.shutdown()


class Caller:
    def __init__(self, broker):
        self.broker, self.blob = broker, b""

    def call(self, step, start=None):
        """One call and its line."""
        method, request = self.request(step["kind"], step.get("key_id") or "alias/dev")
        if start:
            start.wait()
        try:
            answer, done = method.with_call(request, timeout=30)
        except grpc.RpcError as error:
            answer, done = None, error
        if step["kind"] in ("generate", "fresh") and answer is not None:
            self.blob = answer.ciphertext_blob
        metadata = dict(done.initial_metadata() or ()) | dict(done.trailing_metadata() or ())
        say(
            step["kind"],
            code=done.code().name,
            requestId=metadata.get("x-request-id"),
            kmsRequestId=metadata.get("x-amzn-requestid"),
            **ids(span_of_call.get()),
            **(error_info(done) if answer is None else {}),
        )

    def request(self, kind, key):
        known = {"key_id": key, "encryption_context": CONTEXT}
        size = {"key_spec": pb.KEY_SPEC_AES_256}
        broker = self.broker
        if kind in ("decrypt", "wrong_context") and not self.blob:
            sys.exit(f"{kind} needs a generate before it")
        match kind:
            case "generate":
                return broker.GenerateDataKey, pb.GenerateDataKeyRequest(**known, **size)
            case "fresh":
                return broker.GenerateDataKey, pb.GenerateDataKeyRequest(**known, **size, reuse=pb.Reuse(fresh=True))
            case "without_plaintext":
                request = pb.GenerateDataKeyWithoutPlaintextRequest(**known, **size)
                return broker.GenerateDataKeyWithoutPlaintext, request
            case "random":
                return broker.GenerateRandom, pb.GenerateRandomRequest(number_of_bytes=32)
            case "describe":
                return broker.DescribeKey, pb.DescribeKeyRequest(key_id=key)
            case "no_length":
                return broker.GenerateDataKey, pb.GenerateDataKeyRequest(**known)
            case "decrypt":
                return broker.Decrypt, pb.DecryptRequest(ciphertext_blob=self.blob, encryption_context=CONTEXT)
            case "wrong_context":
                other = {"tenant": "other"}
                return broker.Decrypt, pb.DecryptRequest(ciphertext_blob=self.blob, encryption_context=other)
        sys.exit(f"no such kind: {kind}")


def ids(span):
    context = span.get_span_context()
    return {"traceId": f"{context.trace_id:032x}", "spanId": f"{context.span_id:016x}"}


def error_info(error):
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return {"reason": info.reason, "domain": info.domain}
    return {}


def say(kind, **what):
    # One write a line: lines of several threads do not mix.
    sys.stdout.write(json.dumps({"kind": kind, **what}) + "\n")


if __name__ == "__main__":
    main()

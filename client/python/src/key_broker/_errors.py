"""Why a call failed, with what a program needs to decide what to do next."""

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2


class KeyBrokerError(Exception):
    """A call that failed. `str()` is for a person, the attributes are for programs."""

    #: The gRPC code.
    code: grpc.StatusCode
    #: The broker's words, with what to do next.
    message: str
    #: The error's name, such as `KEY_DISABLED`: the table is in the contract. None where the broker did not answer.
    reason: str | None
    #: `kms.amazonaws.com` where AWS KMS itself gave this answer, else `keybroker`.
    domain: str | None
    #: The broker's id of the call, in its audit trail.
    request_id: str | None
    #: The requestID of KMS's answer, as AWS CloudTrail has it.
    kms_request_id: str | None
    #: Seconds to wait before trying again; None where trying again cannot help.
    retry_delay: float | None

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = self.domain = self.request_id = self.kms_request_id = None
        self.retry_delay = None

    @property
    def is_denied(self) -> bool:
        """Whether the broker's own policy or configuration refused the call: the same call will fail again."""
        return self.code is grpc.StatusCode.PERMISSION_DENIED

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may succeed later, `retry_delay` from now. The client has tried several times already."""
        return self.retry_delay is not None or self.code is grpc.StatusCode.UNAVAILABLE

    def __str__(self) -> str:
        facts = [
            ("reason", self.reason),
            ("x-request-id", self.request_id),
            ("x-amzn-requestid", self.kms_request_id),
        ]
        return self.message + "".join(f" [{name} {value}]" for name, value in facts if value)


#: How often a call may begin anew whose connection broke off while its answer was coming: gRPC's own retries end where that begins.
BEGINNINGS = 3


def broke_off(error: KeyBrokerError) -> bool:
    """Whether the connection ended the call, and not the broker, which always gives a reason. Every call may be made again."""
    return error.code is grpc.StatusCode.UNAVAILABLE and error.reason is None


def from_rpc(error: Any, target: str) -> KeyBrokerError:
    """What gRPC raised, as an error of this package."""
    code = error.code()
    # Headers where the broker had begun to answer, trailers always.
    metadata = {name: value for part in _metadata(error) for name, value in part}
    details = metadata.get("grpc-status-details-bin")
    made = KeyBrokerError(code, error.details() or code.name)
    made.request_id = _text(metadata.get("x-request-id"))
    made.kms_request_id = _text(metadata.get("x-amzn-requestid"))
    if isinstance(details, bytes):
        _read_details(made, details)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and made.reason is None:
        made.message = (
            f"no answer from the broker at {target} within the deadline: is it running there, and may this user connect? ({made.message})"
        )
    return made


def _metadata(error: Any) -> Iterator[Iterable[tuple[str, str | bytes]]]:
    for read in (error.initial_metadata, error.trailing_metadata):
        yield read() or ()


def _text(value: str | bytes | None) -> str | None:
    return value if isinstance(value, str) else None


def _read_details(made: KeyBrokerError, details: bytes) -> None:
    for any_ in status_pb2.Status.FromString(details).details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if any_.Unpack(info):
            made.reason, made.domain = info.reason, info.domain
            made.request_id = info.metadata.get("requestID", made.request_id)
            made.kms_request_id = info.metadata.get("kmsRequestID", made.kms_request_id)
        elif any_.Unpack(retry):
            made.retry_delay = retry.retry_delay.ToTimedelta().total_seconds()

"""What each call may be given beside what it is about."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

#: Seconds that a call may take unless told otherwise.
DEFAULT_DEADLINE = 10.0

#: Seconds that a stream may take unless told otherwise.
STREAM_DEADLINE = 600.0


#: The kind of a data key pair, as in the AWS KMS API reference.
KeyPairSpec = Literal[
    "RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1"
]


@dataclass(frozen=True)
class Reuse:
    """Tightens the broker's bounds of reuse for one call; never widens them. 0 means as configured."""

    max_age_seconds: int = 0
    max_messages: int = 0
    max_bytes: int = 0
    #: A data key that nobody else has had or will get: one call to KMS.
    fresh: bool = False


class CallOptions(TypedDict, total=False):
    """Keyword arguments that every call takes."""

    #: Seconds until the call ends with DEADLINE_EXCEEDED.
    deadline: float
    #: Tighter bounds for the data key.
    reuse: Reuse
    #: KMS grant tokens.
    grant_tokens: Sequence[str]

import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KeySpec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_SPEC_UNSPECIFIED: _ClassVar[KeySpec]
    KEY_SPEC_AES_256: _ClassVar[KeySpec]
    KEY_SPEC_AES_128: _ClassVar[KeySpec]

class KeyPairSpec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_PAIR_SPEC_UNSPECIFIED: _ClassVar[KeyPairSpec]
    KEY_PAIR_SPEC_RSA_2048: _ClassVar[KeyPairSpec]
    KEY_PAIR_SPEC_RSA_3072: _ClassVar[KeyPairSpec]
    KEY_PAIR_SPEC_RSA_4096: _ClassVar[KeyPairSpec]
    KEY_PAIR_SPEC_ECC_NIST_P256: _ClassVar[KeyPairSpec]
    KEY_PAIR_SPEC_ECC_NIST_P384: _ClassVar[KeyPairSpec]
    KEY_PAIR_SPEC_ECC_NIST_P521: _ClassVar[KeyPairSpec]
    KEY_PAIR_SPEC_ECC_SECG_P256K1: _ClassVar[KeyPairSpec]
KEY_SPEC_UNSPECIFIED: KeySpec
KEY_SPEC_AES_256: KeySpec
KEY_SPEC_AES_128: KeySpec
KEY_PAIR_SPEC_UNSPECIFIED: KeyPairSpec
KEY_PAIR_SPEC_RSA_2048: KeyPairSpec
KEY_PAIR_SPEC_RSA_3072: KeyPairSpec
KEY_PAIR_SPEC_RSA_4096: KeyPairSpec
KEY_PAIR_SPEC_ECC_NIST_P256: KeyPairSpec
KEY_PAIR_SPEC_ECC_NIST_P384: KeyPairSpec
KEY_PAIR_SPEC_ECC_NIST_P521: KeyPairSpec
KEY_PAIR_SPEC_ECC_SECG_P256K1: KeyPairSpec

class Recipient(_message.Message):
    __slots__ = ("attestation_document", "key_encryption_algorithm")
    ATTESTATION_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    KEY_ENCRYPTION_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    attestation_document: bytes
    key_encryption_algorithm: str
    def __init__(self, attestation_document: _Optional[bytes] = ..., key_encryption_algorithm: _Optional[str] = ...) -> None: ...

class Use(_message.Message):
    __slots__ = ("messages", "bytes")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    messages: int
    bytes: int
    def __init__(self, messages: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Reuse(_message.Message):
    __slots__ = ("max_age_seconds", "max_messages", "max_bytes", "fresh")
    MAX_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    max_age_seconds: int
    max_messages: int
    max_bytes: int
    fresh: bool
    def __init__(self, max_age_seconds: _Optional[int] = ..., max_messages: _Optional[int] = ..., max_bytes: _Optional[int] = ..., fresh: bool = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("served_from", "kms_request_id", "kms_event_id", "minted_at", "expires_at", "messages_used", "messages_limit", "bytes_used", "bytes_limit")
    class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SOURCE_UNSPECIFIED: _ClassVar[Provenance.Source]
        SOURCE_KMS: _ClassVar[Provenance.Source]
        SOURCE_CACHE: _ClassVar[Provenance.Source]
    SOURCE_UNSPECIFIED: Provenance.Source
    SOURCE_KMS: Provenance.Source
    SOURCE_CACHE: Provenance.Source
    SERVED_FROM_FIELD_NUMBER: _ClassVar[int]
    KMS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KMS_EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    MINTED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_USED_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_LIMIT_FIELD_NUMBER: _ClassVar[int]
    BYTES_USED_FIELD_NUMBER: _ClassVar[int]
    BYTES_LIMIT_FIELD_NUMBER: _ClassVar[int]
    served_from: Provenance.Source
    kms_request_id: str
    kms_event_id: str
    minted_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    messages_used: int
    messages_limit: int
    bytes_used: int
    bytes_limit: int
    def __init__(self, served_from: _Optional[_Union[Provenance.Source, str]] = ..., kms_request_id: _Optional[str] = ..., kms_event_id: _Optional[str] = ..., minted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., messages_used: _Optional[int] = ..., messages_limit: _Optional[int] = ..., bytes_used: _Optional[int] = ..., bytes_limit: _Optional[int] = ...) -> None: ...

class EncryptMessageRequest(_message.Message):
    __slots__ = ("key_id", "encryption_context", "plaintext", "grant_tokens", "reuse")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    GRANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSE_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    encryption_context: _containers.ScalarMap[str, str]
    plaintext: bytes
    grant_tokens: _containers.RepeatedScalarFieldContainer[str]
    reuse: Reuse
    def __init__(self, key_id: _Optional[str] = ..., encryption_context: _Optional[_Mapping[str, str]] = ..., plaintext: _Optional[bytes] = ..., grant_tokens: _Optional[_Iterable[str]] = ..., reuse: _Optional[_Union[Reuse, _Mapping]] = ...) -> None: ...

class EncryptMessageResponse(_message.Message):
    __slots__ = ("message", "key_id", "provenance")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    message: bytes
    key_id: str
    provenance: Provenance
    def __init__(self, message: _Optional[bytes] = ..., key_id: _Optional[str] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class DecryptMessageRequest(_message.Message):
    __slots__ = ("message", "encryption_context", "key_id", "grant_tokens", "reuse")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSE_FIELD_NUMBER: _ClassVar[int]
    message: bytes
    encryption_context: _containers.ScalarMap[str, str]
    key_id: str
    grant_tokens: _containers.RepeatedScalarFieldContainer[str]
    reuse: Reuse
    def __init__(self, message: _Optional[bytes] = ..., encryption_context: _Optional[_Mapping[str, str]] = ..., key_id: _Optional[str] = ..., grant_tokens: _Optional[_Iterable[str]] = ..., reuse: _Optional[_Union[Reuse, _Mapping]] = ...) -> None: ...

class DecryptMessageResponse(_message.Message):
    __slots__ = ("plaintext", "encryption_context", "key_id", "provenance")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    plaintext: bytes
    encryption_context: _containers.ScalarMap[str, str]
    key_id: str
    provenance: Provenance
    def __init__(self, plaintext: _Optional[bytes] = ..., encryption_context: _Optional[_Mapping[str, str]] = ..., key_id: _Optional[str] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class EncryptMessageStreamRequest(_message.Message):
    __slots__ = ("start", "plaintext")
    START_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    start: EncryptMessageStart
    plaintext: bytes
    def __init__(self, start: _Optional[_Union[EncryptMessageStart, _Mapping]] = ..., plaintext: _Optional[bytes] = ...) -> None: ...

class EncryptMessageStart(_message.Message):
    __slots__ = ("key_id", "encryption_context", "grant_tokens", "reuse", "plaintext_length")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    GRANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSE_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    encryption_context: _containers.ScalarMap[str, str]
    grant_tokens: _containers.RepeatedScalarFieldContainer[str]
    reuse: Reuse
    plaintext_length: int
    def __init__(self, key_id: _Optional[str] = ..., encryption_context: _Optional[_Mapping[str, str]] = ..., grant_tokens: _Optional[_Iterable[str]] = ..., reuse: _Optional[_Union[Reuse, _Mapping]] = ..., plaintext_length: _Optional[int] = ...) -> None: ...

class EncryptMessageStreamResponse(_message.Message):
    __slots__ = ("message", "key_id", "provenance")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    message: bytes
    key_id: str
    provenance: Provenance
    def __init__(self, message: _Optional[bytes] = ..., key_id: _Optional[str] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class DecryptMessageStreamRequest(_message.Message):
    __slots__ = ("start", "message")
    START_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    start: DecryptMessageStart
    message: bytes
    def __init__(self, start: _Optional[_Union[DecryptMessageStart, _Mapping]] = ..., message: _Optional[bytes] = ...) -> None: ...

class DecryptMessageStart(_message.Message):
    __slots__ = ("encryption_context", "key_id", "grant_tokens", "reuse", "release_before_signature")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_BEFORE_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    encryption_context: _containers.ScalarMap[str, str]
    key_id: str
    grant_tokens: _containers.RepeatedScalarFieldContainer[str]
    reuse: Reuse
    release_before_signature: bool
    def __init__(self, encryption_context: _Optional[_Mapping[str, str]] = ..., key_id: _Optional[str] = ..., grant_tokens: _Optional[_Iterable[str]] = ..., reuse: _Optional[_Union[Reuse, _Mapping]] = ..., release_before_signature: bool = ...) -> None: ...

class DecryptMessageStreamResponse(_message.Message):
    __slots__ = ("plaintext", "encryption_context", "key_id", "provenance")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    plaintext: bytes
    encryption_context: _containers.ScalarMap[str, str]
    key_id: str
    provenance: Provenance
    def __init__(self, plaintext: _Optional[bytes] = ..., encryption_context: _Optional[_Mapping[str, str]] = ..., key_id: _Optional[str] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class GenerateDataKeyRequest(_message.Message):
    __slots__ = ("key_id", "key_spec", "number_of_bytes", "encryption_context", "recipient", "grant_tokens", "use", "reuse")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_SPEC_FIELD_NUMBER: _ClassVar[int]
    NUMBER_OF_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    GRANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    REUSE_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    key_spec: KeySpec
    number_of_bytes: int
    encryption_context: _containers.ScalarMap[str, str]
    recipient: Recipient
    grant_tokens: _containers.RepeatedScalarFieldContainer[str]
    use: Use
    reuse: Reuse
    def __init__(self, key_id: _Optional[str] = ..., key_spec: _Optional[_Union[KeySpec, str]] = ..., number_of_bytes: _Optional[int] = ..., encryption_context: _Optional[_Mapping[str, str]] = ..., recipient: _Optional[_Union[Recipient, _Mapping]] = ..., grant_tokens: _Optional[_Iterable[str]] = ..., use: _Optional[_Union[Use, _Mapping]] = ..., reuse: _Optional[_Union[Reuse, _Mapping]] = ...) -> None: ...

class GenerateDataKeyResponse(_message.Message):
    __slots__ = ("plaintext", "ciphertext_blob", "key_id", "key_material_id", "ciphertext_for_recipient", "provenance")
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_BLOB_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_MATERIAL_ID_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FOR_RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    plaintext: bytes
    ciphertext_blob: bytes
    key_id: str
    key_material_id: str
    ciphertext_for_recipient: bytes
    provenance: Provenance
    def __init__(self, plaintext: _Optional[bytes] = ..., ciphertext_blob: _Optional[bytes] = ..., key_id: _Optional[str] = ..., key_material_id: _Optional[str] = ..., ciphertext_for_recipient: _Optional[bytes] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class GenerateDataKeyWithoutPlaintextRequest(_message.Message):
    __slots__ = ("key_id", "key_spec", "number_of_bytes", "encryption_context", "grant_tokens", "use", "reuse")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_SPEC_FIELD_NUMBER: _ClassVar[int]
    NUMBER_OF_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    GRANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    REUSE_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    key_spec: KeySpec
    number_of_bytes: int
    encryption_context: _containers.ScalarMap[str, str]
    grant_tokens: _containers.RepeatedScalarFieldContainer[str]
    use: Use
    reuse: Reuse
    def __init__(self, key_id: _Optional[str] = ..., key_spec: _Optional[_Union[KeySpec, str]] = ..., number_of_bytes: _Optional[int] = ..., encryption_context: _Optional[_Mapping[str, str]] = ..., grant_tokens: _Optional[_Iterable[str]] = ..., use: _Optional[_Union[Use, _Mapping]] = ..., reuse: _Optional[_Union[Reuse, _Mapping]] = ...) -> None: ...

class GenerateDataKeyWithoutPlaintextResponse(_message.Message):
    __slots__ = ("ciphertext_blob", "key_id", "key_material_id", "provenance")
    CIPHERTEXT_BLOB_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_MATERIAL_ID_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    ciphertext_blob: bytes
    key_id: str
    key_material_id: str
    provenance: Provenance
    def __init__(self, ciphertext_blob: _Optional[bytes] = ..., key_id: _Optional[str] = ..., key_material_id: _Optional[str] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class DecryptRequest(_message.Message):
    __slots__ = ("ciphertext_blob", "encryption_context", "key_id", "recipient", "grant_tokens", "reuse")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CIPHERTEXT_BLOB_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    GRANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSE_FIELD_NUMBER: _ClassVar[int]
    ciphertext_blob: bytes
    encryption_context: _containers.ScalarMap[str, str]
    key_id: str
    recipient: Recipient
    grant_tokens: _containers.RepeatedScalarFieldContainer[str]
    reuse: Reuse
    def __init__(self, ciphertext_blob: _Optional[bytes] = ..., encryption_context: _Optional[_Mapping[str, str]] = ..., key_id: _Optional[str] = ..., recipient: _Optional[_Union[Recipient, _Mapping]] = ..., grant_tokens: _Optional[_Iterable[str]] = ..., reuse: _Optional[_Union[Reuse, _Mapping]] = ...) -> None: ...

class DecryptResponse(_message.Message):
    __slots__ = ("plaintext", "key_id", "key_material_id", "ciphertext_for_recipient", "provenance")
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_MATERIAL_ID_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FOR_RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    plaintext: bytes
    key_id: str
    key_material_id: str
    ciphertext_for_recipient: bytes
    provenance: Provenance
    def __init__(self, plaintext: _Optional[bytes] = ..., key_id: _Optional[str] = ..., key_material_id: _Optional[str] = ..., ciphertext_for_recipient: _Optional[bytes] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class EncryptRequest(_message.Message):
    __slots__ = ("key_id", "plaintext", "encryption_context", "grant_tokens")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    GRANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    plaintext: bytes
    encryption_context: _containers.ScalarMap[str, str]
    grant_tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key_id: _Optional[str] = ..., plaintext: _Optional[bytes] = ..., encryption_context: _Optional[_Mapping[str, str]] = ..., grant_tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class EncryptResponse(_message.Message):
    __slots__ = ("ciphertext_blob", "key_id", "provenance")
    CIPHERTEXT_BLOB_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    ciphertext_blob: bytes
    key_id: str
    provenance: Provenance
    def __init__(self, ciphertext_blob: _Optional[bytes] = ..., key_id: _Optional[str] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class ReEncryptRequest(_message.Message):
    __slots__ = ("ciphertext_blob", "source_encryption_context", "source_key_id", "destination_key_id", "destination_encryption_context", "grant_tokens")
    class SourceEncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class DestinationEncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CIPHERTEXT_BLOB_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    GRANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ciphertext_blob: bytes
    source_encryption_context: _containers.ScalarMap[str, str]
    source_key_id: str
    destination_key_id: str
    destination_encryption_context: _containers.ScalarMap[str, str]
    grant_tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ciphertext_blob: _Optional[bytes] = ..., source_encryption_context: _Optional[_Mapping[str, str]] = ..., source_key_id: _Optional[str] = ..., destination_key_id: _Optional[str] = ..., destination_encryption_context: _Optional[_Mapping[str, str]] = ..., grant_tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class ReEncryptResponse(_message.Message):
    __slots__ = ("ciphertext_blob", "source_key_id", "key_id", "source_key_material_id", "destination_key_material_id", "provenance")
    CIPHERTEXT_BLOB_FIELD_NUMBER: _ClassVar[int]
    SOURCE_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_KEY_MATERIAL_ID_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_KEY_MATERIAL_ID_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    ciphertext_blob: bytes
    source_key_id: str
    key_id: str
    source_key_material_id: str
    destination_key_material_id: str
    provenance: Provenance
    def __init__(self, ciphertext_blob: _Optional[bytes] = ..., source_key_id: _Optional[str] = ..., key_id: _Optional[str] = ..., source_key_material_id: _Optional[str] = ..., destination_key_material_id: _Optional[str] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class GenerateDataKeyPairRequest(_message.Message):
    __slots__ = ("key_id", "key_pair_spec", "encryption_context", "recipient", "grant_tokens")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_PAIR_SPEC_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    GRANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    key_pair_spec: KeyPairSpec
    encryption_context: _containers.ScalarMap[str, str]
    recipient: Recipient
    grant_tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key_id: _Optional[str] = ..., key_pair_spec: _Optional[_Union[KeyPairSpec, str]] = ..., encryption_context: _Optional[_Mapping[str, str]] = ..., recipient: _Optional[_Union[Recipient, _Mapping]] = ..., grant_tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class GenerateDataKeyPairResponse(_message.Message):
    __slots__ = ("private_key_plaintext", "private_key_ciphertext_blob", "public_key", "key_id", "key_material_id", "ciphertext_for_recipient", "provenance")
    PRIVATE_KEY_PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_KEY_CIPHERTEXT_BLOB_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_MATERIAL_ID_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FOR_RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    private_key_plaintext: bytes
    private_key_ciphertext_blob: bytes
    public_key: bytes
    key_id: str
    key_material_id: str
    ciphertext_for_recipient: bytes
    provenance: Provenance
    def __init__(self, private_key_plaintext: _Optional[bytes] = ..., private_key_ciphertext_blob: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., key_id: _Optional[str] = ..., key_material_id: _Optional[str] = ..., ciphertext_for_recipient: _Optional[bytes] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class GenerateDataKeyPairWithoutPlaintextRequest(_message.Message):
    __slots__ = ("key_id", "key_pair_spec", "encryption_context", "grant_tokens")
    class EncryptionContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_PAIR_SPEC_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    GRANT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    key_pair_spec: KeyPairSpec
    encryption_context: _containers.ScalarMap[str, str]
    grant_tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key_id: _Optional[str] = ..., key_pair_spec: _Optional[_Union[KeyPairSpec, str]] = ..., encryption_context: _Optional[_Mapping[str, str]] = ..., grant_tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class GenerateDataKeyPairWithoutPlaintextResponse(_message.Message):
    __slots__ = ("private_key_ciphertext_blob", "public_key", "key_id", "key_material_id", "provenance")
    PRIVATE_KEY_CIPHERTEXT_BLOB_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_MATERIAL_ID_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    private_key_ciphertext_blob: bytes
    public_key: bytes
    key_id: str
    key_material_id: str
    provenance: Provenance
    def __init__(self, private_key_ciphertext_blob: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., key_id: _Optional[str] = ..., key_material_id: _Optional[str] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class GenerateRandomRequest(_message.Message):
    __slots__ = ("number_of_bytes", "recipient")
    NUMBER_OF_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    number_of_bytes: int
    recipient: Recipient
    def __init__(self, number_of_bytes: _Optional[int] = ..., recipient: _Optional[_Union[Recipient, _Mapping]] = ...) -> None: ...

class GenerateRandomResponse(_message.Message):
    __slots__ = ("plaintext", "ciphertext_for_recipient", "provenance")
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FOR_RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    plaintext: bytes
    ciphertext_for_recipient: bytes
    provenance: Provenance
    def __init__(self, plaintext: _Optional[bytes] = ..., ciphertext_for_recipient: _Optional[bytes] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class DescribeKeyRequest(_message.Message):
    __slots__ = ("key_id",)
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    def __init__(self, key_id: _Optional[str] = ...) -> None: ...

class DescribeKeyResponse(_message.Message):
    __slots__ = ("arn", "key_spec", "key_usage", "key_state", "multi_region", "origin", "key_manager", "description", "creation_date", "provenance")
    ARN_FIELD_NUMBER: _ClassVar[int]
    KEY_SPEC_FIELD_NUMBER: _ClassVar[int]
    KEY_USAGE_FIELD_NUMBER: _ClassVar[int]
    KEY_STATE_FIELD_NUMBER: _ClassVar[int]
    MULTI_REGION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    KEY_MANAGER_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CREATION_DATE_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    arn: str
    key_spec: str
    key_usage: str
    key_state: str
    multi_region: bool
    origin: str
    key_manager: str
    description: str
    creation_date: _timestamp_pb2.Timestamp
    provenance: Provenance
    def __init__(self, arn: _Optional[str] = ..., key_spec: _Optional[str] = ..., key_usage: _Optional[str] = ..., key_state: _Optional[str] = ..., multi_region: bool = ..., origin: _Optional[str] = ..., key_manager: _Optional[str] = ..., description: _Optional[str] = ..., creation_date: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

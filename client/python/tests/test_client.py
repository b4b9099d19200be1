"""Proves what the client promises, against a broker."""

import inspect
import itertools
import os
import time
from pathlib import Path

import grpc
import key_broker
import pytest
from conftest import CONTEXT, KEY


def test_a_message_comes_back(broker):
    message = broker.encrypt(b"hello", KEY, CONTEXT)
    assert b"hello" not in message
    assert broker.decrypt(message, CONTEXT) == b"hello"
    opened = broker.decrypt_message(message, key_id=KEY)
    assert opened.plaintext == b"hello"
    assert opened.encryption_context["tenant"] == "acme"
    assert opened.key_id.startswith("arn:aws:kms:")
    assert opened.provenance.kms_request_id


@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024])
def test_messages_of_any_size(broker, size):
    plaintext = bytes(size)
    assert broker.decrypt(broker.encrypt(plaintext, KEY)) == plaintext


def test_an_altered_message_and_another_context_are_refused(broker):
    message = broker.encrypt(b"hello", KEY, CONTEXT)
    altered = message[:-1] + bytes([message[-1] ^ 1])
    for call, reason in [
        (lambda: broker.decrypt(altered), "INVALID_MESSAGE"),
        (lambda: broker.decrypt(message, {"tenant": "other"}), "ENCRYPTION_CONTEXT_MISMATCH"),
    ]:
        with pytest.raises(key_broker.KeyBrokerError) as raised:
            call()
        assert raised.value.reason == reason


def test_a_stream_comes_back(broker):
    parts = [bytes([n]) * 100_000 for n in range(50)]
    encrypted = broker.encrypt_stream(parts, KEY, CONTEXT, length=5_000_000)
    assert encrypted.key_id.startswith("arn:aws:kms:")
    message = b"".join(encrypted)
    decrypted = broker.decrypt_stream([message], CONTEXT)
    assert decrypted.encryption_context["tenant"] == "acme"
    assert b"".join(decrypted) == b"".join(parts)


def test_a_file_is_a_stream(broker, tmp_path):
    (tmp_path / "plain").write_bytes(bytes(300_000))
    with open(tmp_path / "plain", "rb") as source, open(tmp_path / "sealed", "wb") as sink:
        sink.writelines(broker.encrypt_stream(source, KEY))
    with open(tmp_path / "sealed", "rb") as source:
        assert b"".join(broker.decrypt_stream(source)) == bytes(300_000)


def test_a_stream_whose_source_fails_has_no_end(broker):
    def source():
        yield b"first"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(broker.encrypt_stream(source(), KEY))


def test_a_stream_that_is_closed_early_ends(broker):
    endless = itertools.repeat(bytes(65_536))
    with broker.encrypt_stream(endless, KEY) as stream:
        assert next(stream)
    with pytest.raises(key_broker.KeyBrokerError):
        list(stream)


def test_a_data_key_is_erased_at_the_end_of_its_block(broker):
    with broker.data_key(KEY, CONTEXT) as key:
        plaintext = key.plaintext
        assert len(plaintext) == 32 and any(plaintext)
    assert not any(plaintext)
    with pytest.raises(ValueError):
        _ = key.plaintext
    with broker.decrypt_data_key(key.ciphertext_blob, key.key_id, CONTEXT) as again:
        assert len(again.plaintext) == 32 and any(again.plaintext)
    assert "plaintext" not in repr(key)


def test_lengths_and_reuse_of_data_keys(broker):
    for length in (16, 32, 100):
        assert len(broker.data_key(KEY, length=length).plaintext) == length
    fresh = key_broker.Reuse(fresh=True)
    keys = {bytes(broker.data_key(KEY, CONTEXT, reuse=fresh).plaintext) for _ in range(3)}
    assert len(keys) == 3
    assert broker.data_key(KEY, CONTEXT).provenance.is_cached or broker.data_key(KEY, CONTEXT).provenance.is_cached


def test_values_are_encrypted_under_the_key_itself(broker):
    sealed = broker.encrypt_value(b"password", KEY, CONTEXT)
    assert b"password" not in sealed.ciphertext_blob and sealed.provenance.kms_request_id
    assert broker.decrypt_value(sealed.ciphertext_blob, sealed.key_id, CONTEXT) == b"password"
    moved = broker.re_encrypt(
        sealed.ciphertext_blob, sealed.key_id, KEY, source_context=CONTEXT, destination_context={"tenant": "other"}
    )
    assert broker.decrypt_value(moved.ciphertext_blob, moved.key_id, {"tenant": "other"}) == b"password"
    for context in (None, CONTEXT):
        with pytest.raises(key_broker.KeyBrokerError) as raised:
            broker.decrypt_value(moved.ciphertext_blob, moved.key_id, context)
        assert raised.value.reason == "INVALID_CIPHERTEXT"


@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "RSA_2048"])
def test_a_private_key_is_erased_at_the_end_of_its_block(broker, spec):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    with broker.data_key_pair(KEY, CONTEXT, spec=spec) as pair:
        private = serialization.load_der_private_key(bytes(pair.private_key), None)
        public = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        assert public == pair.public_key
        with broker.decrypt_data_key(pair.private_key_ciphertext_blob, pair.key_id, CONTEXT) as again:
            assert again.plaintext == pair.private_key
        erased = pair.private_key
    assert not any(erased) and "private" not in repr(pair)
    with pytest.raises(ValueError):
        _ = pair.private_key


def test_what_comes_encrypted_only_is_decrypted_later(broker):
    sealed = broker.data_key_without_plaintext(KEY, CONTEXT)
    assert len(broker.decrypt_data_key(sealed.ciphertext_blob, sealed.key_id, CONTEXT).plaintext) == 32
    pair = broker.data_key_pair_without_plaintext(KEY, CONTEXT, spec="ECC_NIST_P384")
    assert any(broker.decrypt_data_key(pair.private_key_ciphertext_blob, pair.key_id, CONTEXT).plaintext)
    with pytest.raises(ValueError):
        broker.data_key_pair(KEY, spec="RSA_512")


def test_methods_tell_their_parameters(broker):
    shown = inspect.signature(broker.encrypt)
    assert [*shown.parameters] == ["plaintext", "key_id", "context", "options"] and shown.return_annotation is bytes
    assert broker.encrypt.__name__ == "encrypt" and "3 MiB" in broker.encrypt.__doc__


def test_a_key_is_described(broker):
    described = broker.describe_key(KEY)
    assert (described.key_spec, described.key_state) == ("SYMMETRIC_DEFAULT", "Enabled")


def test_errors_say_what_a_program_needs(broker):
    with pytest.raises(key_broker.KeyBrokerError) as raised:
        broker.decrypt_data_key(b"no ciphertext of KMS", KEY)
    error = raised.value
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CIPHERTEXT")
    assert (error.domain, error.retry_delay) == ("kms.amazonaws.com", None)
    assert error.request_id and error.kms_request_id
    assert error.request_id in str(error) and "INVALID_CIPHERTEXT" in str(error)
    assert not error.is_denied and not error.is_retryable


def test_a_denied_call_is_told_apart(broker):
    with pytest.raises(key_broker.KeyBrokerError) as raised:
        broker.data_key("alias/forbidden")
    error = raised.value
    assert error.is_denied and not error.is_retryable
    assert (error.reason, error.domain) == ("DENIED_BY_POLICY", "keybroker")


def test_a_throttled_call_says_when_to_try_again(broker):
    """The broker's KMS has to throttle GenerateRandom."""
    with pytest.raises(key_broker.KeyBrokerError) as raised:
        broker.random(16)
    error = raised.value
    assert error.reason == "KMS_THROTTLED" and error.is_retryable and not error.is_denied
    assert error.retry_delay is not None and error.retry_delay > 0


def test_a_broker_that_is_not_there_is_waited_for_until_the_deadline(tmp_path):
    with key_broker.connect(f"unix:{tmp_path}/none.sock", deadline=0.5) as broker:
        begun = time.monotonic()
        with pytest.raises(key_broker.KeyBrokerError) as raised:
            broker.data_key(KEY)
        assert 0.4 < time.monotonic() - begun < 5
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "none.sock" in raised.value.message and "is it running" in raised.value.message


def test_no_proxy_is_asked(broker, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with key_broker.connect() as client:
        assert client.describe_key(KEY).arn


@pytest.mark.skipif("KEY_BROKER_TEST_TLS" not in os.environ, reason="no second broker, with TLS, is told of")
def test_two_brokers_and_two_languages_exchange_messages(broker):
    folder = Path(os.environ["KEY_BROKER_TEST_TLS"])
    tls = key_broker.Tls(*((folder / name).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt")), server_name="broker.test")
    with key_broker.connect(os.environ["KEY_BROKER_TEST_TLS_ADDRESS"], tls=tls) as other:
        # In a trace, which the broker has to find.
        trace = pytest.importorskip("opentelemetry.trace")
        caller = trace.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 1, is_remote=False, trace_flags=trace.TraceFlags(1))
        with trace.use_span(trace.NonRecordingSpan(caller)):
            assert other.describe_key(KEY).key_state == "Enabled"
        assert other.decrypt(broker.encrypt(b"over", KEY, CONTEXT), CONTEXT) == b"over"
        assert broker.decrypt(other.encrypt(b"and back", KEY, CONTEXT), CONTEXT) == b"and back"
    exchange = Path(os.environ["KEY_BROKER_TEST_EXCHANGE"])
    assert broker.decrypt((exchange / "from-rust").read_bytes(), CONTEXT) == b"from Rust"
    (exchange / "to-rust").write_bytes(broker.encrypt(b"to Rust", KEY, CONTEXT))

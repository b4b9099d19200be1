"""Proves: the client for asyncio does what the other one does."""

import asyncio

import key_broker
import pytest
from conftest import CONTEXT, KEY
from key_broker import aio


def run(test):
    """Runs a coroutine function that takes a client."""

    async def with_client():
        async with aio.connect() as broker:
            return await test(broker)

    return asyncio.run(asyncio.wait_for(with_client(), 30))


def test_a_message_comes_back():
    async def test(broker):
        messages = await asyncio.gather(*(broker.encrypt(b"%d" % n, KEY, CONTEXT) for n in range(20)))
        assert [await broker.decrypt(message, CONTEXT) for message in messages] == [b"%d" % n for n in range(20)]
        opened = await broker.decrypt_message(messages[0], key_id=KEY)
        assert opened.encryption_context["tenant"] == "acme"

    run(test)


def test_a_stream_comes_back():
    async def parts():
        for n in range(50):
            yield bytes([n]) * 10_000

    async def test(broker):
        message = b"".join([part async for part in await broker.encrypt_stream(parts(), KEY, CONTEXT)])
        decrypted = await broker.decrypt_stream([message], CONTEXT)
        assert decrypted.encryption_context["tenant"] == "acme"
        assert b"".join([part async for part in decrypted]) == b"".join([part async for part in parts()])

    run(test)


def test_a_stream_whose_source_fails_has_no_end():
    async def source():
        yield b"first"
        raise OSError("the disk is gone")

    async def test(broker):
        with pytest.raises(OSError, match="the disk is gone"):
            async for _ in await broker.encrypt_stream(source(), KEY):
                pass

    run(test)


def test_a_data_key_is_erased_at_the_end_of_its_block():
    async def test(broker):
        with await broker.data_key(KEY, CONTEXT) as key:
            plaintext = key.plaintext
            assert any(plaintext)
        assert not any(plaintext)
        with await broker.decrypt_data_key(key.ciphertext_blob, key.key_id, CONTEXT) as again:
            assert any(again.plaintext)
        assert (await broker.describe_key(KEY)).key_state == "Enabled"

    run(test)


def test_values_and_pairs():
    async def test(broker):
        sealed = await broker.encrypt_value(b"password", KEY, CONTEXT)
        moved = await broker.re_encrypt(sealed.ciphertext_blob, sealed.key_id, KEY, source_context=CONTEXT)
        assert await broker.decrypt_value(moved.ciphertext_blob, moved.key_id) == b"password"
        with await broker.data_key_pair(KEY, CONTEXT, spec="ECC_NIST_P256") as pair:
            with await broker.decrypt_data_key(pair.private_key_ciphertext_blob, pair.key_id, CONTEXT) as again:
                assert again.plaintext == pair.private_key
        assert (await broker.data_key_pair_without_plaintext(KEY, spec="ECC_NIST_P256")).public_key
        assert (await broker.data_key_without_plaintext(KEY)).ciphertext_blob

    run(test)


def test_errors_are_the_same():
    async def test(broker):
        with pytest.raises(key_broker.KeyBrokerError) as raised:
            await broker.data_key("alias/forbidden")
        assert raised.value.is_denied and raised.value.request_id
        with pytest.raises(key_broker.KeyBrokerError) as raised:
            await broker.random(16)
        assert raised.value.is_retryable and raised.value.retry_delay

    run(test)


def test_cancelling_is_passed_on():
    async def test(broker):
        task = asyncio.create_task(broker.random(16, deadline=20))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(test)

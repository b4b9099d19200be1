// Proves what the client promises, against a broker: `key-broker dev`, or any whose KEY_BROKER_ADDRESS is set. See
// tests/client_packages.rs.
import assert from "node:assert/strict";
import { createPrivateKey, createPublicKey } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { after, test } from "node:test";
import { inspect } from "node:util";

import { context, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { KeyBrokerError, connect } from "@key-broker/client";

const KEY = "alias/dev";
const ACME = { tenant: "acme" };

assert.ok(process.env.KEY_BROKER_ADDRESS, "start `cargo dev`, and set KEY_BROKER_ADDRESS=unix:.key-broker-dev/broker.sock");
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
const CALLER = trace.wrapSpanContext({ traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331", traceFlags: 1 });
const broker = connect();
after(() => broker.close());

async function refused(promise) {
  const error = await promise.then(() => assert.fail("it has to be refused"), (error) => error);
  assert.ok(error instanceof KeyBrokerError, inspect(error));
  return error;
}

async function whole(parts) {
  const all = [];
  for await (const part of parts) all.push(part);
  return Buffer.concat(all);
}

test("a message comes back", async () => {
  const message = await broker.encrypt("hello", KEY, ACME);
  assert.ok(!message.includes("hello"));
  assert.equal((await broker.decrypt(message, ACME)).toString(), "hello");
  const opened = await broker.decryptMessage(message, {}, { keyId: KEY });
  assert.equal(opened.encryptionContext.tenant, "acme");
  assert.match(opened.keyId, /^arn:aws:kms:/);
  assert.ok(opened.provenance.kmsRequestId);
});

test("messages of any size", async () => {
  for (const size of [0, 1, 3 * 1024 * 1024]) {
    const plaintext = Buffer.alloc(size, 7);
    assert.ok((await broker.decrypt(await broker.encrypt(plaintext, KEY))).equals(plaintext));
  }
});

test("an altered message and another context are refused", async () => {
  const message = await broker.encrypt("hello", KEY, ACME);
  assert.equal((await refused(broker.decrypt(message, { tenant: "other" }))).reason, "ENCRYPTION_CONTEXT_MISMATCH");
  message[message.length - 1] ^= 1;
  assert.equal((await refused(broker.decrypt(message))).reason, "INVALID_MESSAGE");
});

test("a stream comes back, by iteration and by pipeline", async () => {
  const parts = Array.from({ length: 50 }, (_, n) => Buffer.alloc(100_000, n));
  const encrypted = await broker.encryptStream(Readable.from(parts), KEY, ACME, { length: 5_000_000 });
  assert.match(encrypted.keyId, /^arn:aws:kms:/);
  const message = await whole(encrypted);
  const decrypted = await broker.decryptStream([message], ACME);
  assert.equal(decrypted.encryptionContext.tenant, "acme");
  const got = [];
  await pipeline(decrypted, new Writable({ write: (chunk, _, done) => (got.push(chunk), done()) }));
  assert.ok(Buffer.concat(got).equals(Buffer.concat(parts)));
});

test("a stream whose source fails has no end", async () => {
  async function* source() {
    yield Buffer.from("first");
    throw new Error("the disk is gone");
  }
  await assert.rejects(async () => whole(await broker.encryptStream(source(), KEY)), /the disk is gone/);
});

test("a stream that is left early ends, and so does its source", async () => {
  let returned = false;
  async function* endless() {
    try {
      for (;;) yield Buffer.alloc(65_536);
    } finally {
      returned = true;
    }
  }
  for await (const part of await broker.encryptStream(endless(), KEY)) {
    assert.ok(part.length > 0);
    break;
  }
  for (let waited = 0; !returned && waited < 5_000; waited += 10) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(returned);
});

test("values are encrypted under the key itself", async () => {
  const sealed = await broker.encryptValue("password", KEY, ACME);
  assert.ok(!sealed.ciphertextBlob.includes("password") && sealed.provenance.kmsRequestId);
  assert.equal((await broker.decryptValue(sealed.ciphertextBlob, sealed.keyId, ACME)).toString(), "password");
  const other = { tenant: "other" };
  const source = { keyId: sealed.keyId, context: ACME };
  const moved = await broker.reEncrypt(sealed.ciphertextBlob, source, { keyId: KEY, context: other });
  assert.equal((await broker.decryptValue(moved.ciphertextBlob, moved.keyId, other)).toString(), "password");
  const refusal = await refused(broker.decryptValue(moved.ciphertextBlob, moved.keyId, ACME));
  assert.equal(refusal.reason, "INVALID_CIPHERTEXT");
});

test("a private key is erased when its pair is closed", async () => {
  for (const spec of ["ECC_NIST_P256", "RSA_2048"]) {
    const pair = await broker.dataKeyPair(KEY, ACME, spec);
    const key = createPrivateKey({ key: pair.privateKey, format: "der", type: "pkcs8" });
    assert.ok(createPublicKey(key).export({ format: "der", type: "spki" }).equals(pair.publicKey));
    const again = await broker.decryptDataKey(pair.privateKeyCiphertextBlob, pair.keyId, ACME);
    assert.ok(again.plaintext.equals(pair.privateKey));
    const erased = pair.privateKey;
    pair.close();
    assert.ok(erased.every((byte) => byte === 0));
    assert.throws(() => pair.privateKey, TypeError);
  }
});

test("what comes encrypted only is decrypted later", async () => {
  const sealed = await broker.dataKeyWithoutPlaintext(KEY, ACME, { length: 16 });
  assert.equal((await broker.decryptDataKey(sealed.ciphertextBlob, sealed.keyId, ACME)).plaintext.length, 16);
  const pair = await broker.dataKeyPairWithoutPlaintext(KEY, ACME, "ECC_NIST_P384");
  assert.ok((await broker.decryptDataKey(pair.privateKeyCiphertextBlob, pair.keyId, ACME)).plaintext.length > 100);
  assert.equal("privateKey" in pair, false);
});

test("a data key is erased when it is closed", async () => {
  const key = await broker.dataKey(KEY, ACME);
  const { plaintext } = key;
  assert.equal(plaintext.length, 32);
  assert.ok(plaintext.some((byte) => byte !== 0));
  const again = await broker.decryptDataKey(key.ciphertextBlob, key.keyId, ACME);
  assert.ok(again.plaintext.equals(plaintext));
  assert.ok(!inspect(key, { depth: 9, getters: false }).includes("laintext"));
  assert.ok(!JSON.stringify(key).includes("laintext"));
  key[Symbol.dispose]();
  assert.ok(plaintext.every((byte) => byte === 0));
  assert.throws(() => key.plaintext, /erased/);
});

test("lengths and reuse of data keys", async () => {
  for (const length of [16, 32, 100]) assert.equal((await broker.dataKey(KEY, {}, { length })).plaintext.length, length);
  const fresh = { reuse: { fresh: true } };
  const [one, other] = [await broker.dataKey(KEY, ACME, fresh), await broker.dataKey(KEY, ACME, fresh)];
  assert.ok(!one.plaintext.equals(other.plaintext));
  await broker.dataKey(KEY, ACME);
  assert.ok((await broker.dataKey(KEY, ACME, { messages: 2, bytes: 100 })).provenance.isCached);
  assert.equal((await broker.describeKey(KEY)).keyState, "Enabled");
});

test("errors say what a program needs", async () => {
  const altered = await refused(broker.decryptDataKey(Buffer.from("no ciphertext of KMS"), KEY));
  assert.deepEqual([altered.code, altered.reason, altered.domain], ["INVALID_ARGUMENT", "INVALID_CIPHERTEXT", "kms.amazonaws.com"]);
  assert.ok(altered.requestId && altered.kmsRequestId && altered.message.includes(altered.requestId));
  assert.ok(!altered.isDenied && !altered.isRetryable && altered.retryDelayMs === undefined);

  const denied = await refused(broker.dataKey("alias/forbidden"));
  assert.deepEqual([denied.reason, denied.domain], ["DENIED_BY_POLICY", "keybroker"]);
  assert.ok(denied.isDenied && !denied.isRetryable);

  // The broker's KMS has to throttle GenerateRandom.
  const throttled = await refused(broker.random(16));
  assert.equal(throttled.reason, "KMS_THROTTLED");
  assert.ok(throttled.isRetryable && !throttled.isDenied && throttled.retryDelayMs > 0);
});

test("a broker that is not there is waited for until the deadline", async () => {
  const nobody = connect(`unix:${join(tmpdir(), "none.sock")}`, { deadlineMs: 500 });
  const begun = Date.now();
  const late = await refused(nobody.dataKey(KEY));
  assert.ok(Date.now() - begun > 400 && Date.now() - begun < 5_000);
  assert.equal(late.code, "DEADLINE_EXCEEDED");
  assert.match(late.message, /none\.sock.*is it running/);
  nobody.close();
});

test("a signal ends the call", async () => {
  const controller = new AbortController();
  const call = broker.random(16, { signal: controller.signal });
  setTimeout(() => controller.abort(new Error("enough")), 20);
  await assert.rejects(call, /enough/);
});

test("CommonJS has the same", async () => {
  const client = createRequire(import.meta.url)("@key-broker/client").connect();
  assert.equal((await client.dataKey(KEY)).plaintext.length, 32);
  client.close();
});

test("the current span is named, and nothing is sent without one", async () => {
  const { traced } = await import("../dist/esm/tracing.js");
  assert.deepEqual((await traced()).getMap(), {});
  const sent = await context.with(trace.setSpan(context.active(), CALLER), traced);
  assert.equal(sent.get("traceparent")[0], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
});

const folder = process.env.KEY_BROKER_TEST_TLS;
const skip = folder === undefined && "no second broker, with TLS, is told of";
test("two brokers and two languages exchange messages", { skip }, async () => {
  const [certificate, key, trustBundle] = ["tls.crt", "tls.key", "ca.crt"].map((name) => readFileSync(join(folder, name)));
  const tls = { certificate, key, trustBundle, serverName: "broker.test" };
  const other = connect(process.env.KEY_BROKER_TEST_TLS_ADDRESS, { tls });
  // In a trace, which the broker has to find.
  const described = await context.with(trace.setSpan(context.active(), CALLER), () => other.describeKey(KEY));
  assert.equal(described.keyState, "Enabled");
  assert.equal((await other.decrypt(await broker.encrypt("over", KEY, ACME), ACME)).toString(), "over");
  assert.equal((await broker.decrypt(await other.encrypt("and back", KEY, ACME), ACME)).toString(), "and back");
  other.close();
  const exchange = process.env.KEY_BROKER_TEST_EXCHANGE;
  assert.equal((await broker.decrypt(readFileSync(join(exchange, "from-rust")), ACME)).toString(), "from Rust");
  writeFileSync(join(exchange, "to-rust"), await broker.encrypt("to Rust", KEY, ACME));
});

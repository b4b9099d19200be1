// Uses a key-broker as a workload in JavaScript would: a client with no options, and the stubs of the .proto file.
//
//     client.js unix:<path> FACTS.json
//
// The same cases as ../python/client.py, which says what FACTS.json holds. Prints one JSON object a case.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

const PROTO = path.join(__dirname, '../../../proto');
const { KeyBroker } = grpc.loadPackageDefinition(
  loader.loadSync('keybroker/v1/key_broker.proto', { includeDirs: [PROTO], keepCase: true }),
).keybroker.v1;

// Of the standard protocols, what this client reads: grpc.health.v1, google.rpc.Status and ErrorInfo.
const STANDARD = protobuf.parse(`
  syntax = "proto3";
  message HealthCheckRequest { string service = 1; }
  message HealthCheckResponse { enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; } ServingStatus status = 1; }
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
`).root;

const CONTEXT = { tenant: 'acme' };
const ABSENT = '00000000-0000-4000-8000-000000000000';

async function main([target, factsFile]) {
  const facts = JSON.parse(fs.readFileSync(factsFile, 'utf8'));
  const plain = fs.readFileSync(facts.file ?? factsFile);
  const broker = new KeyBroker(target, grpc.credentials.createInsecure());

  for (const service of ['', 'keybroker.v1.KeyBroker']) {
    say('health', { code: 'OK', status: await health(target, service) });
  }

  const { blob, sealed } = await seal(broker, plain);
  const decrypted = await call('decrypt', broker, 'Decrypt', { ciphertext_blob: blob, encryption_context: CONTEXT });
  say('file', { same: open(decrypted.plaintext, sealed).equals(plain), bytes: plain.length });

  await refused(broker, facts, blob);
  for (let i = 0; i < 200; i += 1) {
    await call('sequential', broker, 'GenerateDataKey', draw());
  }
  const request = { ciphertext_blob: blob, encryption_context: CONTEXT };
  await Promise.all(Array.from({ length: 50 }, () => call('concurrent', broker, 'Decrypt', request)));
  broker.close();
}

// Encrypts under a new data key, which is gone when this returns.
async function seal(broker, plain) {
  const answer = await call('generate', broker, 'GenerateDataKey', draw());
  const nonce = crypto.randomBytes(12);
  const cipher = crypto.createCipheriv('aes-256-gcm', answer.plaintext, nonce);
  const body = Buffer.concat([cipher.update(plain), cipher.final()]);
  return { blob: answer.ciphertext_blob, sealed: { nonce, body, tag: cipher.getAuthTag() } };
}

function open(key, { nonce, body, tag }) {
  const decipher = crypto.createDecipheriv('aes-256-gcm', key, nonce).setAuthTag(tag);
  return Buffer.concat([decipher.update(body), decipher.final()]);
}

async function refused(broker, facts, blob) {
  const flipped = Buffer.from(blob);
  flipped[flipped.length - 1] ^= 1;
  const other = { tenant: 'other' };
  await call('wrong_context', broker, 'Decrypt', { ciphertext_blob: blob, encryption_context: other });
  await call('flipped_bit', broker, 'Decrypt', { ciphertext_blob: flipped, encryption_context: CONTEXT });
  await call('unknown_key', broker, 'GenerateDataKey', draw(ABSENT));
  if (facts.disabled_key) {
    await call('disabled_key', broker, 'GenerateDataKey', draw(facts.disabled_key));
  }
  await call('oversized', broker, 'Decrypt', { ciphertext_blob: Buffer.alloc(524288) });
  await call('no_length', broker, 'GenerateDataKey', { key_id: 'alias/dev' });
  if (facts.slow_action === 'GenerateRandom') {
    await call('deadline', broker, 'GenerateRandom', { number_of_bytes: 32 }, { deadline: Date.now() + 300 });
  }
}

function draw(keyId = 'alias/dev') {
  return { key_id: keyId, key_spec: 'KEY_SPEC_AES_256', encryption_context: CONTEXT };
}

// One call and its line; the answer, or undefined for an error.
function call(name, broker, method, request, options = {}) {
  return new Promise((resolve) => {
    let metadata = {};
    let last;
    const done = broker[method](request, options, (error, answer) => {
      last = { error, answer };
    });
    done.on('metadata', (initial) => {
      metadata = { ...metadata, ...initial.getMap() };
    });
    done.on('status', (status) => {
      metadata = { ...metadata, ...status.metadata.getMap() };
      // The callback is called in this same turn, before or after.
      setImmediate(() => {
        say(name, {
          code: grpc.status[status.code],
          requestId: metadata['x-request-id'] ?? null,
          kmsRequestId: metadata['x-amzn-requestid'] ?? null,
          ...(last.error ? errorInfo(metadata['grpc-status-details-bin']) : {}),
        });
        resolve(last.answer);
      });
    });
  });
}

function errorInfo(bytes) {
  if (!bytes) {
    return {};
  }
  const { details } = STANDARD.lookupType('Status').decode(bytes);
  const detail = details.find(({ type_url, typeUrl }) => (type_url ?? typeUrl) === 'type.googleapis.com/google.rpc.ErrorInfo');
  if (!detail) {
    return {};
  }
  const { reason, domain, metadata } = STANDARD.lookupType('ErrorInfo').decode(detail.value);
  return { reason, domain, metadata };
}

function health(target, service) {
  const ask = STANDARD.lookupType('HealthCheckRequest');
  const answer = STANDARD.lookupType('HealthCheckResponse');
  const client = new grpc.Client(target, grpc.credentials.createInsecure());
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      '/grpc.health.v1.Health/Check',
      (request) => Buffer.from(ask.encode(request).finish()),
      (bytes) => answer.decode(bytes),
      { service },
      (error, { status } = {}) => {
        client.close();
        if (error) {
          reject(error);
        } else {
          resolve(answer.lookupEnum('ServingStatus').valuesById[status]);
        }
      },
    );
  });
}

function say(name, what) {
  process.stdout.write(`${JSON.stringify({ case: name, ...what })}\n`);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});

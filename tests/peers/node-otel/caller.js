// Calls a key-broker as an instrumented service in JavaScript would: OpenTelemetry's SDK and its instrumentation of gRPC, at their defaults.
//
//     caller.js unix:<path> PLAN
//
// PLAN and what is printed are as in ../python-otel/caller.py, of the kinds `generate` and `fresh` one after another, and with no span around them.
'use strict';

const path = require('node:path');
const { NodeSDK } = require('@opentelemetry/sdk-node');
const { GrpcInstrumentation } = require('@opentelemetry/instrumentation-grpc');

// Before gRPC is loaded: it is changed as it is loaded.
const sdk = new NodeSDK({ instrumentations: [new GrpcInstrumentation()] });
sdk.start();

const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const PROTO = path.join(__dirname, '../../../proto');
const { KeyBroker } = grpc.loadPackageDefinition(
  loader.loadSync('keybroker/v1/key_broker.proto', { includeDirs: [PROTO], keepCase: true }),
).keybroker.v1;

async function main() {
  const [target, plan] = [process.argv[2], JSON.parse(process.argv[3])];
  const broker = new KeyBroker(target, grpc.credentials.createInsecure());
  for (const { kind, times, key_id } of plan) {
    for (let call = 0; call < times; call++) {
      await generate(broker, kind, key_id ?? 'alias/dev');
    }
  }
  broker.close();
  await sdk.shutdown();
}

function generate(broker, kind, key_id) {
  const request = { key_id, key_spec: 'KEY_SPEC_AES_256', encryption_context: { tenant: 'acme' }, reuse: { fresh: kind === 'fresh' } };
  const line = { kind };
  return new Promise((resolve) => {
    const done = (error) => {
      line.code = grpc.status[error ? error.code : grpc.status.OK];
      console.log(JSON.stringify(line));
      resolve();
    };
    const options = { interceptors: [seeing(line)], deadline: Date.now() + 30_000 };
    const call = broker.GenerateDataKey(request, options, done);
    call.on('metadata', (headers) => {
      [line.requestId] = headers.get('x-request-id');
      [line.kmsRequestId] = headers.get('x-amzn-requestid');
    });
  });
}

/// Notes the header by which the instrumentation tells the broker of its span.
function seeing(line) {
  return (options, next) =>
    new grpc.InterceptingCall(next(options), {
      start(metadata, listener, go) {
        [, line.traceId, line.spanId] = metadata.get('traceparent')[0].split('-');
        go(metadata, listener);
      },
    });
}

main();

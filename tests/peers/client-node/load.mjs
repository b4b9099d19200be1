// As tests/peers/client-python/load.py: eight calls in flight until standard input is closed.
//
//   load.mjs package|bare
//
// `bare` loads the contract, whose path CONTRACT has.
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

import { connect } from "@key-broker/client";

const KEY = "alias/dev";
const CONTEXT = { tenant: "acme" };

const kinds = {
  package() {
    const broker = connect();
    return () => broker.encrypt("hello", KEY, CONTEXT);
  },
  bare() {
    const require = createRequire(import.meta.url);
    const grpc = require("@grpc/grpc-js");
    const { keybroker } = grpc.loadPackageDefinition(require("@grpc/proto-loader").loadSync(process.env.CONTRACT));
    const broker = new keybroker.v1.KeyBroker(process.env.KEY_BROKER_ADDRESS, grpc.credentials.createInsecure());
    const request = { keyId: KEY, encryptionContext: CONTEXT, plaintext: Buffer.from("hello") };
    return () =>
      new Promise((resolve, reject) => {
        const deadline = Date.now() + 10_000;
        broker.EncryptMessage(request, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply)));
      });
  },
};

const seen = { calls: 0, failed: 0, first: null, slowest: 0 };
let ended = false;
process.stdin.on("end", () => (ended = true)).resume();

async function run(call) {
  while (!ended) {
    const begun = Date.now();
    try {
      await call();
    } catch (error) {
      seen.failed += 1;
      seen.first ??= String(error);
    }
    seen.calls += 1;
    seen.slowest = Math.max(seen.slowest, Date.now() - begun);
    await sleep(5);
  }
}

const call = kinds[process.argv[2]]();
console.log("ready");
await Promise.all(Array.from({ length: 8 }, () => run(call)));
console.log(JSON.stringify(seen));
process.exit(0);

// As tests/peers/client-python/exchange.py: four callers that exchange messages with a program of another language.
//
//   exchange.mjs package|bare FIRST SECOND
//
// `bare` loads the contract, whose path CONTRACT has.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { connect } from "@key-broker/client";

const KEY = "alias/dev";
const CONTEXT = { tenant: "acme" };
const CALLERS = 4;

const kinds = {
  package(address) {
    const broker = connect(address);
    return {
      encrypt: (plaintext) => broker.encrypt(plaintext, KEY, CONTEXT),
      decrypt: (message) => broker.decrypt(message, CONTEXT),
    };
  },
  bare(address) {
    const require = createRequire(import.meta.url);
    const grpc = require("@grpc/grpc-js");
    const { keybroker } = grpc.loadPackageDefinition(require("@grpc/proto-loader").loadSync(process.env.CONTRACT));
    const broker = new keybroker.v1.KeyBroker(address, grpc.credentials.createInsecure());
    const call = (method, request) =>
      new Promise((resolve, reject) => {
        const deadline = Date.now() + 10_000;
        broker[method](request, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply)));
      });
    return {
      encrypt: async (plaintext) =>
        (await call("EncryptMessage", { keyId: KEY, encryptionContext: CONTEXT, plaintext })).message,
      decrypt: async (message) => (await call("DecryptMessage", { message, encryptionContext: CONTEXT })).plaintext,
    };
  },
};

const seen = { calls: 0, failed: 0, first: null, slowest: 0 };

async function called(call) {
  for (;;) {
    const begun = Date.now();
    let answer;
    try {
      answer = await call();
    } catch (error) {
      seen.failed += 1;
      seen.first ??= String(error);
    }
    seen.calls += 1;
    seen.slowest = Math.max(seen.slowest, Date.now() - begun);
    await sleep(20);
    if (answer) return answer;
  }
}

const counted = Buffer.from(Array.from({ length: 251 }, (_, at) => at));

class Caller {
  number = 0;
  done = Promise.resolve();

  constructor(caller, broker) {
    this.caller = caller;
    this.broker = broker;
  }

  // One line after the other.
  take(line) {
    this.done = this.done.then(() => this.answer(line));
  }

  async answer(line) {
    if (line.message !== undefined) {
      const plaintext = await called(() => this.broker.decrypt(Buffer.from(line.message, "base64")));
      if (!Buffer.from(line.plaintext, "base64").equals(plaintext)) throw new Error("another plaintext");
    }
    if (line.last) return;
    this.number += 1;
    const head = Buffer.from(`Node ${this.caller} ${this.number} `);
    const plaintext = Buffer.concat([head, ...Array((this.number * 7) % 80).fill(counted)]);
    const message = await called(() => this.broker.encrypt(plaintext));
    const text = (bytes) => Buffer.from(bytes).toString("base64");
    console.log(JSON.stringify({ caller: this.caller, message: text(message), plaintext: text(plaintext) }));
  }
}

const brokers = process.argv.slice(3).map((address) => kinds[process.argv[2]](address));
const callers = Array.from({ length: CALLERS }, (_, caller) => new Caller(caller, brokers[caller % 2]));
for await (const text of createInterface({ input: process.stdin })) {
  const line = JSON.parse(text);
  callers[line.caller].take(line);
}
await Promise.all(callers.map((caller) => caller.done));
console.log(JSON.stringify(seen));
process.exit(0);

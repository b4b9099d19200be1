// Proves: an address is where key material goes, so only those of this machine are taken without TLS.
import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "@key-broker/client";

const PEM = Buffer.from("");
const tls = { certificate: PEM, key: PEM, trustBundle: PEM };

for (const address of ["unix:///run/b.sock", "unix:/run/b.sock", "unix:b.sock", "127.0.0.1:7890", "127.9.9.9:7890", "[::1]:7890", "localhost:7890"]) {
  test(`${address} is of this machine`, () => connect(address).close());
}

for (const address of [
  "10.0.0.1:7890", "broker.internal:7890", "[::]:7890", "0.0.0.0:7890", "localhost.example.org:7890", "127.0.0.1", ":7890", "unix:",
  "unix://b.sock", "unix:@abstract", "unix:\0abstract", "unix-abstract:name", "dns:127.0.0.1", "vsock:2:7890", "http://127.0.0.1:7890",
  "127.0.0.1:http",
]) {
  test(`${JSON.stringify(address)} is refused`, () => assert.throws(() => connect(address), TypeError));
}

test("a socket takes no TLS", () => assert.throws(() => connect("unix:/run/b.sock", { tls }), /takes no tls/));

test("the environment says where", () => {
  const before = process.env.KEY_BROKER_ADDRESS;
  process.env.KEY_BROKER_ADDRESS = "broker.internal:7890";
  try {
    assert.throws(() => connect(), /broker.internal/);
    connect("unix:/tmp/other.sock").close();
  } finally {
    if (before === undefined) delete process.env.KEY_BROKER_ADDRESS;
    else process.env.KEY_BROKER_ADDRESS = before;
  }
});

// Node's part of the peers bench; what it loads, is told and prints is as in load.py.
//
//   load.mjs data-key|message MODULE
//   load.mjs encryption-sdk|kms FILE
//
// MODULE is the built package's, FILE stands beside the node_modules with AWS's libraries.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [kind, where] = process.argv.slice(2);
const KEY = process.env.KMS_KEY;
const CONTEXT = { tenant: "acme", purpose: "orders" };
const PLAINTEXT = Buffer.alloc(1024, "x");

const kinds = {
  async "data-key"() {
    const { connect } = await import(pathToFileURL(where));
    const broker = connect();
    const call = async () => (await broker.dataKey("alias/bench", CONTEXT)).close();
    return { call, library: "@grpc/grpc-js" };
  },
  async message() {
    const { connect } = await import(pathToFileURL(where));
    const broker = connect();
    return { call: () => broker.encrypt(PLAINTEXT, "alias/bench", CONTEXT), library: "@grpc/grpc-js" };
  },
  async "encryption-sdk"() {
    const sdk = createRequire(where)("@aws-crypto/client-node");
    const manager = new sdk.NodeCachingMaterialsManager({
      backingMaterials: new sdk.KmsKeyringNode({ generatorKeyId: KEY }),
      cache: sdk.getLocalCryptographicMaterialsCache(100),
      // Data keys live as long as the broker's do by default, and the suite and the frames are the broker's.
      maxAge: 300_000,
    });
    const { encrypt } = sdk.buildClient(sdk.CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT);
    const options = {
      suiteId: sdk.AlgorithmSuiteIdentifier.ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY,
      encryptionContext: CONTEXT,
      frameLength: 4096,
      plaintextLength: PLAINTEXT.length,
    };
    return { call: () => encrypt(manager, PLAINTEXT, options), library: "@aws-crypto/client-node" };
  },
  async kms() {
    const { KMSClient, GenerateDataKeyCommand } = createRequire(where)("@aws-sdk/client-kms");
    const client = new KMSClient();
    const request = { KeyId: KEY, KeySpec: "AES_256", EncryptionContext: CONTEXT };
    return { call: () => client.send(new GenerateDataKeyCommand(request)), library: "@aws-sdk/client-kms" };
  },
};

async function run(call, inFlight, milliseconds) {
  const micros = [];
  const began = performance.now();
  const end = began + milliseconds;
  const work = async () => {
    let start = performance.now();
    while (start < end) {
      await call();
      const ended = performance.now();
      micros.push(Math.round((ended - start) * 1000));
      start = ended;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, work));
  return { seconds: (performance.now() - began) / 1000, micros };
}

const { call, library } = await kinds[kind]();
const { version } = createRequire(where)(`${library}/package.json`);
console.log(`Node ${process.versions.node}, ${library} ${version}`);
for await (const line of createInterface({ input: process.stdin })) {
  const [inFlight, milliseconds] = line.split(" ").map(Number);
  console.log(JSON.stringify(await run(call, inFlight, milliseconds)));
}
process.exit(0);

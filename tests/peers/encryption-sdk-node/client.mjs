// Opens and seals files with the AWS Encryption SDK for JavaScript, for ../../message_peers.rs: the plan, and what is printed, are those of
// ../encryption-sdk/client.py.
import { createRequire } from "node:module";
import { createReadStream, createWriteStream, readFileSync } from "node:fs";
import { pipeline } from "node:stream/promises";

// Where `../install` has put it.
const require = createRequire(process.argv[2]);
const { AlgorithmSuiteIdentifier, CommitmentPolicy, KmsKeyringNode, buildClient } = require("@aws-crypto/client-node");

const plan = JSON.parse(readFileSync(process.argv[3]));
const [generatorKeyId, ...keyIds] = plan.keys;
const keyring = new KmsKeyringNode({ generatorKeyId, keyIds });
const strict = buildClient(CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT);
const old = buildClient(CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT);
const say = (fields) => console.log(JSON.stringify(fields));

for (const path of plan.open) {
  let header;
  const opening = strict.decryptUnsignedMessageStream(keyring).once("MessageHeader", (seen) => (header = seen));
  await pipeline(createReadStream(path), opening, createWriteStream(`${path}.opened`));
  say({ opened: path, suite: AlgorithmSuiteIdentifier[header.suiteId], context: header.encryptionContext });
}
for (const wish of plan.seal) {
  const sealing = (wish.committing ? strict : old).encryptStream(keyring, {
    suiteId: AlgorithmSuiteIdentifier[wish.suite],
    encryptionContext: wish.context,
    frameLength: wish.frame_length,
  });
  await pipeline(createReadStream(wish.plaintext), sealing, createWriteStream(wish.to));
  say({ sealed: wish.to });
}

// Opens and seals files with the AWS Encryption SDK for JavaScript, for ../../message_peers.rs: the plan, and what is printed, are those of
// ../encryption-sdk/client.py.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";

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
  const { plaintext, messageHeader } = await strict.decrypt(keyring, readFileSync(path));
  writeFileSync(`${path}.opened`, plaintext);
  say({ opened: path, suite: messageHeader.suiteId, context: messageHeader.encryptionContext });
}
for (const wish of plan.seal) {
  const { result } = await (wish.committing ? strict : old).encrypt(keyring, readFileSync(wish.plaintext), {
    suiteId: AlgorithmSuiteIdentifier[wish.suite],
    encryptionContext: plan.context,
    frameLength: wish.frame_length,
  });
  writeFileSync(wish.to, result);
  say({ sealed: wish.to });
}

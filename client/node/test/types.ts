// Proves, when it compiles: the package's types hold for whoever uses it, under the strictest rules.
import { KeyBrokerError, connect, type DecryptedMessage } from "@key-broker/client";

using broker = connect();
const message: Buffer = await broker.encrypt("hello", "alias/dev", { tenant: "acme" });
const opened: DecryptedMessage = await broker.decryptMessage(message);
const tenant: string | undefined = opened.encryptionContext["tenant"];
try {
  using key = await broker.dataKey("alias/dev", {}, { reuse: { fresh: true } });
  key.plaintext.byteLength.toFixed();
} catch (error) {
  if (error instanceof KeyBrokerError && error.code === "PERMISSION_DENIED") console.log(error.reason?.length, tenant);
}
for await (const part of await broker.decryptStream([message])) part.byteLength.toFixed();
// @ts-expect-error: a key has to be named.
await broker.encrypt("hello");
const pair = await broker.dataKeyPair("alias/dev", {}, "ECC_NIST_P256");
pair.privateKey.byteLength.toFixed();
// @ts-expect-error: KMS makes no such pair.
await broker.dataKeyPair("alias/dev", {}, "RSA_512");

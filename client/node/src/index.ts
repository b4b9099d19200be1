/**
 * Encrypts and decrypts with AWS KMS through the key-broker beside this process, which needs no AWS credentials.
 *
 * ```js
 * const broker = connect();
 * const message = await broker.encrypt("hello", "alias/dev", { tenant: "acme" });
 * const plaintext = await broker.decrypt(message, { tenant: "acme" });
 * ```
 *
 * @module
 */
export { DEFAULT_ADDRESS, type Tls } from "./address.js";
export { Client, connect, type ConnectOptions } from "./client.js";
export { KeyBrokerError } from "./errors.js";
export {
  DEFAULT_DEADLINE_MS,
  STREAM_DEADLINE_MS,
  type Bound,
  type CallOptions,
  type DataKeyOptions,
  type DecryptOptions,
  type DecryptStreamOptions,
  type EncryptStreamOptions,
  type EncryptionContext,
  type KeyPairSpec,
  type Reuse,
} from "./options.js";
export { MessageStream, type Source } from "./stream.js";
export {
  DataKey,
  DataKeyPair,
  type Ciphertext,
  type DecryptedMessage,
  type KeyDescription,
  type Provenance,
  type SealedDataKeyPair,
} from "./values.js";
export { VERSION } from "./version.js";

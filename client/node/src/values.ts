import { timestampDate } from "@bufbuild/protobuf/wkt";

import { Provenance_Source, type Provenance as SentProvenance } from "./stubs/key_broker_pb.js";
import type { EncryptionContext } from "./options.js";

/** Where an answer came from. */
export interface Provenance {
  /** Whether an earlier call to KMS had made it. */
  isCached: boolean;
  /** The requestID of the call to KMS behind it, as AWS CloudTrail has it. */
  kmsRequestId: string;
  /** When KMS answered. */
  mintedAt: Date;
}

/** A message that was decrypted, and what it was bound to. */
export interface DecryptedMessage {
  plaintext: Buffer;
  /** All of the message's encryption context, authentic. */
  encryptionContext: EncryptionContext;
  /** The ARN of the KMS key that decrypted its data key. */
  keyId: string;
  provenance: Provenance;
}

/** What KMS knows about a key. Values as in the AWS KMS API reference, KeyMetadata. */
export interface KeyDescription {
  arn: string;
  keySpec: string;
  keyUsage: string;
  keyState: string;
  multiRegion: boolean;
  origin: string;
  keyManager: string;
  description: string;
}

/**
 * A data key, for what is too large to be sent to the broker. `close` erases it, as does the end of a block that has it by `using`.
 *
 * Others may have the same data key, and so may an earlier call: take a random nonce for each message, never a counter.
 *
 * Erased are the bytes that gRPC decoded. What the socket read is not: Node uses it again for other data some time. What must not be in
 * this process at all is what `Client.encrypt` is for.
 */
export class DataKey {
  /** The data key encrypted under the KMS key: keep it, and keyId, beside what the data key encrypts. */
  readonly ciphertextBlob: Buffer;
  /** The ARN of the KMS key. */
  readonly keyId: string;
  readonly provenance: Provenance;
  #plaintext: Buffer | undefined;

  /** @internal */
  constructor(plaintext: Buffer, ciphertextBlob: Buffer, keyId: string, provenance: Provenance) {
    this.#plaintext = plaintext;
    this.ciphertextBlob = ciphertextBlob;
    this.keyId = keyId;
    this.provenance = provenance;
  }

  /** The data key. Copies of it are not erased. */
  get plaintext(): Buffer {
    if (this.#plaintext === undefined) throw new TypeError("this data key is closed, and erased");
    return this.#plaintext;
  }

  /** Erases it. */
  close(): void {
    this.#plaintext?.fill(0);
    this.#plaintext = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** What KMS encrypted directly under a key. */
export interface Ciphertext {
  /** At most 6,144 bytes. */
  ciphertextBlob: Buffer;
  /** The ARN of the KMS key: keep it beside ciphertextBlob. */
  keyId: string;
  provenance: Provenance;
}

/** A data key pair whose private key is encrypted. */
export interface SealedDataKeyPair {
  /** The private key encrypted under the KMS key, for `decryptDataKey`: keep it, and keyId. */
  readonly privateKeyCiphertextBlob: Buffer;
  /** SubjectPublicKeyInfo (RFC 5280) in DER. */
  readonly publicKey: Buffer;
  /** The ARN of the KMS key. */
  readonly keyId: string;
  readonly provenance: Provenance;
}

/** An asymmetric data key pair. `close` erases the private key, as of a `DataKey`. */
export class DataKeyPair implements SealedDataKeyPair {
  readonly privateKeyCiphertextBlob: Buffer;
  readonly publicKey: Buffer;
  readonly keyId: string;
  readonly provenance: Provenance;
  #privateKey: Buffer | undefined;

  /** @internal */
  constructor(privateKey: Buffer, sealed: SealedDataKeyPair) {
    this.#privateKey = privateKey;
    this.privateKeyCiphertextBlob = sealed.privateKeyCiphertextBlob;
    this.publicKey = sealed.publicKey;
    this.keyId = sealed.keyId;
    this.provenance = sealed.provenance;
  }

  /** The private key: PKCS #8 (RFC 5958) in DER. Copies of it are not erased. */
  get privateKey(): Buffer {
    if (this.#privateKey === undefined) throw new TypeError("this data key pair is closed, and erased");
    return this.#privateKey;
  }

  /** Erases the private key. */
  close(): void {
    this.#privateKey?.fill(0);
    this.#privateKey = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The bytes as a Buffer, not copied. */
export function buffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function provenance(sent: SentProvenance | undefined): Provenance {
  return {
    isCached: sent?.servedFrom === Provenance_Source.CACHE,
    kmsRequestId: sent?.kmsRequestId ?? "",
    mintedAt: sent?.mintedAt === undefined ? new Date(0) : timestampDate(sent.mintedAt),
  };
}

/** How long a call may take unless told otherwise. */
export const DEFAULT_DEADLINE_MS = 10_000;

/** How long a stream may take unless told otherwise. */
export const STREAM_DEADLINE_MS = 600_000;

/** Facts bound to what is encrypted. */
export type EncryptionContext = Readonly<Record<string, string>>;

/** Tightens the broker's bounds of reuse for one call; never widens them. */
export interface Reuse {
  maxAgeSeconds?: number;
  maxMessages?: number;
  maxBytes?: number;
  /** A data key that nobody else has had or will get: one call to KMS. */
  fresh?: boolean;
}

/** What every call may be given. */
export interface CallOptions {
  /** Milliseconds until the call ends with DEADLINE_EXCEEDED. */
  deadlineMs?: number;
  /** Ends the call. */
  signal?: AbortSignal;
  /** Tighter bounds for the data key. */
  reuse?: Reuse;
  /** KMS grant tokens. */
  grantTokens?: readonly string[];
}

export interface DecryptOptions extends CallOptions {
  /** The KMS key that the message has to be of. */
  keyId?: string;
}

export interface EncryptStreamOptions extends CallOptions {
  /** How many bytes will come. Without it, the message takes a call to KMS of its own. */
  length?: number | bigint;
}

export interface DecryptStreamOptions extends DecryptOptions {
  /** Take messages that are signed, too: nothing of the plaintext may be used before the stream has ended without an error. */
  releaseBeforeSignature?: boolean;
}

export interface DataKeyOptions extends CallOptions {
  /** Its length in bytes; 32 unless told otherwise. */
  length?: number;
  /** How many messages it will encrypt; 1 unless told otherwise. */
  messages?: number;
  /** How many bytes they have together. */
  bytes?: number;
}

/** The kind of a data key pair, as in the AWS KMS API reference. */
export type KeyPairSpec =
  | "RSA_2048"
  | "RSA_3072"
  | "RSA_4096"
  | "ECC_NIST_P256"
  | "ECC_NIST_P384"
  | "ECC_NIST_P521"
  | "ECC_SECG_P256K1";

/** A ciphertext's KMS key, and what it is bound to. */
export interface Bound {
  /** Take that of the ciphertext, not an alias. */
  keyId: string;
  /** Exactly the one that it was encrypted with. */
  context?: EncryptionContext;
}

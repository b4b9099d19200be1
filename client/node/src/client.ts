import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { DescMessage, DescMethodBiDiStreaming, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Client as GrpcClient, type ServiceError } from "@grpc/grpc-js";

import { target, type Tls } from "./address.js";
import { channelCredentials, channelOptions } from "./channel.js";
import { BEGINNINGS, KeyBrokerError, brokeOff } from "./errors.js";
import {
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
} from "./options.js";
import { MessageStream, type Reply, type Source } from "./stream.js";
import {
  DecryptMessageStreamResponseSchema,
  EncryptMessageStreamResponseSchema,
  KeyBroker,
  KeyPairSpec as PairSpec,
  KeySpec,
  type EncryptResponse,
  type GenerateDataKeyPairResponse,
  type GenerateDataKeyPairWithoutPlaintextResponse,
  type GenerateDataKeyRequest,
} from "./stubs/key_broker_pb.js";
import { traced } from "./tracing.js";
import {
  DataKey,
  DataKeyPair,
  buffer,
  provenance,
  type Ciphertext,
  type DecryptedMessage,
  type KeyDescription,
  type SealedDataKeyPair,
} from "./values.js";

export interface ConnectOptions {
  /** For a broker that is not on this machine: mutual TLS. */
  tls?: Tls;
  /** How long a call may take that has no deadline of its own. */
  deadlineMs?: number;
}

/**
 * A client of the broker at `address`: `unix:PATH`, or `127.0.0.1:PORT`, or `HOST:PORT` with `tls`.
 *
 * Without one, the environment variable KEY_BROKER_ADDRESS says where the broker is, else it is at `unix:///run/key-broker/broker.sock`.
 * The connection is made with the first call, and again whenever it broke off.
 */
export function connect(address?: string, options: ConnectOptions = {}): Client {
  return new Client(target(address, options.tls), options);
}

/** A connection to the broker. Made by `connect`. It keeps no process alive. */
export class Client {
  readonly #grpc: GrpcClient;
  readonly #target: string;
  readonly #deadlineMs: number;

  /** @internal */
  constructor(target: string, options: ConnectOptions) {
    this.#grpc = new GrpcClient(target, channelCredentials(options.tls), channelOptions(options.tls));
    this.#target = target;
    this.#deadlineMs = options.deadlineMs ?? DEFAULT_DEADLINE_MS;
  }

  /**
   * Encrypts a message of at most 3 MiB; what is longer goes by `encryptStream`. A string is encrypted as UTF-8.
   *
   * `context` is bound to the message, which has it in clear. What comes back is a message of the AWS Encryption SDK.
   */
  async encrypt(
    plaintext: Uint8Array | string,
    keyId: string,
    context: EncryptionContext = {},
    options: CallOptions = {},
  ): Promise<Buffer> {
    const bytes = typeof plaintext === "string" ? Buffer.from(plaintext) : plaintext;
    const request = { ...common(context, options), keyId, plaintext: bytes };
    return buffer((await this.#call(KeyBroker.method.encryptMessage, request, options)).message);
  }

  /** Decrypts a message of `encrypt`, or of an AWS Encryption SDK. Its encryption context must have all of `context`. */
  async decrypt(message: Uint8Array, context: EncryptionContext = {}, options: DecryptOptions = {}): Promise<Buffer> {
    return (await this.decryptMessage(message, context, options)).plaintext;
  }

  /** As `decrypt`, with all of the message's encryption context, which is authentic. */
  async decryptMessage(
    message: Uint8Array,
    context: EncryptionContext = {},
    options: DecryptOptions = {},
  ): Promise<DecryptedMessage> {
    const request = { ...common(context, options), keyId: options.keyId ?? "", message };
    const reply = await this.#call(KeyBroker.method.decryptMessage, request, options);
    return {
      plaintext: buffer(reply.plaintext),
      encryptionContext: reply.encryptionContext,
      keyId: reply.keyId,
      provenance: provenance(reply.provenance),
    };
  }

  /**
   * Encrypts a message of any length, part by part, from a stream or whatever else can be iterated. It is whole only when the stream has
   * ended without an error.
   */
  async encryptStream(
    plaintext: Source,
    keyId: string,
    context: EncryptionContext = {},
    options: EncryptStreamOptions = {},
  ): Promise<MessageStream> {
    const length = options.length === undefined ? {} : { plaintextLength: BigInt(options.length) };
    const start = { part: { case: "start" as const, value: { ...common(context, options), keyId, ...length } } };
    const part = (bytes: Uint8Array) => ({ part: { case: "plaintext" as const, value: bytes } });
    const reply = (bytes: Buffer): Reply => {
      const { message, keyId, provenance } = fromBinary(EncryptMessageStreamResponseSchema, bytes);
      return { bytes: message, keyId, provenance };
    };
    return this.#stream(KeyBroker.method.encryptMessageStream, start, plaintext, part, reply, options);
  }

  /**
   * Decrypts a message of any length. Every part is authentic, but the end may be missing until the stream has ended without an error.
   */
  async decryptStream(
    message: Source,
    context: EncryptionContext = {},
    options: DecryptStreamOptions = {},
  ): Promise<MessageStream> {
    const more = { keyId: options.keyId ?? "", releaseBeforeSignature: options.releaseBeforeSignature ?? false };
    const start = { part: { case: "start" as const, value: { ...common(context, options), ...more } } };
    const part = (bytes: Uint8Array) => ({ part: { case: "message" as const, value: bytes } });
    const reply = (bytes: Buffer): Reply => {
      const { plaintext, keyId, provenance, encryptionContext } = fromBinary(DecryptMessageStreamResponseSchema, bytes);
      return { bytes: plaintext, keyId, provenance, encryptionContext };
    };
    return this.#stream(KeyBroker.method.decryptMessageStream, start, message, part, reply, options);
  }

  /** A data key, to encrypt with in this process. */
  async dataKey(keyId: string, context: EncryptionContext = {}, options: DataKeyOptions = {}): Promise<DataKey> {
    const reply = await this.#call(KeyBroker.method.generateDataKey, dataKey(keyId, context, options), options);
    return new DataKey(buffer(reply.plaintext), buffer(reply.ciphertextBlob), reply.keyId, provenance(reply.provenance));
  }

  /** A data key in encrypted form only, for somebody who may decrypt it later, with `decryptDataKey`. */
  async dataKeyWithoutPlaintext(
    keyId: string,
    context: EncryptionContext = {},
    options: DataKeyOptions = {},
  ): Promise<Ciphertext> {
    const request = dataKey(keyId, context, options);
    return ciphertext(await this.#call(KeyBroker.method.generateDataKeyWithoutPlaintext, request, options));
  }

  /**
   * The same data key again. `keyId` and `context` are those of `dataKey`; take `DataKey.keyId`, not an alias. So is the private key of a
   * `dataKeyPair`, from its `privateKeyCiphertextBlob`.
   */
  async decryptDataKey(
    ciphertextBlob: Uint8Array,
    keyId: string,
    context: EncryptionContext = {},
    options: CallOptions = {},
  ): Promise<DataKey> {
    const request = { ...common(context, options), keyId, ciphertextBlob };
    const reply = await this.#call(KeyBroker.method.decrypt, request, options);
    return new DataKey(buffer(reply.plaintext), buffer(ciphertextBlob), reply.keyId, provenance(reply.provenance));
  }

  /** A new asymmetric data key pair, its private key in plaintext and encrypted under the KMS key. Pairs are never cached. */
  async dataKeyPair(
    keyId: string,
    context: EncryptionContext,
    spec: KeyPairSpec,
    options: CallOptions = {},
  ): Promise<DataKeyPair> {
    const request = dataKeyPair(keyId, context, spec, options);
    const reply = await this.#call(KeyBroker.method.generateDataKeyPair, request, options);
    return new DataKeyPair(buffer(reply.privateKeyPlaintext), sealedPair(reply));
  }

  /** The same with the private key in encrypted form only, for somebody who may decrypt it later, with `decryptDataKey`. */
  async dataKeyPairWithoutPlaintext(
    keyId: string,
    context: EncryptionContext,
    spec: KeyPairSpec,
    options: CallOptions = {},
  ): Promise<SealedDataKeyPair> {
    const request = dataKeyPair(keyId, context, spec, options);
    return sealedPair(await this.#call(KeyBroker.method.generateDataKeyPairWithoutPlaintext, request, options));
  }

  /**
   * Encrypts 1 to 4,096 bytes directly under the KMS key: a password, a token. Every call goes to KMS: `encrypt` is faster and cheaper for
   * many. `decryptValue` reverses it; keep `keyId` beside `ciphertextBlob`.
   */
  async encryptValue(
    plaintext: Uint8Array | string,
    keyId: string,
    context: EncryptionContext = {},
    options: CallOptions = {},
  ): Promise<Ciphertext> {
    const bytes = typeof plaintext === "string" ? Buffer.from(plaintext) : plaintext;
    const request = { keyId, plaintext: bytes, encryptionContext: context, grantTokens: [...(options.grantTokens ?? [])] };
    return ciphertext(await this.#call(KeyBroker.method.encrypt, request, options));
  }

  /** Decrypts a ciphertext of `encryptValue` or `reEncrypt`. `context` is exactly the one that it was encrypted with. */
  async decryptValue(
    ciphertextBlob: Uint8Array,
    keyId: string,
    context: EncryptionContext = {},
    options: CallOptions = {},
  ): Promise<Buffer> {
    const request = { ...common(context, options), keyId, ciphertextBlob };
    return buffer((await this.#call(KeyBroker.method.decrypt, request, options)).plaintext);
  }

  /**
   * Encrypts a KMS ciphertext anew, under another key or encryption context: of `encryptValue`, or of a data key. Its plaintext never leaves
   * KMS.
   */
  async reEncrypt(
    ciphertextBlob: Uint8Array,
    source: Bound,
    destination: Bound,
    options: CallOptions = {},
  ): Promise<Ciphertext> {
    const request = {
      ciphertextBlob,
      sourceKeyId: source.keyId,
      sourceEncryptionContext: source.context ?? {},
      destinationKeyId: destination.keyId,
      destinationEncryptionContext: destination.context ?? {},
      grantTokens: [...(options.grantTokens ?? [])],
    };
    return ciphertext(await this.#call(KeyBroker.method.reEncrypt, request, options));
  }

  /** Random bytes made by KMS, 1 to 1,024. */
  async random(numberOfBytes: number, options: Pick<CallOptions, "deadlineMs" | "signal"> = {}): Promise<Buffer> {
    return buffer((await this.#call(KeyBroker.method.generateRandom, { numberOfBytes }, options)).plaintext);
  }

  /** What KMS knows about a key. */
  async describeKey(keyId: string, options: Pick<CallOptions, "deadlineMs" | "signal"> = {}): Promise<KeyDescription> {
    const reply = await this.#call(KeyBroker.method.describeKey, { keyId }, options);
    const { arn, keySpec, keyUsage, keyState, multiRegion, origin, keyManager, description } = reply;
    return { arn, keySpec, keyUsage, keyState, multiRegion, origin, keyManager, description };
  }

  /** Closes the connection. Calls in flight fail. */
  close(): void {
    this.#grpc.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    init: MessageInitShape<I>,
    options: CallOptions,
  ): Promise<MessageShape<O>> {
    const deadline = Date.now() + (options.deadlineMs ?? this.#deadlineMs);
    const request = create(method.input, init);
    for (let begun = 1; ; begun += 1) {
      try {
        return await this.#begin(method, request, deadline, options.signal);
      } catch (error) {
        if (!brokeOff(error) || begun === BEGINNINGS) throw error;
      }
    }
  }

  async #begin<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    deadline: number,
    signal: AbortSignal | undefined,
  ): Promise<MessageShape<O>> {
    signal?.throwIfAborted();
    const metadata = await traced();
    return new Promise((resolve, reject) => {
      const abort = () => call.cancel();
      const call = this.#grpc.makeUnaryRequest(
        path(method),
        (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message)),
        (bytes: Buffer) => fromBinary(method.output, bytes),
        request,
        metadata,
        { deadline },
        (error: ServiceError | null, reply?: MessageShape<O>) => {
          signal?.removeEventListener("abort", abort);
          if (signal?.aborted) reject(signal.reason);
          else if (error === null && reply !== undefined) resolve(reply);
          else reject(new KeyBrokerError(error as ServiceError, this.#target));
        },
      );
      signal?.addEventListener("abort", abort);
    });
  }

  async #stream<I extends DescMessage>(
    method: DescMethodBiDiStreaming<I>,
    start: MessageInitShape<I>,
    source: Source,
    part: (bytes: Uint8Array) => MessageInitShape<I>,
    reply: (bytes: Buffer) => Reply,
    options: CallOptions,
  ): Promise<MessageStream> {
    options.signal?.throwIfAborted();
    const deadline = Date.now() + (options.deadlineMs ?? STREAM_DEADLINE_MS);
    const call = this.#grpc.makeBidiStreamRequest(
      path(method),
      (message: unknown) => Buffer.from(toBinary(method.input, create(method.input, message as MessageInitShape<I>))),
      reply,
      await traced(),
      { deadline },
    );
    return MessageStream.open(call, start, source, part, options.signal, this.#target);
  }
}

function path(method: { parent: { typeName: string }; name: string }): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function common(context: EncryptionContext, options: CallOptions) {
  const { reuse, grantTokens = [] } = options;
  return {
    encryptionContext: context,
    grantTokens: [...grantTokens],
    ...(reuse === undefined
      ? {}
      : {
          reuse: {
            maxAgeSeconds: reuse.maxAgeSeconds ?? 0,
            maxMessages: BigInt(reuse.maxMessages ?? 0),
            maxBytes: BigInt(reuse.maxBytes ?? 0),
            fresh: reuse.fresh ?? false,
          },
        }),
  };
}

function dataKey(keyId: string, context: EncryptionContext, options: DataKeyOptions) {
  const use = { messages: BigInt(options.messages ?? 1), bytes: BigInt(options.bytes ?? 0) };
  return { ...common(context, options), keyId, use, length: length(options.length ?? 32) };
}

function dataKeyPair(keyId: string, context: EncryptionContext, spec: KeyPairSpec, options: CallOptions) {
  const { encryptionContext, grantTokens } = common(context, options);
  return { keyId, keyPairSpec: PairSpec[spec], encryptionContext, grantTokens };
}

function ciphertext(reply: Pick<EncryptResponse, "ciphertextBlob" | "keyId" | "provenance">): Ciphertext {
  return { ciphertextBlob: buffer(reply.ciphertextBlob), keyId: reply.keyId, provenance: provenance(reply.provenance) };
}

function sealedPair(reply: GenerateDataKeyPairResponse | GenerateDataKeyPairWithoutPlaintextResponse): SealedDataKeyPair {
  return {
    privateKeyCiphertextBlob: buffer(reply.privateKeyCiphertextBlob),
    publicKey: buffer(reply.publicKey),
    keyId: reply.keyId,
    provenance: provenance(reply.provenance),
  };
}

function length(bytes: number): GenerateDataKeyRequest["length"] {
  if (bytes === 32) return { case: "keySpec", value: KeySpec.AES_256 };
  if (bytes === 16) return { case: "keySpec", value: KeySpec.AES_128 };
  return { case: "numberOfBytes", value: bytes };
}

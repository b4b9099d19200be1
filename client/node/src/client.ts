import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { DescMessage, DescMethodBiDiStreaming, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Client as GrpcClient, type ServiceError } from "@grpc/grpc-js";

import { target, type Tls } from "./address.js";
import { channelCredentials, channelOptions } from "./channel.js";
import { BEGINNINGS, KeyBrokerError, brokeOff } from "./errors.js";
import {
  DEFAULT_DEADLINE_MS,
  STREAM_DEADLINE_MS,
  type CallOptions,
  type DataKeyOptions,
  type DecryptOptions,
  type DecryptStreamOptions,
  type EncryptStreamOptions,
  type EncryptionContext,
} from "./options.js";
import { MessageStream, type Reply, type Source } from "./stream.js";
import {
  DecryptMessageStreamResponseSchema,
  EncryptMessageStreamResponseSchema,
  KeyBroker,
  KeySpec,
  type GenerateDataKeyRequest,
} from "./stubs/key_broker_pb.js";
import { traced } from "./tracing.js";
import { DataKey, buffer, provenance, type DecryptedMessage, type KeyDescription } from "./values.js";

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
    const use = { messages: BigInt(options.messages ?? 1), bytes: BigInt(options.bytes ?? 0) };
    const request = { ...common(context, options), keyId, use, length: length(options.length ?? 32) };
    const reply = await this.#call(KeyBroker.method.generateDataKey, request, options);
    return new DataKey(buffer(reply.plaintext), buffer(reply.ciphertextBlob), reply.keyId, provenance(reply.provenance));
  }

  /** The same data key again. `keyId` and `context` are those of `dataKey`; take `DataKey.keyId`, not an alias. */
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

function length(bytes: number): GenerateDataKeyRequest["length"] {
  if (bytes === 32) return { case: "keySpec", value: KeySpec.AES_256 };
  if (bytes === 16) return { case: "keySpec", value: KeySpec.AES_128 };
  return { case: "numberOfBytes", value: bytes };
}

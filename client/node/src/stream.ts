import type { ClientDuplexStream, ServiceError } from "@grpc/grpc-js";

import { KeyBrokerError } from "./errors.js";
import type { EncryptionContext } from "./options.js";
import { buffer, provenance, type Provenance } from "./values.js";

/** What a stream reads: a Readable, or whatever else gives chunks of any length. */
export type Source = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

// Well below the largest request, and large enough that frames cost little.
const CHUNK = 65_536;

/** @internal What the answers of both streams have. */
export interface Reply {
  bytes: Uint8Array;
  keyId: string;
  provenance: Parameters<typeof provenance>[0];
  encryptionContext?: EncryptionContext;
}

type Call = ClientDuplexStream<unknown, Reply>;

/** The parts of a message, in order: for `for await`, `stream.pipeline` and `Readable.from`. Leaving it early ends the call. */
export class MessageStream implements AsyncIterable<Buffer> {
  /** The ARN of the KMS key. */
  readonly keyId: string;
  /** Where the message's data key came from. */
  readonly provenance: Provenance;
  /** Of a stream that decrypts: all of the message's encryption context, authentic. */
  readonly encryptionContext: EncryptionContext;
  readonly #parts: AsyncGenerator<Buffer>;

  private constructor(first: Reply, parts: AsyncGenerator<Buffer>) {
    this.keyId = first.keyId;
    this.provenance = provenance(first.provenance);
    this.encryptionContext = first.encryptionContext ?? {};
    this.#parts = parts;
  }

  [Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    return this.#parts;
  }

  /** @internal */
  static async open(
    call: Call,
    start: unknown,
    source: Source,
    part: (bytes: Uint8Array) => unknown,
    signal: AbortSignal | undefined,
    target: string,
  ): Promise<MessageStream> {
    const abort = () => call.cancel();
    signal?.addEventListener("abort", abort);
    const sending = new Sending(call);
    void sending.all(start, source, part);
    const replies = call[Symbol.asyncIterator]();
    const next = async (): Promise<Reply | undefined> => {
      try {
        const { done, value } = await replies.next();
        return done ? undefined : value;
      } catch (error) {
        signal?.throwIfAborted();
        throw sending.failure ?? new KeyBrokerError(error as ServiceError, target);
      }
    };
    async function* parts(): AsyncGenerator<Buffer> {
      try {
        for (let reply = await next(); reply !== undefined; reply = await next()) {
          if (reply.bytes.length > 0) yield buffer(reply.bytes);
        }
      } finally {
        signal?.removeEventListener("abort", abort);
        call.cancel();
      }
    }
    const first = await next();
    if (first === undefined) throw new TypeError("the broker ended the stream before it began: is it a key-broker?");
    return new MessageStream(first, parts());
  }
}

/** What a stream sends, and why its source failed, if it did. */
class Sending {
  failure: unknown;
  readonly #call: Call;
  readonly #ended: Promise<unknown>;
  #hasEnded = false;

  constructor(call: Call) {
    this.#call = call;
    this.#ended = new Promise<void>((resolve) => {
      call.once("status", () => {
        this.#hasEnded = true;
        resolve();
      });
    });
  }

  async all(start: unknown, source: Source, part: (bytes: Uint8Array) => unknown): Promise<void> {
    try {
      await this.#write(start);
      for await (const chunk of source) {
        for (let at = 0; at < chunk.length && !this.#hasEnded; at += CHUNK) {
          await this.#write(part(chunk.subarray(at, at + CHUNK)));
        }
        if (this.#hasEnded) return;
      }
      this.#call.end();
    } catch (error) {
      // The message has no end now, and must not look as if it had.
      this.failure = error;
      this.#call.cancel();
    }
  }

  async #write(message: unknown): Promise<void> {
    if (this.#call.write(message) || this.#hasEnded) return;
    await Promise.race([new Promise((resolve) => this.#call.once("drain", resolve)), this.#ended]);
  }
}

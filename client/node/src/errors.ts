import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Metadata, status, type ServiceError } from "@grpc/grpc-js";

import { ErrorInfoSchema, RetryInfoSchema } from "./stubs/google/rpc/error_details_pb.js";
import { StatusSchema } from "./stubs/google/rpc/status_pb.js";

/** A call that failed. Its message is for a person, its other properties are for programs. */
export class KeyBrokerError extends Error {
  override readonly name = "KeyBrokerError";
  /** The gRPC code, such as `INVALID_ARGUMENT`. */
  readonly code: keyof typeof status;
  /** The error's name, such as `KEY_DISABLED`: the table is in the contract. Undefined where the broker did not answer. */
  readonly reason: string | undefined;
  /** `kms.amazonaws.com` where AWS KMS itself gave this answer, else `keybroker`. */
  readonly domain: string | undefined;
  /** The broker's id of the call, in its audit trail. */
  readonly requestId: string | undefined;
  /** The requestID of KMS's answer, as AWS CloudTrail has it. */
  readonly kmsRequestId: string | undefined;
  /** How long to wait before trying again; undefined where trying again cannot help. */
  readonly retryDelayMs: number | undefined;

  /** @internal */
  constructor(error: ServiceError, target: string) {
    const details = read(error.metadata);
    super(words(error, details, target), { cause: error });
    this.code = status[error.code] as keyof typeof status;
    this.reason = details.reason;
    this.domain = details.domain;
    this.requestId = details.requestId;
    this.kmsRequestId = details.kmsRequestId;
    this.retryDelayMs = details.retryDelayMs;
  }

  /** Whether the broker's own policy or configuration refused the call: the same call will fail again. */
  get isDenied(): boolean {
    return this.code === "PERMISSION_DENIED";
  }

  /** Whether the same call may succeed later, `retryDelayMs` from now. The client has tried several times already. */
  get isRetryable(): boolean {
    return this.retryDelayMs !== undefined || this.code === "UNAVAILABLE";
  }
}

/** How often a call may begin anew whose connection broke off while its answer was coming: gRPC's own retries end where that begins. */
export const BEGINNINGS = 3;

/** Whether the connection ended the call, and not the broker, which always gives a reason. Every call may be made again. */
export function brokeOff(error: unknown): boolean {
  return error instanceof KeyBrokerError && error.code === "UNAVAILABLE" && error.reason === undefined;
}

interface Details {
  reason?: string;
  domain?: string;
  requestId: string | undefined;
  kmsRequestId: string | undefined;
  retryDelayMs?: number;
}

function read(metadata: Metadata | undefined): Details {
  const made: Details = { requestId: text(metadata, "x-request-id"), kmsRequestId: text(metadata, "x-amzn-requestid") };
  const [sent] = metadata?.get("grpc-status-details-bin") ?? [];
  if (!Buffer.isBuffer(sent)) return made;
  for (const any of fromBinary(StatusSchema, sent).details) {
    const info = anyUnpack(any, ErrorInfoSchema);
    if (info !== undefined) {
      made.reason = info.reason;
      made.domain = info.domain;
      made.requestId = info.metadata["requestID"] ?? made.requestId;
      made.kmsRequestId = info.metadata["kmsRequestID"] ?? made.kmsRequestId;
    }
    const delay = anyUnpack(any, RetryInfoSchema)?.retryDelay;
    if (delay !== undefined) made.retryDelayMs = Number(delay.seconds) * 1_000 + delay.nanos / 1e6;
  }
  return made;
}

function words(error: ServiceError, details: Details, target: string): string {
  if (error.code === status.DEADLINE_EXCEEDED && details.reason === undefined) {
    return `no answer from the broker at ${target} within the deadline: is it running there, and may this user connect? (${error.details})`;
  }
  const facts = [
    ["reason", details.reason],
    ["x-request-id", details.requestId],
    ["x-amzn-requestid", details.kmsRequestId],
  ];
  return error.details + facts.map(([name, value]) => (value ? ` [${name} ${value}]` : "")).join("");
}

function text(metadata: Metadata | undefined, name: string): string | undefined {
  const [value] = metadata?.get(name) ?? [];
  return typeof value === "string" ? value : undefined;
}

package io.keybroker;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.Optional;

/** A call that failed. Its message is for a person, the rest is for programs. */
public final class KeyBrokerException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final Status.Code code;
  private final String reason;
  private final String domain;
  private final String requestId;
  private final String kmsRequestId;
  private final Duration retryDelay;

  private KeyBrokerException(String message, Throwable cause, Status.Code code, Details details) {
    super(message, cause);
    this.code = code;
    this.reason = details.reason;
    this.domain = details.domain;
    this.requestId = details.requestId;
    this.kmsRequestId = details.kmsRequestId;
    this.retryDelay = details.retryDelay;
  }

  static KeyBrokerException of(StatusRuntimeException error, Address address) {
    var status = error.getStatus();
    var details = Details.of(error);
    var words = status.getDescription() == null ? status.getCode().name() : status.getDescription();
    if (status.getCode() == Status.Code.DEADLINE_EXCEEDED && details.reason == null) {
      words = "no answer from the broker at " + address + " within the deadline: is it running there, and may this user connect? (" + words + ")";
    }
    var message = words + fact("reason", details.reason) + fact("x-request-id", details.requestId) + fact("x-amzn-requestid", details.kmsRequestId);
    return new KeyBrokerException(message, error, status.getCode(), details);
  }

  private static String fact(String name, String value) {
    return value == null ? "" : " [" + name + " " + value + "]";
  }

  /** The gRPC code. */
  public Status.Code code() {
    return code;
  }

  /** The error's name, such as KEY_DISABLED: the table is in the contract. Empty where the broker did not answer. */
  public Optional<String> reason() {
    return Optional.ofNullable(reason);
  }

  /** kms.amazonaws.com where AWS KMS itself gave this answer, else keybroker. */
  public Optional<String> domain() {
    return Optional.ofNullable(domain);
  }

  /** The broker's id of the call, in its audit trail. */
  public Optional<String> requestId() {
    return Optional.ofNullable(requestId);
  }

  /** The requestID of KMS's answer, as AWS CloudTrail has it. */
  public Optional<String> kmsRequestId() {
    return Optional.ofNullable(kmsRequestId);
  }

  /** How long to wait before trying again; empty where trying again cannot help. */
  public Optional<Duration> retryDelay() {
    return Optional.ofNullable(retryDelay);
  }

  /** Whether the broker's own policy or configuration refused the call: the same call will fail again. */
  public boolean isDenied() {
    return code == Status.Code.PERMISSION_DENIED;
  }

  /** Whether the same call may succeed later, {@link #retryDelay()} from now. The client has tried several times already. */
  public boolean isRetryable() {
    return retryDelay != null || code == Status.Code.UNAVAILABLE;
  }

  /** Whether the connection ended the call, or the broker cannot serve any for now. Every call may be made again. */
  boolean isOfBrokerAway() {
    return code == Status.Code.UNAVAILABLE || (reason == null && code == Status.Code.UNKNOWN);
  }

  /** What an error says of itself. */
  private static final class Details {
    private String reason;
    private String domain;
    private String requestId;
    private String kmsRequestId;
    private Duration retryDelay;

    static Details of(StatusRuntimeException error) {
      var made = new Details();
      if (error.getTrailers() != null) {
        made.requestId = error.getTrailers().get(Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER));
        made.kmsRequestId = error.getTrailers().get(Metadata.Key.of("x-amzn-requestid", Metadata.ASCII_STRING_MARSHALLER));
      }
      var status = StatusProto.fromThrowable(error);
      if (status != null) {
        made.read(status);
      }
      return made;
    }

    private void read(com.google.rpc.Status status) {
      try {
        for (var any : status.getDetailsList()) {
          if (any.is(ErrorInfo.class)) {
            var info = any.unpack(ErrorInfo.class);
            reason = info.getReason();
            domain = info.getDomain();
            requestId = info.getMetadataOrDefault("requestID", requestId);
            kmsRequestId = info.getMetadataOrDefault("kmsRequestID", kmsRequestId);
          } else if (any.is(RetryInfo.class)) {
            var delay = any.unpack(RetryInfo.class).getRetryDelay();
            retryDelay = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
          }
        }
      } catch (InvalidProtocolBufferException malformed) {
        // Without its details it is an error still.
        return;
      }
    }
  }
}

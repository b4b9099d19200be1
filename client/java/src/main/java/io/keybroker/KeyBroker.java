package io.keybroker;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.grpc.StatusRuntimeException;
import io.keybroker.v1.DecryptMessageRequest;
import io.keybroker.v1.DecryptMessageStart;
import io.keybroker.v1.DecryptMessageStreamRequest;
import io.keybroker.v1.DecryptMessageStreamResponse;
import io.keybroker.v1.DecryptRequest;
import io.keybroker.v1.DecryptResponse;
import io.keybroker.v1.DescribeKeyRequest;
import io.keybroker.v1.EncryptMessageRequest;
import io.keybroker.v1.EncryptMessageStart;
import io.keybroker.v1.EncryptMessageStreamRequest;
import io.keybroker.v1.EncryptMessageStreamResponse;
import io.keybroker.v1.EncryptRequest;
import io.keybroker.v1.GenerateDataKeyPairRequest;
import io.keybroker.v1.GenerateDataKeyPairWithoutPlaintextRequest;
import io.keybroker.v1.GenerateDataKeyRequest;
import io.keybroker.v1.GenerateDataKeyWithoutPlaintextRequest;
import io.keybroker.v1.GenerateRandomRequest;
import io.keybroker.v1.KeyBrokerGrpc;
import io.keybroker.v1.KeyBrokerGrpc.KeyBrokerBlockingStub;
import io.keybroker.v1.KeyBrokerGrpc.KeyBrokerStub;
import io.keybroker.v1.KeySpec;
import io.keybroker.v1.ReEncryptRequest;
import io.keybroker.v1.Use;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/** A connection to the broker, for any number of threads. */
public final class KeyBroker implements AutoCloseable {
  /** The version of this package. Releases of all clients and of the broker have the same. */
  public static final String VERSION = "0.1.0";

  /** How long a call may take unless told otherwise. */
  public static final Duration DEFAULT_DEADLINE = Duration.ofSeconds(10);

  /** How long a stream may take unless told otherwise. */
  public static final Duration STREAM_DEADLINE = Duration.ofMinutes(10);

  private final Address address;
  private final Duration deadline;
  private final Connection connection;
  private final KeyBrokerBlockingStub calls;
  private final KeyBrokerStub streams;

  private KeyBroker(Builder builder) {
    address = Address.of(builder.address, builder.tls != null);
    deadline = builder.deadline;
    connection = new Connection(address, builder.tls);
    calls = KeyBrokerGrpc.newBlockingStub(connection.channel).withInterceptors(Tracing.interceptors());
    streams = KeyBrokerGrpc.newStub(connection.channel).withInterceptors(Tracing.interceptors());
  }

  /**
   * A client of the broker where the environment variable KEY_BROKER_ADDRESS says, else at unix:///run/key-broker/broker.sock. The
   * connection is made with the first call, and again whenever it broke off.
   */
  public static KeyBroker connect() {
    return builder().connect();
  }

  /** A client of the broker at unix:PATH or 127.0.0.1:PORT. */
  public static KeyBroker connect(String address) {
    return builder().address(address).connect();
  }

  /** For what {@link #connect()} does not choose. */
  public static Builder builder() {
    return new Builder();
  }

  /** How to connect. */
  public static final class Builder {
    private String address;
    private Tls tls;
    private Duration deadline = DEFAULT_DEADLINE;

    private Builder() {}

    /** unix:PATH, 127.0.0.1:PORT, or HOST:PORT with TLS. */
    public Builder address(String address) {
      this.address = address;
      return this;
    }

    /** For a broker that is not on this machine. */
    public Builder tls(Tls tls) {
      this.tls = tls;
      return this;
    }

    /** How long a call may take that has no deadline of its own. */
    public Builder deadline(Duration deadline) {
      this.deadline = deadline;
      return this;
    }

    /** The client. An address that key material must not go to is an {@link IllegalArgumentException}. */
    public KeyBroker connect() {
      return new KeyBroker(this);
    }
  }

  /** As the longer form, with {@link Options#DEFAULT}. */
  public byte[] encrypt(byte[] plaintext, String keyId, Map<String, String> context) {
    return encrypt(plaintext, keyId, context, Options.DEFAULT);
  }

  /**
   * Encrypts a message of at most 3 MiB; what is longer goes by {@link #encryptStream}. The context is bound to the message, which has it in
   * clear. What comes back is a message of the AWS Encryption SDK.
   */
  public byte[] encrypt(byte[] plaintext, String keyId, Map<String, String> context, Options options) {
    var request = EncryptMessageRequest.newBuilder()
        .setKeyId(keyId)
        .putAllEncryptionContext(context)
        .setPlaintext(UnsafeByteOperations.unsafeWrap(plaintext))
        .addAllGrantTokens(options.grantTokens);
    if (options.reuse != null) {
      request.setReuse(reuse(options.reuse));
    }
    return call(options, stub -> stub.encryptMessage(request.build())).getMessage().toByteArray();
  }

  /** As the longer form, with {@link Options#DEFAULT}. */
  public byte[] decrypt(byte[] message, Map<String, String> context) {
    return decryptMessage(message, context, Options.DEFAULT).plaintext();
  }

  /** Decrypts a message of encrypt, or of an AWS Encryption SDK. Its encryption context must have all of this one. */
  public byte[] decrypt(byte[] message, Map<String, String> context, Options options) {
    return decryptMessage(message, context, options).plaintext();
  }

  /** As decrypt, with all of the message's encryption context, which is authentic. */
  public DecryptedMessage decryptMessage(byte[] message, Map<String, String> context, Options options) {
    var request = DecryptMessageRequest.newBuilder()
        .setMessage(UnsafeByteOperations.unsafeWrap(message))
        .putAllEncryptionContext(context)
        .setKeyId(options.keyId)
        .addAllGrantTokens(options.grantTokens);
    if (options.reuse != null) {
      request.setReuse(reuse(options.reuse));
    }
    var reply = call(options, stub -> stub.decryptMessage(request.build()));
    return new DecryptedMessage(
        reply.getPlaintext().toByteArray(), Map.copyOf(reply.getEncryptionContextMap()), reply.getKeyId(), Provenance.of(reply.getProvenance()));
  }

  /** Encrypts a message of any length, from a source to a sink. What was written is whole only if it returns. */
  public void encryptStream(InputStream source, OutputStream sink, String keyId, Map<String, String> context, Options options) throws IOException {
    var start = EncryptMessageStart.newBuilder().setKeyId(keyId).putAllEncryptionContext(context).addAllGrantTokens(options.grantTokens);
    if (options.reuse != null) {
      start.setReuse(reuse(options.reuse));
    }
    if (options.plaintextLength >= 0) {
      start.setPlaintextLength(options.plaintextLength);
    }
    var stream = new Stream<EncryptMessageStreamRequest, EncryptMessageStreamResponse>();
    try {
      stub(options).encryptMessageStream(stream);
      stream.run(
          EncryptMessageStreamRequest.newBuilder().setStart(start).build(),
          source,
          part -> EncryptMessageStreamRequest.newBuilder().setPlaintext(UnsafeByteOperations.unsafeWrap(part)).build(),
          answer -> answer.getMessage().writeTo(sink));
    } catch (StatusRuntimeException error) {
      throw KeyBrokerException.of(error, address);
    }
  }

  /**
   * Decrypts a message of any length, from a source to a sink. Every part that was written is authentic, but the end may be missing unless it
   * returns.
   */
  public DecryptedMessage decryptStream(InputStream source, OutputStream sink, Map<String, String> context, Options options) throws IOException {
    var start = DecryptMessageStart.newBuilder()
        .setKeyId(options.keyId)
        .putAllEncryptionContext(context)
        .addAllGrantTokens(options.grantTokens)
        .setReleaseBeforeSignature(options.releaseBeforeSignature);
    if (options.reuse != null) {
      start.setReuse(reuse(options.reuse));
    }
    var stream = new Stream<DecryptMessageStreamRequest, DecryptMessageStreamResponse>();
    var first = new DecryptMessageStreamResponse[1];
    try {
      stub(options).decryptMessageStream(stream);
      stream.run(
          DecryptMessageStreamRequest.newBuilder().setStart(start).build(),
          source,
          part -> DecryptMessageStreamRequest.newBuilder().setMessage(UnsafeByteOperations.unsafeWrap(part)).build(),
          answer -> {
            if (first[0] == null) {
              first[0] = answer;
            }
            answer.getPlaintext().writeTo(sink);
          });
    } catch (StatusRuntimeException error) {
      throw KeyBrokerException.of(error, address);
    }
    var facts = first[0] == null ? DecryptMessageStreamResponse.getDefaultInstance() : first[0];
    return new DecryptedMessage(null, Map.copyOf(facts.getEncryptionContextMap()), facts.getKeyId(), Provenance.of(facts.getProvenance()));
  }

  /** As the longer form, with {@link Options#DEFAULT}. */
  public DataKey dataKey(String keyId, Map<String, String> context) {
    return dataKey(keyId, context, Options.DEFAULT);
  }

  /** A data key, to encrypt with in this process. */
  public DataKey dataKey(String keyId, Map<String, String> context, Options options) {
    var request = GenerateDataKeyRequest.newBuilder()
        .setKeyId(keyId)
        .putAllEncryptionContext(context)
        .addAllGrantTokens(options.grantTokens)
        .setUse(Use.newBuilder().setMessages(options.messages).setBytes(options.bytes));
    switch (options.dataKeyLength) {
      case 32 -> request.setKeySpec(KeySpec.KEY_SPEC_AES_256);
      case 16 -> request.setKeySpec(KeySpec.KEY_SPEC_AES_128);
      default -> request.setNumberOfBytes(options.dataKeyLength);
    }
    if (options.reuse != null) {
      request.setReuse(reuse(options.reuse));
    }
    var reply = call(options, stub -> stub.generateDataKey(request.build()));
    return new DataKey(
        reply.getPlaintext().toByteArray(), reply.getCiphertextBlob().toByteArray(), reply.getKeyId(), Provenance.of(reply.getProvenance()));
  }

  /** A data key in encrypted form only, for somebody who may decrypt it later, with {@link #decryptDataKey}. */
  public Ciphertext dataKeyWithoutPlaintext(String keyId, Map<String, String> context, Options options) {
    var request = GenerateDataKeyWithoutPlaintextRequest.newBuilder()
        .setKeyId(keyId)
        .putAllEncryptionContext(context)
        .addAllGrantTokens(options.grantTokens)
        .setUse(Use.newBuilder().setMessages(options.messages).setBytes(options.bytes));
    switch (options.dataKeyLength) {
      case 32 -> request.setKeySpec(KeySpec.KEY_SPEC_AES_256);
      case 16 -> request.setKeySpec(KeySpec.KEY_SPEC_AES_128);
      default -> request.setNumberOfBytes(options.dataKeyLength);
    }
    if (options.reuse != null) {
      request.setReuse(reuse(options.reuse));
    }
    var reply = call(options, stub -> stub.generateDataKeyWithoutPlaintext(request.build()));
    return new Ciphertext(reply.getCiphertextBlob().toByteArray(), reply.getKeyId(), Provenance.of(reply.getProvenance()));
  }

  /** As the longer form, with {@link Options#DEFAULT}. */
  public DataKeyPair dataKeyPair(String keyId, Map<String, String> context, KeyPairSpec spec) {
    return dataKeyPair(keyId, context, spec, Options.DEFAULT);
  }

  /** A new asymmetric data key pair, its private key in plaintext and encrypted under the KMS key. Pairs are never cached. */
  public DataKeyPair dataKeyPair(String keyId, Map<String, String> context, KeyPairSpec spec, Options options) {
    var request = GenerateDataKeyPairRequest.newBuilder()
        .setKeyId(keyId)
        .setKeyPairSpec(spec.sent())
        .putAllEncryptionContext(context)
        .addAllGrantTokens(options.grantTokens)
        .build();
    var reply = call(options, stub -> stub.generateDataKeyPair(request));
    var sealed = new SealedDataKeyPair(
        reply.getPrivateKeyCiphertextBlob().toByteArray(), reply.getPublicKey().toByteArray(), reply.getKeyId(),
        Provenance.of(reply.getProvenance()));
    return new DataKeyPair(reply.getPrivateKeyPlaintext().toByteArray(), sealed);
  }

  /** The same with the private key in encrypted form only, for somebody who may decrypt it later, with {@link #decryptDataKey}. */
  public SealedDataKeyPair dataKeyPairWithoutPlaintext(String keyId, Map<String, String> context, KeyPairSpec spec, Options options) {
    var request = GenerateDataKeyPairWithoutPlaintextRequest.newBuilder()
        .setKeyId(keyId)
        .setKeyPairSpec(spec.sent())
        .putAllEncryptionContext(context)
        .addAllGrantTokens(options.grantTokens)
        .build();
    var reply = call(options, stub -> stub.generateDataKeyPairWithoutPlaintext(request));
    return new SealedDataKeyPair(
        reply.getPrivateKeyCiphertextBlob().toByteArray(), reply.getPublicKey().toByteArray(), reply.getKeyId(),
        Provenance.of(reply.getProvenance()));
  }

  /** As the longer form, with {@link Options#DEFAULT}. */
  public DataKey decryptDataKey(byte[] ciphertextBlob, String keyId, Map<String, String> context) {
    return decryptDataKey(ciphertextBlob, keyId, context, Options.DEFAULT);
  }

  /**
   * The same data key again, or the private key of a data key pair. Key id and context are those that it was made with; take {@link
   * DataKey#keyId()}, not an alias.
   */
  public DataKey decryptDataKey(byte[] ciphertextBlob, String keyId, Map<String, String> context, Options options) {
    var reply = decryptBlob(ciphertextBlob, keyId, context, options);
    return new DataKey(reply.getPlaintext().toByteArray(), ciphertextBlob.clone(), reply.getKeyId(), Provenance.of(reply.getProvenance()));
  }

  /** As the longer form, with {@link Options#DEFAULT}. */
  public Ciphertext encryptValue(byte[] plaintext, String keyId, Map<String, String> context) {
    return encryptValue(plaintext, keyId, context, Options.DEFAULT);
  }

  /**
   * Encrypts 1 to 4,096 bytes directly under the KMS key: a password, a token. Every call goes to KMS: {@link #encrypt} is faster and cheaper
   * for many. {@link #decryptValue} reverses it; keep {@link Ciphertext#keyId()} beside its ciphertextBlob.
   */
  public Ciphertext encryptValue(byte[] plaintext, String keyId, Map<String, String> context, Options options) {
    var request = EncryptRequest.newBuilder()
        .setKeyId(keyId)
        .setPlaintext(UnsafeByteOperations.unsafeWrap(plaintext))
        .putAllEncryptionContext(context)
        .addAllGrantTokens(options.grantTokens)
        .build();
    var reply = call(options, stub -> stub.encrypt(request));
    return new Ciphertext(reply.getCiphertextBlob().toByteArray(), reply.getKeyId(), Provenance.of(reply.getProvenance()));
  }

  /** As the longer form, with {@link Options#DEFAULT}. */
  public byte[] decryptValue(byte[] ciphertextBlob, String keyId, Map<String, String> context) {
    return decryptValue(ciphertextBlob, keyId, context, Options.DEFAULT);
  }

  /** Decrypts a ciphertext of encryptValue or reEncrypt. The context is exactly the one that it was encrypted with. */
  public byte[] decryptValue(byte[] ciphertextBlob, String keyId, Map<String, String> context, Options options) {
    return decryptBlob(ciphertextBlob, keyId, context, options).getPlaintext().toByteArray();
  }

  /** A ciphertext's KMS key, and the encryption context that it is bound to. */
  public record Bound(String keyId, Map<String, String> context) {}

  /** As the longer form, with {@link Options#DEFAULT}. */
  public Ciphertext reEncrypt(byte[] ciphertextBlob, Bound source, Bound destination) {
    return reEncrypt(ciphertextBlob, source, destination, Options.DEFAULT);
  }

  /**
   * Encrypts a KMS ciphertext anew, under another key or encryption context: of encryptValue, or of a data key. Its plaintext never leaves
   * KMS.
   */
  public Ciphertext reEncrypt(byte[] ciphertextBlob, Bound source, Bound destination, Options options) {
    var request = ReEncryptRequest.newBuilder()
        .setCiphertextBlob(ByteString.copyFrom(ciphertextBlob))
        .setSourceKeyId(source.keyId())
        .putAllSourceEncryptionContext(source.context())
        .setDestinationKeyId(destination.keyId())
        .putAllDestinationEncryptionContext(destination.context())
        .addAllGrantTokens(options.grantTokens)
        .build();
    var reply = call(options, stub -> stub.reEncrypt(request));
    return new Ciphertext(reply.getCiphertextBlob().toByteArray(), reply.getKeyId(), Provenance.of(reply.getProvenance()));
  }

  /** Random bytes made by KMS, 1 to 1,024. */
  public byte[] random(int numberOfBytes) {
    var request = GenerateRandomRequest.newBuilder().setNumberOfBytes(numberOfBytes).build();
    return call(Options.DEFAULT, stub -> stub.generateRandom(request)).getPlaintext().toByteArray();
  }

  /** What KMS knows about a key. */
  public KeyDescription describeKey(String keyId) {
    var request = DescribeKeyRequest.newBuilder().setKeyId(keyId).build();
    var reply = call(Options.DEFAULT, stub -> stub.describeKey(request));
    return new KeyDescription(
        reply.getArn(), reply.getKeySpec(), reply.getKeyUsage(), reply.getKeyState(), reply.getMultiRegion(), reply.getOrigin(),
        reply.getKeyManager(), reply.getDescription());
  }

  /** Closes the connection. Calls in flight fail. */
  @Override
  public void close() {
    connection.close();
  }

  private DecryptResponse decryptBlob(byte[] ciphertextBlob, String keyId, Map<String, String> context, Options options) {
    var request = DecryptRequest.newBuilder()
        .setCiphertextBlob(ByteString.copyFrom(ciphertextBlob))
        .setKeyId(keyId)
        .putAllEncryptionContext(context)
        .addAllGrantTokens(options.grantTokens);
    if (options.reuse != null) {
      request.setReuse(reuse(options.reuse));
    }
    return call(options, stub -> stub.decrypt(request.build()));
  }

  private <R> R call(Options options, Function<KeyBrokerBlockingStub, R> method) {
    var deadline = options.deadline != null ? options.deadline : this.deadline;
    var stub = calls.withDeadlineAfter(deadline.toNanos(), TimeUnit.NANOSECONDS);
    var repetition = new Repetition(deadline);
    while (true) {
      try {
        return method.apply(stub);
      } catch (StatusRuntimeException error) {
        repetition.await(KeyBrokerException.of(error, address));
      }
    }
  }

  private KeyBrokerStub stub(Options options) {
    var deadline = options.deadline != null ? options.deadline : STREAM_DEADLINE;
    return streams.withDeadlineAfter(deadline.toNanos(), TimeUnit.NANOSECONDS);
  }

  private static io.keybroker.v1.Reuse reuse(Reuse chosen) {
    return io.keybroker.v1.Reuse.newBuilder()
        .setMaxAgeSeconds(chosen.maxAgeSeconds())
        .setMaxMessages(chosen.maxMessages())
        .setMaxBytes(chosen.maxBytes())
        .setFresh(chosen.fresh())
        .build();
  }
}

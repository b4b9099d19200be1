package io.keybroker;

import java.util.Arrays;

/**
 * A data key, for what is too large to be sent to the broker. Closing it erases it: use it in a try-with-resources.
 *
 * <p>Others may have the same data key, and so may an earlier call: take a random nonce for each message, never a counter.
 *
 * <p>Erased is {@link #plaintext()}, this object's own copy. The bytes that gRPC received, and copies that the garbage collector made when it
 * moved them, are not: they stay in memory until something else is put there. What must not be in this process at all is what
 * {@link KeyBroker#encrypt} is for.
 */
public final class DataKey implements AutoCloseable {
  private final byte[] ciphertextBlob;
  private final String keyId;
  private final Provenance provenance;
  private byte[] plaintext;

  DataKey(byte[] plaintext, byte[] ciphertextBlob, String keyId, Provenance provenance) {
    this.plaintext = plaintext;
    this.ciphertextBlob = ciphertextBlob;
    this.keyId = keyId;
    this.provenance = provenance;
  }

  /** The data key itself, not a copy. Copies of it are not erased. */
  public byte[] plaintext() {
    if (plaintext == null) {
      throw new IllegalStateException("this data key is closed, and erased");
    }
    return plaintext;
  }

  /** The data key encrypted under the KMS key: keep it, and the key id, beside what the data key encrypts. */
  public byte[] ciphertextBlob() {
    return ciphertextBlob;
  }

  /** The ARN of the KMS key. */
  public String keyId() {
    return keyId;
  }

  /** Where it came from. */
  public Provenance provenance() {
    return provenance;
  }

  /** Erases it. */
  @Override
  public void close() {
    if (plaintext != null) {
      Arrays.fill(plaintext, (byte) 0);
      plaintext = null;
    }
  }

  @Override
  public String toString() {
    return "DataKey[keyId=" + keyId + "]";
  }
}

package io.keybroker;

import java.util.Arrays;

/** An asymmetric data key pair. Closing it erases the private key, as of a {@link DataKey}: use it in a try-with-resources. */
public final class DataKeyPair implements AutoCloseable {
  private final SealedDataKeyPair sealed;
  private byte[] privateKey;

  DataKeyPair(byte[] privateKey, SealedDataKeyPair sealed) {
    this.privateKey = privateKey;
    this.sealed = sealed;
  }

  /**
   * The private key itself, not a copy: PKCS #8 (RFC 5958) in DER, for {@link java.security.spec.PKCS8EncodedKeySpec}. Copies of it are not
   * erased.
   */
  public byte[] privateKey() {
    if (privateKey == null) {
      throw new IllegalStateException("this data key pair is closed, and erased");
    }
    return privateKey;
  }

  /** What may be kept of it. */
  public SealedDataKeyPair sealed() {
    return sealed;
  }

  /** SubjectPublicKeyInfo (RFC 5280) in DER. */
  public byte[] publicKey() {
    return sealed.publicKey();
  }

  /** Erases the private key. */
  @Override
  public void close() {
    if (privateKey != null) {
      Arrays.fill(privateKey, (byte) 0);
      privateKey = null;
    }
  }

  @Override
  public String toString() {
    return "DataKeyPair[keyId=" + sealed.keyId() + "]";
  }
}

package io.keybroker;

import java.util.Map;

/**
 * A message that was decrypted, and what it was bound to.
 *
 * @param plaintext what was encrypted; null for a stream, which wrote it
 * @param encryptionContext all of the message's encryption context, authentic
 * @param keyId the ARN of the KMS key that decrypted its data key
 * @param provenance where its data key came from
 */
public record DecryptedMessage(byte[] plaintext, Map<String, String> encryptionContext, String keyId, Provenance provenance) {
  @Override
  public String toString() {
    return "DecryptedMessage[encryptionContext=" + encryptionContext + ", keyId=" + keyId + "]";
  }
}

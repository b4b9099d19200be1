package io.keybroker;

/**
 * What KMS encrypted directly under a key.
 *
 * @param ciphertextBlob at most 6,144 bytes
 * @param keyId the ARN of the KMS key: keep it beside ciphertextBlob
 * @param provenance where it came from
 */
public record Ciphertext(byte[] ciphertextBlob, String keyId, Provenance provenance) {}

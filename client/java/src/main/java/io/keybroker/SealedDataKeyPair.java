package io.keybroker;

/**
 * A data key pair whose private key is encrypted.
 *
 * @param privateKeyCiphertextBlob the private key encrypted under the KMS key, for {@link KeyBroker#decryptDataKey}: keep it, and keyId
 * @param publicKey SubjectPublicKeyInfo (RFC 5280) in DER, for {@link java.security.spec.X509EncodedKeySpec}
 * @param keyId the ARN of the KMS key
 * @param provenance where it came from
 */
public record SealedDataKeyPair(byte[] privateKeyCiphertextBlob, byte[] publicKey, String keyId, Provenance provenance) {}

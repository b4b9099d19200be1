package io.keybroker.adapters;

import io.keybroker.KeyBroker;
import io.keybroker.Options;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.kms.KmsClient;
import software.amazon.awssdk.services.kms.KmsServiceClientConfiguration;
import software.amazon.awssdk.services.kms.model.DecryptRequest;
import software.amazon.awssdk.services.kms.model.DecryptResponse;
import software.amazon.awssdk.services.kms.model.EncryptionAlgorithmSpec;
import software.amazon.awssdk.services.kms.model.GenerateDataKeyRequest;
import software.amazon.awssdk.services.kms.model.GenerateDataKeyResponse;

/**
 * For what takes a KMS client of the AWS SDK, such as the keyrings of the AWS Encryption SDK: the same, through the broker. The process needs
 * no AWS credentials, and the broker's reuse of data keys takes the place of a caching CMM. The SDK has the data keys then: {@link
 * KeyBroker#encrypt} writes the same messages without.
 *
 * <p>It takes the package {@code software.amazon.awssdk:kms}, which is an optional dependency.
 */
public final class AwsKms implements KmsClient {
  private final KeyBroker broker;
  private final Region region;

  private AwsKms(KeyBroker broker, Region region) {
    this.broker = broker;
    this.region = region;
  }

  /** The broker as a KMS client of this region, with the two methods that encryption in this process takes. */
  public static KmsClient of(KeyBroker broker, Region region) {
    return new AwsKms(broker, region);
  }

  @Override
  public GenerateDataKeyResponse generateDataKey(GenerateDataKeyRequest request) {
    var length = request.numberOfBytes();
    if (length == null) {
      length = switch (request.keySpec()) {
        case AES_256 -> 32;
        case AES_128 -> 16;
        default -> throw new IllegalArgumentException("KMS has no such key spec: " + request.keySpecAsString());
      };
    }
    var options = Options.DEFAULT.withLength(length).withGrantTokens(request.grantTokens());
    try (var key = broker.dataKey(request.keyId(), request.encryptionContext(), options)) {
      return GenerateDataKeyResponse.builder()
          .plaintext(SdkBytes.fromByteArray(key.plaintext()))
          .ciphertextBlob(SdkBytes.fromByteArray(key.ciphertextBlob()))
          .keyId(key.keyId())
          .build();
    }
  }

  @Override
  public DecryptResponse decrypt(DecryptRequest request) {
    var options = Options.DEFAULT.withGrantTokens(request.grantTokens());
    var blob = request.ciphertextBlob().asByteArray();
    try (var key = broker.decryptDataKey(blob, request.keyId(), request.encryptionContext(), options)) {
      return DecryptResponse.builder()
          .plaintext(SdkBytes.fromByteArray(key.plaintext()))
          .keyId(key.keyId())
          .encryptionAlgorithm(EncryptionAlgorithmSpec.SYMMETRIC_DEFAULT)
          .build();
    }
  }

  @Override
  public KmsServiceClientConfiguration serviceClientConfiguration() {
    return KmsServiceClientConfiguration.builder().region(region).build();
  }

  @Override
  public String serviceName() {
    return KmsClient.SERVICE_NAME;
  }

  /** Leaves the broker's client open: it is its maker's. */
  @Override
  public void close() {}
}

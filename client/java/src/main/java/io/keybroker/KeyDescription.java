package io.keybroker;

/**
 * What KMS knows about a key. Values as in the AWS KMS API reference, KeyMetadata.
 *
 * @param arn its ARN
 * @param keySpec for example SYMMETRIC_DEFAULT
 * @param keyUsage for example ENCRYPT_DECRYPT
 * @param keyState for example Enabled
 * @param multiRegion whether it is a multi-Region key
 * @param origin where its material is from
 * @param keyManager CUSTOMER or AWS
 * @param description a person's words about it
 */
public record KeyDescription(
    String arn, String keySpec, String keyUsage, String keyState, boolean multiRegion, String origin, String keyManager, String description) {}

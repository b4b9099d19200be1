package io.keybroker;

import java.time.Instant;

/**
 * Where an answer came from.
 *
 * @param isCached whether an earlier call to KMS had made it
 * @param kmsRequestId the requestID of the call to KMS behind it, as AWS CloudTrail has it
 * @param mintedAt when KMS answered
 */
public record Provenance(boolean isCached, String kmsRequestId, Instant mintedAt) {
  static Provenance of(io.keybroker.v1.Provenance sent) {
    var isCached = sent.getServedFrom() == io.keybroker.v1.Provenance.Source.SOURCE_CACHE;
    var mintedAt = Instant.ofEpochSecond(sent.getMintedAt().getSeconds(), sent.getMintedAt().getNanos());
    return new Provenance(isCached, sent.getKmsRequestId(), mintedAt);
  }
}

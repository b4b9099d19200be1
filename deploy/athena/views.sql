-- Views of key_broker_trail. Athena takes one statement at a time. Times are compared as texts: all have the same form, in UTC.

-- What KMS was asked: a row for each record of a call to KMS. Those that the broker made for itself are marked.
CREATE OR REPLACE VIEW key_broker_kms_calls AS
SELECT day, eventtime AS time, eventname AS operation, resources[1].arn AS key_arn, errorcode AS error_code,
  coalesce(useridentity.invokedby, '') = 'key-broker' AS is_the_brokers_own, useridentity.arn AS identity,
  useridentity.accesskeyid AS access_key_id, requestid AS kms_request_id, eventid AS kms_event_id
FROM key_broker_trail
WHERE eventcategory = 'Management';

-- What workloads and operators asked of brokers, and what brokers tell of themselves.
CREATE OR REPLACE VIEW key_broker_calls AS
SELECT day, eventtime AS time, useridentity.type AS principal_type, useridentity.principalid AS principal, eventname AS operation,
  json_extract_scalar(additionaleventdata, '$.outcome') AS outcome, errorcode AS error_code, resources[1].arn AS key_arn,
  requestid AS request_id, eventid AS event_id
FROM key_broker_trail
WHERE eventcategory = 'ActivityAuditLog';

-- Uses of what KMS answered: a row for each activity record that names the record of a call to KMS.
CREATE OR REPLACE VIEW key_broker_uses AS
SELECT day, eventtime AS time, useridentity.principalid AS principal, eventname AS operation, resources[1].arn AS key_arn,
  json_extract_scalar(additionaleventdata, '$.outcome') = 'Allowed' AS is_allowed,
  json_extract_scalar(additionaleventdata, '$.dataKey.servedFrom') AS served_from,
  json_extract_scalar(additionaleventdata, '$.dataKey.kmsEventID') AS kms_event_id,
  json_extract_scalar(additionaleventdata, '$.dataKey.kmsRequestID') AS kms_request_id,
  json_extract_scalar(additionaleventdata, '$.dataKey.mintedAt') AS minted_at,
  json_extract_scalar(additionaleventdata, '$.dataKey.expiresAt') AS expires_at,
  json_extract_scalar(additionaleventdata, '$.dataKey.ciphertextBlobSHA256') AS ciphertext_sha256,
  CAST(json_extract_scalar(requestparameters, '$.use.messages') AS BIGINT) AS messages,
  CAST(json_extract_scalar(additionaleventdata, '$.dataKey.messagesUsed') AS BIGINT) AS messages_used,
  CAST(json_extract_scalar(additionaleventdata, '$.dataKey.messagesLimit') AS BIGINT) AS messages_limit,
  CAST(json_extract_scalar(requestparameters, '$.use.bytes') AS BIGINT) AS bytes,
  CAST(json_extract_scalar(additionaleventdata, '$.dataKey.bytesUsed') AS BIGINT) AS bytes_used,
  CAST(json_extract_scalar(additionaleventdata, '$.dataKey.bytesLimit') AS BIGINT) AS bytes_limit,
  requestid AS request_id, eventid AS event_id
FROM key_broker_trail
WHERE eventcategory = 'ActivityAuditLog' AND json_extract_scalar(additionaleventdata, '$.dataKey.kmsEventID') IS NOT NULL;

-- Answers of KMS and how far each was used. Ask for whole days, and the one before: a data key may be a day old.
CREATE OR REPLACE VIEW key_broker_data_keys AS
SELECT kms_event_id, min(kms_request_id) AS kms_request_id, min(minted_at) AS minted_at, max(expires_at) AS expires_at,
  count(*) AS uses, count(DISTINCT principal) AS principals, min(time) AS first_use, max(time) AS last_use,
  sum(messages) AS messages, sum(CASE WHEN is_allowed THEN messages ELSE 0 END) AS messages_handed_out,
  max(messages_used) AS messages_used, min(messages_limit) AS messages_limit,
  sum(bytes) AS bytes, sum(CASE WHEN is_allowed THEN bytes ELSE 0 END) AS bytes_handed_out,
  max(bytes_used) AS bytes_used, min(bytes_limit) AS bytes_limit
FROM key_broker_uses
GROUP BY kms_event_id;

-- The promise of reuse: each row breaks it. `kind` is the finding of `key-broker audit verify`. No row is the answer to hope for.
-- Where all uses of a data key break it together, the row names its first one. A use begins where the one before it ended, as counted in
-- messages: one that begins before that is charged with what another is charged with, too.
CREATE OR REPLACE VIEW key_broker_broken_promises AS
SELECT found.kind, uses.kms_event_id, uses.event_id
FROM (
  SELECT time, is_allowed, kms_event_id, kms_request_id, minted_at, expires_at, messages, messages_used, messages_limit,
    bytes, bytes_used, bytes_limit, event_id,
    row_number() OVER (PARTITION BY kms_event_id ORDER BY time, event_id) = 1 AS is_first,
    sum(CASE WHEN expires_at IS NULL THEN 1 ELSE 0 END) OVER (PARTITION BY kms_event_id) AS uses_without_reuse,
    max(messages_used) OVER (PARTITION BY kms_event_id ORDER BY messages_used - messages, messages_used
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS messages_used_before,
    sum(CASE WHEN is_allowed THEN messages ELSE 0 END) OVER (PARTITION BY kms_event_id) AS messages_handed_out,
    min(messages_limit) OVER (PARTITION BY kms_event_id) AS messages_limit_of_all,
    sum(bytes) OVER (PARTITION BY kms_event_id) AS bytes_of_all,
    max(bytes_used) OVER (PARTITION BY kms_event_id) AS bytes_used_by_all,
    sum(CASE WHEN is_allowed THEN bytes ELSE 0 END) OVER (PARTITION BY kms_event_id) AS bytes_handed_out,
    min(bytes_limit) OVER (PARTITION BY kms_event_id) AS bytes_limit_of_all
  FROM key_broker_uses
) AS uses
LEFT JOIN key_broker_kms_calls AS calls ON uses.kms_event_id = calls.kms_event_id
CROSS JOIN UNNEST(ARRAY[
  CASE WHEN uses.time > uses.expires_at THEN 'UsedTooLate' END,
  CASE WHEN uses.messages_used > uses.messages_limit THEN 'MessagesExceeded' END,
  CASE WHEN uses.is_first AND uses.messages_handed_out > uses.messages_limit_of_all THEN 'MessagesExceeded' END,
  CASE WHEN uses.bytes_used > uses.bytes_limit THEN 'BytesExceeded' END,
  CASE WHEN uses.is_first AND uses.bytes_handed_out > uses.bytes_limit_of_all THEN 'BytesExceeded' END,
  CASE WHEN uses.messages > uses.messages_used OR uses.bytes > uses.bytes_used THEN 'ChargedTwice' END,
  CASE WHEN uses.messages_used_before > uses.messages_used - uses.messages THEN 'ChargedTwice' END,
  CASE WHEN uses.is_first AND uses.bytes_of_all > uses.bytes_used_by_all THEN 'ChargedTwice' END,
  CASE WHEN uses.is_first AND uses.uses_without_reuse > 1 THEN 'UsedAgain' END,
  CASE WHEN calls.kms_event_id IS NULL THEN 'KmsRecordMissing' END,
  CASE WHEN uses.kms_request_id <> calls.kms_request_id OR uses.minted_at <> calls.time
    OR (uses.is_allowed AND calls.error_code IS NOT NULL) THEN 'KmsRecordMismatch' END
]) AS found (kind)
WHERE found.kind IS NOT NULL;

-- When brokers began, drained and ended, and where.
CREATE OR REPLACE VIEW key_broker_brokers AS
SELECT day, eventtime AS time, eventname AS event, sourceipaddress AS address,
  json_extract_scalar(additionaleventdata, '$.broker.origin.host') AS host,
  json_extract_scalar(additionaleventdata, '$.broker.origin.namespace') AS namespace,
  json_extract_scalar(additionaleventdata, '$.broker.origin.pod') AS pod,
  json_extract_scalar(additionaleventdata, '$.broker.origin.node') AS node,
  json_extract_scalar(additionaleventdata, '$.broker.version') AS version,
  json_extract_scalar(additionaleventdata, '$.broker.configurationSHA256') AS configuration_sha256,
  json_extract_scalar(additionaleventdata, '$.broker.policyVersion') AS policy_version
FROM key_broker_trail
WHERE eventname IN ('StartBroker', 'DrainBroker', 'CloseTrail') AND eventcategory = 'ActivityAuditLog';

-- What policy denied: who asked for what of which key, as it was written, and why it was refused.
CREATE OR REPLACE VIEW key_broker_denials AS
SELECT day, eventtime AS time, useridentity.type AS principal_type, useridentity.principalid AS principal, eventname AS operation,
  coalesce(resources[1].arn, json_extract_scalar(requestparameters, '$.keyId')) AS asked_for, errorcode AS error_code,
  errormessage AS error_message, json_extract_scalar(additionaleventdata, '$.policy.version') AS policy_version,
  CAST(coalesce(json_extract_scalar(additionaleventdata, '$.refusals.count'), '1') AS BIGINT) AS calls,
  requestid AS request_id, eventid AS event_id
FROM key_broker_trail
WHERE eventcategory = 'ActivityAuditLog' AND json_extract_scalar(additionaleventdata, '$.outcome') = 'Denied';

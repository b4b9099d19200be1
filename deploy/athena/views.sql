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
CREATE OR REPLACE VIEW key_broker_broken_promises AS
SELECT 'UsedTooLate' AS kind, kms_event_id, event_id FROM key_broker_uses WHERE time > expires_at
UNION ALL
SELECT 'MessagesExceeded', kms_event_id, event_id FROM key_broker_uses WHERE messages_used > messages_limit
UNION ALL
SELECT 'MessagesExceeded', kms_event_id, NULL FROM key_broker_data_keys WHERE messages_handed_out > messages_limit
UNION ALL
SELECT 'BytesExceeded', kms_event_id, event_id FROM key_broker_uses WHERE bytes_used > bytes_limit
UNION ALL
SELECT 'BytesExceeded', kms_event_id, NULL FROM key_broker_data_keys WHERE bytes_handed_out > bytes_limit
UNION ALL
SELECT 'ChargedTwice', kms_event_id, event_id FROM key_broker_uses WHERE messages > messages_used OR bytes > bytes_used
UNION ALL
SELECT 'ChargedTwice', kms_event_id, NULL FROM key_broker_data_keys WHERE messages > messages_used OR bytes > bytes_used
UNION ALL
SELECT 'ChargedTwice', one.kms_event_id, one.event_id
FROM key_broker_uses AS one JOIN key_broker_uses AS other
  ON one.kms_event_id = other.kms_event_id AND one.event_id < other.event_id
    AND one.messages_used > other.messages_used - other.messages AND other.messages_used > one.messages_used - one.messages
UNION ALL
SELECT 'UsedAgain', kms_event_id, NULL FROM key_broker_uses WHERE expires_at IS NULL GROUP BY kms_event_id HAVING count(*) > 1
UNION ALL
SELECT 'KmsRecordMissing', uses.kms_event_id, uses.event_id
FROM key_broker_uses AS uses LEFT JOIN key_broker_kms_calls AS calls ON uses.kms_event_id = calls.kms_event_id
WHERE calls.kms_event_id IS NULL
UNION ALL
SELECT 'KmsRecordMismatch', uses.kms_event_id, uses.event_id
FROM key_broker_uses AS uses JOIN key_broker_kms_calls AS calls ON uses.kms_event_id = calls.kms_event_id
WHERE uses.kms_request_id <> calls.kms_request_id OR uses.minted_at <> calls.time
  OR (uses.is_allowed AND calls.error_code IS NOT NULL);

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

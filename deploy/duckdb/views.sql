-- Made from deploy/athena by deploy/duckdb/generate, to be changed there. SET VARIABLE trail first, as docs/audit.md shows.

-- The records of log files. A question that names days reads the files of those days only.
CREATE OR REPLACE VIEW key_broker_trail AS
SELECT unnest(from_json(json, '{"Records": [{
  "eventVersion": "TEXT",
  "userIdentity": {"type": "TEXT", "principalId": "TEXT", "arn": "TEXT", "accountId": "TEXT", "accessKeyId": "TEXT", "userName": "TEXT", "sessionContext": {"sessionIssuer": {"type": "TEXT", "principalId": "TEXT", "arn": "TEXT", "accountId": "TEXT", "userName": "TEXT"}}, "invokedBy": "TEXT", "details": {"transport": "TEXT", "uid": "BIGINT", "gid": "BIGINT", "pid": "BIGINT", "cid": "BIGINT", "certificateSHA256": "TEXT", "dnsName": "TEXT"}},
  "eventTime": "TEXT",
  "eventSource": "TEXT",
  "eventName": "TEXT",
  "awsRegion": "TEXT",
  "sourceIPAddress": "TEXT",
  "userAgent": "TEXT",
  "errorCode": "TEXT",
  "errorMessage": "TEXT",
  "requestParameters": "TEXT",
  "responseElements": "TEXT",
  "additionalEventData": "TEXT",
  "requestID": "TEXT",
  "eventID": "TEXT",
  "readOnly": "TEXT",
  "resources": [{"ARN": "TEXT", "accountId": "TEXT", "type": "TEXT"}],
  "eventType": "TEXT",
  "managementEvent": "TEXT",
  "recipientAccountId": "TEXT",
  "eventCategory": "TEXT",
  "tlsDetails": {"tlsVersion": "TEXT", "cipherSuite": "TEXT", "clientProvidedHostHeader": "TEXT", "keyExchange": "TEXT"}
}]}').Records, max_depth => 2), regexp_extract(filename, '([0-9]{4}/[0-9]{2}/[0-9]{2})/[^/]+$', 1) AS day
FROM read_json_objects(getvariable('trail'), filename = true, maximum_object_size = 67108864);

-- What KMS was asked: a row for each record of a call to KMS. Those that the broker made for itself are marked.
CREATE OR REPLACE VIEW key_broker_kms_calls AS
SELECT
  day,
  eventtime AS time,
  eventname AS operation,
  resources[1].arn AS key_arn,
  errorcode AS error_code,
  COALESCE(useridentity.invokedby, '') = 'key-broker' AS is_the_brokers_own,
  useridentity.arn AS identity,
  useridentity.accesskeyid AS access_key_id,
  requestid AS kms_request_id,
  eventid AS kms_event_id
FROM key_broker_trail
WHERE
  eventcategory = 'Management';

-- What workloads and operators asked of brokers, and what brokers tell of themselves.
CREATE OR REPLACE VIEW key_broker_calls AS
SELECT
  day,
  eventtime AS time,
  useridentity.type AS principal_type,
  useridentity.principalid AS principal,
  eventname AS operation,
  additionaleventdata ->> '$.outcome' AS outcome,
  errorcode AS error_code,
  resources[1].arn AS key_arn,
  requestid AS request_id,
  eventid AS event_id
FROM key_broker_trail
WHERE
  eventcategory = 'ActivityAuditLog';

-- Uses of what KMS answered: a row for each activity record that names the record of a call to KMS.
CREATE OR REPLACE VIEW key_broker_uses AS
SELECT
  day,
  eventtime AS time,
  useridentity.principalid AS principal,
  eventname AS operation,
  resources[1].arn AS key_arn,
  (
    additionaleventdata ->> '$.outcome'
  ) = 'Allowed' AS is_allowed,
  additionaleventdata ->> '$.dataKey.servedFrom' AS served_from,
  additionaleventdata ->> '$.dataKey.kmsEventID' AS kms_event_id,
  additionaleventdata ->> '$.dataKey.kmsRequestID' AS kms_request_id,
  additionaleventdata ->> '$.dataKey.mintedAt' AS minted_at,
  additionaleventdata ->> '$.dataKey.expiresAt' AS expires_at,
  additionaleventdata ->> '$.dataKey.ciphertextBlobSHA256' AS ciphertext_sha256,
  CAST(requestparameters ->> '$.use.messages' AS BIGINT) AS messages,
  CAST(additionaleventdata ->> '$.dataKey.messagesUsed' AS BIGINT) AS messages_used,
  CAST(additionaleventdata ->> '$.dataKey.messagesLimit' AS BIGINT) AS messages_limit,
  CAST(requestparameters ->> '$.use.bytes' AS BIGINT) AS bytes,
  CAST(additionaleventdata ->> '$.dataKey.bytesUsed' AS BIGINT) AS bytes_used,
  CAST(additionaleventdata ->> '$.dataKey.bytesLimit' AS BIGINT) AS bytes_limit,
  requestid AS request_id,
  eventid AS event_id
FROM key_broker_trail
WHERE
  eventcategory = 'ActivityAuditLog' AND NOT (
    additionaleventdata ->> '$.dataKey.kmsEventID'
  ) IS NULL;

-- Answers of KMS and how far each was used. Ask for whole days, and the one before: a data key may be a day old.
CREATE OR REPLACE VIEW key_broker_data_keys AS
SELECT
  kms_event_id,
  MIN(kms_request_id) AS kms_request_id,
  MIN(minted_at) AS minted_at,
  MAX(expires_at) AS expires_at,
  COUNT(*) AS uses,
  COUNT(DISTINCT principal) AS principals,
  MIN(time) AS first_use,
  MAX(time) AS last_use,
  SUM(messages) AS messages,
  SUM(CASE WHEN is_allowed THEN messages ELSE 0 END) AS messages_handed_out,
  MAX(messages_used) AS messages_used,
  MIN(messages_limit) AS messages_limit,
  SUM(bytes) AS bytes,
  SUM(CASE WHEN is_allowed THEN bytes ELSE 0 END) AS bytes_handed_out,
  MAX(bytes_used) AS bytes_used,
  MIN(bytes_limit) AS bytes_limit
FROM key_broker_uses
GROUP BY
  kms_event_id;

-- The promise of reuse: each row breaks it. `kind` is the finding of `key-broker audit verify`. No row is the answer to hope for.
-- Where all uses of a data key break it together, the row names its first one. A use begins where the one before it ended, as counted in
-- messages: one that begins before that is charged with what another is charged with, too.
CREATE OR REPLACE VIEW key_broker_broken_promises AS
SELECT
  found.kind,
  uses.kms_event_id,
  uses.event_id
FROM (
  SELECT
    time,
    is_allowed,
    kms_event_id,
    kms_request_id,
    minted_at,
    expires_at,
    messages,
    messages_used,
    messages_limit,
    bytes,
    bytes_used,
    bytes_limit,
    event_id,
    ROW_NUMBER() OVER (PARTITION BY kms_event_id ORDER BY time, event_id) = 1 AS is_first,
    SUM(CASE WHEN expires_at IS NULL THEN 1 ELSE 0 END) OVER (PARTITION BY kms_event_id) AS uses_without_reuse,
    MAX(messages_used) OVER (PARTITION BY kms_event_id ORDER BY messages_used - messages, messages_used ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS messages_used_before,
    SUM(CASE WHEN is_allowed THEN messages ELSE 0 END) OVER (PARTITION BY kms_event_id) AS messages_handed_out,
    MIN(messages_limit) OVER (PARTITION BY kms_event_id) AS messages_limit_of_all,
    SUM(bytes) OVER (PARTITION BY kms_event_id) AS bytes_of_all,
    MAX(bytes_used) OVER (PARTITION BY kms_event_id) AS bytes_used_by_all,
    SUM(CASE WHEN is_allowed THEN bytes ELSE 0 END) OVER (PARTITION BY kms_event_id) AS bytes_handed_out,
    MIN(bytes_limit) OVER (PARTITION BY kms_event_id) AS bytes_limit_of_all
  FROM key_broker_uses
) AS uses
LEFT JOIN key_broker_kms_calls AS calls
  ON uses.kms_event_id = calls.kms_event_id
CROSS JOIN UNNEST([
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
  CASE
    WHEN uses.kms_request_id <> calls.kms_request_id OR uses.minted_at <> calls.time OR (
      uses.is_allowed AND NOT calls.error_code IS NULL
    )
    THEN 'KmsRecordMismatch'
  END
]) AS found(kind)
WHERE
  NOT found.kind IS NULL;

-- When brokers began, drained and ended, and where.
CREATE OR REPLACE VIEW key_broker_brokers AS
SELECT
  day,
  eventtime AS time,
  eventname AS event,
  sourceipaddress AS address,
  additionaleventdata ->> '$.broker.origin.host' AS host,
  additionaleventdata ->> '$.broker.origin.namespace' AS namespace,
  additionaleventdata ->> '$.broker.origin.pod' AS pod,
  additionaleventdata ->> '$.broker.origin.node' AS node,
  additionaleventdata ->> '$.broker.version' AS version,
  additionaleventdata ->> '$.broker.configurationSHA256' AS configuration_sha256,
  additionaleventdata ->> '$.broker.policyVersion' AS policy_version
FROM key_broker_trail
WHERE
  eventname IN ('StartBroker', 'DrainBroker', 'CloseTrail') AND eventcategory = 'ActivityAuditLog';

-- What policy denied: who asked for what of which key, as it was written, and why it was refused.
CREATE OR REPLACE VIEW key_broker_denials AS
SELECT
  day,
  eventtime AS time,
  useridentity.type AS principal_type,
  useridentity.principalid AS principal,
  eventname AS operation,
  COALESCE(resources[1].arn, requestparameters ->> '$.keyId') AS asked_for,
  errorcode AS error_code,
  errormessage AS error_message,
  additionaleventdata ->> '$.policy.version' AS policy_version,
  CAST(COALESCE(additionaleventdata ->> '$.refusals.count', '1') AS BIGINT) AS calls,
  requestid AS request_id,
  eventid AS event_id
FROM key_broker_trail
WHERE
  eventcategory = 'ActivityAuditLog' AND (
    additionaleventdata ->> '$.outcome'
  ) = 'Denied';

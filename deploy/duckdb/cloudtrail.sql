-- Made from deploy/athena by deploy/duckdb/generate, to be changed there. SET VARIABLE cloudtrail first, and have views.sql, as docs/audit.md shows.

-- The records of log files. A question that names days reads the files of those days only.
CREATE OR REPLACE VIEW cloudtrail_logs AS
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
FROM read_json_objects(getvariable('cloudtrail'), filename = true, maximum_object_size = 67108864);

-- A row for each call to KMS that the trail or AWS's has of the broker's roles; `found_in` tells which. A call that only AWS has was made with the
-- broker's credentials by somebody else, or its answer never reached the broker. Name days in every question, of the trail's a day more on both
-- sides: CloudTrail delivers up to a quarter of an hour later. What `key-broker audit reconcile` knows of readers and of closing digests, this
-- does not.
CREATE OR REPLACE VIEW key_broker_beside_cloudtrail AS
WITH ours AS (
  SELECT
    day,
    time,
    operation,
    key_arn,
    error_code,
    kms_request_id,
    COALESCE(NULLIF(REGEXP_EXTRACT(identity, '^(arn:[^:]+:sts::[0-9]+:assumed-role/[^/]+)/', 1), ''), identity) AS role
  FROM key_broker_kms_calls
), theirs AS (
  SELECT
    eventtime AS time,
    eventname AS operation,
    errorcode AS error_code,
    requestid AS kms_request_id,
    useridentity.arn AS identity,
    sourceipaddress AS address,
    useragent AS user_agent,
    COALESCE(NULLIF(REGEXP_EXTRACT(useridentity.arn, '^(arn:[^:]+:sts::[0-9]+:assumed-role/[^/]+)/', 1), ''), useridentity.arn) AS role
  FROM cloudtrail_logs
  WHERE
    eventsource = 'kms.amazonaws.com'
)
SELECT
  CASE WHEN theirs.kms_request_id IS NULL THEN 'trail only' WHEN ours.kms_request_id IS NULL THEN 'AWS only' ELSE 'both' END AS found_in,
  COALESCE(theirs.time, ours.time) AS time,
  COALESCE(theirs.operation, ours.operation) AS operation,
  ours.key_arn,
  COALESCE(theirs.kms_request_id, ours.kms_request_id) AS kms_request_id,
  theirs.identity,
  theirs.address,
  theirs.user_agent,
  COALESCE(ours.error_code, '') <> COALESCE(theirs.error_code, '') AND NOT theirs.kms_request_id IS NULL AND NOT ours.kms_request_id IS NULL AS errors_differ
FROM ours
FULL OUTER JOIN theirs
  ON ours.kms_request_id = theirs.kms_request_id AND ours.operation = theirs.operation
WHERE
  NOT ours.role IS NULL OR theirs.role IN (
    SELECT
      role
    FROM ours
  );

-- The trail beside AWS's own: needs key_broker_kms_calls (views.sql) and CloudTrail's own table, cloudtrail_logs, as AWS's page "Query AWS
-- CloudTrail logs" makes it.

-- A row for each call to KMS that the trail or AWS's has of the broker's roles; `found_in` tells which. A call that only AWS has was made with the
-- broker's credentials by somebody else, or its answer never reached the broker. Name days in every question, of the trail's a day more on both
-- sides: CloudTrail delivers up to a quarter of an hour later. What `key-broker audit reconcile` knows of readers and of closing digests, this
-- does not.
CREATE OR REPLACE VIEW key_broker_beside_cloudtrail AS
WITH ours AS (
  SELECT day, time, operation, key_arn, error_code, kms_request_id,
    coalesce(nullif(regexp_extract(identity, '^(arn:[^:]+:sts::[0-9]+:assumed-role/[^/]+)/', 1), ''), identity) AS role
  FROM key_broker_kms_calls
), theirs AS (
  SELECT eventtime AS time, eventname AS operation, errorcode AS error_code, requestid AS kms_request_id, useridentity.arn AS identity,
    sourceipaddress AS address, useragent AS user_agent,
    coalesce(nullif(regexp_extract(useridentity.arn, '^(arn:[^:]+:sts::[0-9]+:assumed-role/[^/]+)/', 1), ''), useridentity.arn) AS role
  FROM cloudtrail_logs
  WHERE eventsource = 'kms.amazonaws.com'
)
SELECT CASE WHEN theirs.kms_request_id IS NULL THEN 'trail only' WHEN ours.kms_request_id IS NULL THEN 'AWS only' ELSE 'both' END AS found_in,
  coalesce(theirs.time, ours.time) AS time, coalesce(theirs.operation, ours.operation) AS operation, ours.key_arn,
  coalesce(theirs.kms_request_id, ours.kms_request_id) AS kms_request_id, theirs.identity, theirs.address, theirs.user_agent,
  coalesce(ours.error_code, '') <> coalesce(theirs.error_code, '') AND theirs.kms_request_id IS NOT NULL
    AND ours.kms_request_id IS NOT NULL AS errors_differ
FROM ours FULL OUTER JOIN theirs ON ours.kms_request_id = theirs.kms_request_id AND ours.operation = theirs.operation
WHERE ours.role IS NOT NULL OR theirs.role IN (SELECT role FROM ours);

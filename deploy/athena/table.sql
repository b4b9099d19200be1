-- The records of all trails of one bucket, account and region, of all brokers, as a table of Athena. Replace BUCKET, 111122223333 and
-- us-west-2. Days are found by their folders (partition projection): nothing has to be added for a new day. Name a day, or days, in
-- every question: what is read is what is paid for.
CREATE EXTERNAL TABLE key_broker_trail (
  eventversion STRING, useridentity STRUCT<type: STRING, principalid: STRING, arn: STRING, accountid: STRING, accesskeyid: STRING,
    username: STRING, sessioncontext: STRUCT<sessionissuer: STRUCT<type: STRING, principalid: STRING, arn: STRING, accountid: STRING,
      username: STRING>>, invokedby: STRING, details: STRUCT<transport: STRING, uid: BIGINT, gid: BIGINT, pid: BIGINT, cid: BIGINT,
      certificatesha256: STRING, dnsname: STRING>>,
  eventtime STRING, eventsource STRING, eventname STRING, awsregion STRING, sourceipaddress STRING, useragent STRING,
  errorcode STRING, errormessage STRING, requestparameters STRING, responseelements STRING, additionaleventdata STRING,
  requestid STRING, eventid STRING, readonly STRING, resources ARRAY<STRUCT<arn: STRING, accountid: STRING, type: STRING>>,
  eventtype STRING, managementevent STRING, recipientaccountid STRING, eventcategory STRING,
  tlsdetails STRUCT<tlsversion: STRING, ciphersuite: STRING, clientprovidedhostheader: STRING, keyexchange: STRING>)
PARTITIONED BY (day STRING)
ROW FORMAT SERDE 'org.apache.hive.hcatalog.data.JsonSerDe'
STORED AS INPUTFORMAT 'com.amazon.emr.cloudtrail.CloudTrailInputFormat'
OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'
LOCATION 's3://BUCKET/AWSLogs/111122223333/CloudTrail/us-west-2/'
TBLPROPERTIES ('projection.enabled' = 'true', 'projection.day.type' = 'date', 'projection.day.format' = 'yyyy/MM/dd',
  'projection.day.range' = '2026/01/01,NOW', 'projection.day.interval' = '1', 'projection.day.interval.unit' = 'DAYS',
  'storage.location.template' = 's3://BUCKET/AWSLogs/111122223333/CloudTrail/us-west-2/${day}');

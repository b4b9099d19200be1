"""Copies a bucket into a directory with boto3, AWS's own client: ROOT/BUCKET/KEY, metadata beside it in KEY.meta.json.

mirror.py ENDPOINT BUCKET ROOT: prints a line of JSON for each object. Creates the bucket with `--create`, with Object Lock and a
default retention of a day. `putAgain` is what S3 says of a put where the object is.
"""

import json
import pathlib
import sys

import boto3
from botocore.exceptions import ClientError

arguments = [argument for argument in sys.argv[1:] if argument != "--create"]
endpoint, bucket, root = arguments
s3 = boto3.client(
    "s3",
    endpoint_url=endpoint,
    region_name="us-west-2",
    aws_access_key_id="AKIATESTEXAMPLE00000",
    aws_secret_access_key="test-only",
)
if "--create" in sys.argv:
    s3.create_bucket(
        Bucket=bucket,
        CreateBucketConfiguration={"LocationConstraint": "us-west-2"},
        ObjectLockEnabledForBucket=True,
    )
    retention = {"Mode": "COMPLIANCE", "Days": 1}
    s3.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
    )


def put_again(key):
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=b"another", IfNoneMatch="*")
        return "done"
    except ClientError as error:
        return error.response["Error"]["Code"]


for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
    for listed in page.get("Contents", []):
        key = listed["Key"]
        got = s3.get_object(Bucket=bucket, Key=key)
        path = pathlib.Path(root, bucket, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(got["Body"].read())
        if got["Metadata"]:
            pathlib.Path(f"{path}.meta.json").write_text(json.dumps(got["Metadata"]))
        facts = {
            "key": key,
            "contentType": got["ContentType"],
            "contentEncoding": got.get("ContentEncoding"),
            "encryption": got.get("ServerSideEncryption"),
            "kmsKey": got.get("SSEKMSKeyId"),
            "lock": got.get("ObjectLockMode"),
            "versions": len(s3.list_object_versions(Bucket=bucket, Prefix=key).get("Versions", [])),
            "putAgain": put_again(key),
        }
        print(json.dumps(facts))

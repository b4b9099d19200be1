"""Makes a bucket of what is below a directory: upload.py ENDPOINT BUCKET DIRECTORY."""

import pathlib
import sys

import boto3

endpoint, bucket, root = sys.argv[1:]
s3 = boto3.client(
    "s3",
    endpoint_url=endpoint,
    region_name="us-west-2",
    aws_access_key_id="AKIATESTEXAMPLE00000",
    aws_secret_access_key="test-only",
)
s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
for path in pathlib.Path(root).rglob("*"):
    if path.is_file():
        s3.put_object(Bucket=bucket, Key=str(path.relative_to(root)), Body=path.read_bytes())

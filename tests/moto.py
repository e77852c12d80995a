#!/usr/bin/env python3
"""Runs `multilangd check FILE --aws` on moto with a policy that lacks one permission at a time: each denial is named, and
nothing is written. Needs boto3 and moto (pip install 'moto[server]').

Usage: moto.py MULTILANGD
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import boto3

PORT = 5124
URL = f"http://127.0.0.1:{PORT}"
# Requests before moto enforces policies: a stream, a table, and three for each of two users.
REQUESTS = 8
FILE = """executableName = cat
streamName = orders
applicationName = app
regionName = us-east-1
AWSCredentialsProvider = DefaultCredentialsProvider
retrievalMode = FANOUT
"""
INDEX = "LeaseOwnerToLeaseKeyIndex"


def client(service, key=("x", "y")):
    access, secret = key
    keys = {"aws_access_key_id": access, "aws_secret_access_key": secret}
    return boto3.client(service, endpoint_url=URL, region_name="us-east-1", **keys)


def check(binary, file, arguments, key=("x", "y")):
    """The exit code and the output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    own = {"AWS_ACCESS_KEY_ID": key[0], "AWS_SECRET_ACCESS_KEY": key[1]}
    own |= {"AWS_ENDPOINT_URL": URL, "AWS_EC2_METADATA_DISABLED": "true"}
    command = [binary, "check", file, *arguments]
    done = subprocess.run(command, env=kept | own, capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout)


def start():
    """Moto on a new account."""
    environment = os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": str(REQUESTS)}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(PORT)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{URL}/favicon.ico", timeout=5)
            return server
        except urllib.error.HTTPError:
            return server
        except OSError:
            time.sleep(0.1)
    server.kill()
    sys.exit("moto does not start")


def user(name, statements):
    iam = client("iam")
    iam.create_user(UserName=name)
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def prepare(statements):
    """A stream, a lease table, a user with the policy; the keys of that user."""
    client("kinesis").create_stream(StreamName="orders", ShardCount=1)
    attribute = [{"AttributeName": name, "AttributeType": "S"} for name in ("leaseKey", "leaseOwner")]
    index = [{"AttributeName": "leaseOwner", "KeyType": "HASH"}, {"AttributeName": "leaseKey", "KeyType": "RANGE"}]
    dynamodb = client("dynamodb")
    projection = {"ProjectionType": "KEYS_ONLY"}
    dynamodb.create_table(
        TableName="app",
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        AttributeDefinitions=attribute,
        BillingMode="PAY_PER_REQUEST",
        GlobalSecondaryIndexes=[{"IndexName": INDEX, "KeySchema": index, "Projection": projection}],
    )
    return user("worker", statements)


def run(binary, file, policy, denied):
    """The findings with a policy that lacks an action."""
    # Moto compares actions, and no resources.
    actions = [[one for one in part["Action"] if one != denied] for part in policy]
    statements = [{"Effect": "Allow", "Resource": "*", "Action": part} for part in actions if part]
    server = start()
    try:
        key = prepare(statements)
        auditor = user("auditor", [{"Effect": "Allow", "Resource": "*", "Action": "*"}])
        code, shown = check(binary, file, ["--aws", "--json"], key)
        rows = client("dynamodb", auditor).scan(TableName="app")["Count"]
        assert rows == 0, rows
        return code, shown["aws"]["findings"]
    finally:
        server.terminate()
        server.wait()


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        file = str(pathlib.Path(folder, "moto.properties"))
        pathlib.Path(file).write_text(FILE)
        _, policy = check(binary, file, ["--permissions"])
        policy = policy["Statement"]
        code, findings = run(binary, file, policy, None)
        assert code == 0, findings
        # A permission that is not needed has a message.
        granted = [one for one in findings if one["section"] == "permissions" and one["status"] == "ok"]
        probed = {one["action"] for one in granted if not one["message"]}
        assert len(probed) >= 12, probed
        for action in sorted(probed):
            code, findings = run(binary, file, policy, action)
            denied = {(one["action"], one["resource"]) for one in findings if one["status"] == "denied"}
            assert code == 77 and {name for name, _ in denied} == {action}, (action, code, findings)
            for name, resource in sorted(denied):
                print(f"denied and named: {name} on {resource}")


main()

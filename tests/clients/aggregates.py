"""1,000 random KPL aggregates, created and deaggregated by PyPI's aws-kinesis-agg: one JSON line each, with `data`
(the record, base64) and `records` (its user records: partitionKey, data)."""
import base64
import json
import random
import sys

from aws_kinesis_agg import aggregator, deaggregator

dice = random.Random(int(sys.argv[1]))
ALPHABET = "abcdefgh0123 é世\"\\/\u2028"


def key():
    return "".join(dice.choice(ALPHABET) for _ in range(dice.randint(1, dice.choice([3, 40, 250]))))


for number in range(1000):
    made = aggregator.AggRecord()
    keys = [key() for _ in range(dice.randint(1, 8))]
    hashed = dice.random() < 0.5
    for _ in range(dice.choice([1, 2, 5, 40, 100])):
        data = dice.randbytes(dice.choice([0, 1, 2, 3, 50, 500]))
        explicit = str(dice.randrange(2**128)) if hashed else None
        made.add_user_record(dice.choice(keys), data, explicit)
    partition_key, _, data = made.get_contents()
    if number % 10 == 9:
        # A flipped bit invalidates the digest: this is a plain record.
        broken = bytearray(data)
        broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
        data = bytes(broken)
    record = {"kinesis": {
        "kinesisSchemaVersion": "1.0", "sequenceNumber": str(number), "partitionKey": partition_key,
        "approximateArrivalTimestamp": 1.5, "data": base64.b64encode(data)}}
    apart = deaggregator.deaggregate_records([record])
    text = lambda data: data.decode() if isinstance(data, bytes) else data
    print(json.dumps({
        "partitionKey": partition_key,
        "data": base64.b64encode(data).decode(),
        "records": [{"partitionKey": one["kinesis"]["partitionKey"], "data": text(one["kinesis"]["data"]),
                     "sub": one["kinesis"].get("subSequenceNumber", 0)} for one in apart],
    }))

"""A record processor with easy-kclpy, which passes one record at a time and checkpoints by sequence and
sub-sequence number. Reports every message to the test over a socket, and a batch at its checkpoint.

argv: PORT
"""
import base64
import json
import os
import socket
import sys

from amazon_kclpy import kcl
from easy_kclpy.kinesis_processor import PerRecordProcessorBase

test = socket.create_connection(("127.0.0.1", int(sys.argv[1]))).makefile("w")


class Processor(PerRecordProcessorBase):
    shard = "?"
    batch = []

    def report(self, what, body=None):
        test.write(json.dumps({"pid": os.getpid(), "shard": self.shard, "what": what, "body": body}) + "\n")
        test.flush()

    def initialize(self, initialize_input):
        super().initialize(initialize_input)
        # The library's own shard_id lacks "shardId-".
        self.shard = initialize_input.shard_id
        self.report("initialize")

    def process_record(self, data, partition_key, sequence_number, sub_sequence_number, approximate_arrival_timestamp):
        record = {
            "data": base64.b64encode(data).decode(),
            "partitionKey": partition_key,
            "sequenceNumber": str(sequence_number),
            "subSequenceNumber": sub_sequence_number,
        }
        self.batch = self.batch + [record]

    def should_checkpoint(self):
        return True

    def before_checkpoint(self, sequence_number, sub_sequence_number):
        self.report("processRecords", {"records": self.batch})
        self.batch = []

    def after_checkpoint(self, sequence_number, sub_sequence_number):
        self.report("checkpointed")

    def lease_lost(self, lease_lost_input):
        super().lease_lost(lease_lost_input)
        self.report("leaseLost")

    def shard_ended(self, shard_ended_input):
        super().shard_ended(shard_ended_input)
        self.report("shardEnded")

    def shutdown_requested(self, shutdown_requested_input):
        super().shutdown_requested(shutdown_requested_input)
        self.report("shutdownRequested")


kcl.KCLProcess(Processor()).run()

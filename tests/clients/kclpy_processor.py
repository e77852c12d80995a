"""A record processor on amazon_kclpy, version 3 of its interface. Reports what it gets to the test
over a socket, checkpoints after each batch, in shardEnded and in shutdownRequested.

argv: PORT
"""
import base64
import json
import os
import socket
import sys

from amazon_kclpy import kcl
from amazon_kclpy.v3 import processor

test = socket.create_connection(("127.0.0.1", int(sys.argv[1]))).makefile("w")


class Processor(processor.RecordProcessorBase):
    shard = "?"

    def report(self, what, body=None):
        test.write(json.dumps({"pid": os.getpid(), "shard": self.shard, "what": what, "body": body}) + "\n")
        test.flush()

    def checkpoint(self, checkpointer):
        checkpointer.checkpoint()
        self.report("checkpointed")

    def initialize(self, initialize_input):
        self.shard = initialize_input.shard_id
        start = {"sequenceNumber": initialize_input.sequence_number}
        self.report("initialize", start)

    def process_records(self, process_records_input):
        records = [
            {
                "data": base64.b64encode(record.binary_data).decode(),
                "partitionKey": record.partition_key,
                "sequenceNumber": record.sequence_number,
                "subSequenceNumber": record.sub_sequence_number,
            }
            for record in process_records_input.records
        ]
        self.report("processRecords", {"records": records})
        print("a user's print on stdout")
        self.checkpoint(process_records_input.checkpointer)

    def lease_lost(self, lease_lost_input):
        self.report("leaseLost")

    def shard_ended(self, shard_ended_input):
        self.checkpoint(shard_ended_input.checkpointer)
        self.report("shardEnded")

    def shutdown_requested(self, shutdown_requested_input):
        self.checkpoint(shutdown_requested_input.checkpointer)
        self.report("shutdownRequested")


kcl.KCLProcess(Processor()).run()

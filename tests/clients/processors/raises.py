"""A record processor with amazon_kclpy that raises an exception at records whose data begins with "poison". Reports
every record that it has processed to the test over a socket, and checkpoints after each batch.

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

    def initialize(self, initialize_input):
        self.shard = initialize_input.shard_id
        self.report("initialize")

    def process_records(self, process_records_input):
        for record in process_records_input.records:
            if record.binary_data.startswith(b"poison"):
                raise ValueError("cannot parse poison")
            self.report("processRecords", {"records": [{
                "data": base64.b64encode(record.binary_data).decode(),
                "partitionKey": record.partition_key,
                "sequenceNumber": record.sequence_number,
                "subSequenceNumber": record.sub_sequence_number,
            }]})
        process_records_input.checkpointer.checkpoint()
        self.report("checkpointed")

    def lease_lost(self, lease_lost_input):
        pass

    def shard_ended(self, shard_ended_input):
        shard_ended_input.checkpointer.checkpoint()

    def shutdown_requested(self, shutdown_requested_input):
        shutdown_requested_input.checkpointer.checkpoint()


kcl.KCLProcess(Processor()).run()

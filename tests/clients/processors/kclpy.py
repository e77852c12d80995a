"""A record processor with each of the three interfaces of amazon_kclpy. Reports every message to the
test over a socket, checkpoints after each batch, at the end of the shard and in shutdownRequested.

argv: PORT INTERFACE (v1, v2 or v3)

In v1 and v2 the end of the shard is shutdown(TERMINATE) and a lost lease is shutdown(ZOMBIE).
"""
import base64
import json
import os
import socket
import sys

from amazon_kclpy import kcl

test = socket.create_connection(("127.0.0.1", int(sys.argv[1]))).makefile("w")


class Events:
    """The common part of the three interfaces."""

    shard = "?"

    def report(self, what, body=None):
        test.write(json.dumps({"pid": os.getpid(), "shard": self.shard, "what": what, "body": body}) + "\n")
        test.flush()

    def checkpoint(self, checkpointer):
        checkpointer.checkpoint()
        self.report("checkpointed")

    def begins(self, shard):
        self.shard = shard
        self.report("initialize")

    def has(self, records, checkpointer):
        body = [
            {
                "data": base64.b64encode(record.binary_data).decode(),
                "partitionKey": record.partition_key,
                "sequenceNumber": record.sequence_number,
                "subSequenceNumber": record.sub_sequence_number,
            }
            for record in records
        ]
        self.report("processRecords", {"records": body})
        print("a user's print on stdout")
        self.checkpoint(checkpointer)

    def ends(self, checkpointer):
        self.checkpoint(checkpointer)
        self.report("shardEnded")

    def shuts_down(self, reason, checkpointer):
        if reason == "TERMINATE":
            self.ends(checkpointer)
        else:
            self.report({"ZOMBIE": "leaseLost"}[reason])

    def is_asked_to_stop(self, checkpointer):
        self.checkpoint(checkpointer)
        self.report("shutdownRequested")


def first():
    class Processor(Events, kcl.RecordProcessorBase):
        def initialize(self, shard_id):
            self.begins(shard_id)

        def process_records(self, records, checkpointer):
            self.has(records, checkpointer)

        def shutdown(self, checkpointer, reason):
            self.shuts_down(reason, checkpointer)

        def shutdown_requested(self, checkpointer):
            self.is_asked_to_stop(checkpointer)

    return Processor()


def second():
    from amazon_kclpy.v2 import processor

    class Processor(Events, processor.RecordProcessorBase):
        def initialize(self, initialize_input):
            self.begins(initialize_input.shard_id)

        def process_records(self, process_records_input):
            self.has(process_records_input.records, process_records_input.checkpointer)

        def shutdown(self, shutdown_input):
            self.shuts_down(shutdown_input.reason, shutdown_input.checkpointer)

        def shutdown_requested(self, shutdown_requested_input):
            self.is_asked_to_stop(shutdown_requested_input.checkpointer)

    return Processor()


def third():
    from amazon_kclpy.v3 import processor

    class Processor(Events, processor.RecordProcessorBase):
        def initialize(self, initialize_input):
            self.begins(initialize_input.shard_id)

        def process_records(self, process_records_input):
            self.has(process_records_input.records, process_records_input.checkpointer)

        def lease_lost(self, lease_lost_input):
            self.report("leaseLost")

        def shard_ended(self, shard_ended_input):
            self.ends(shard_ended_input.checkpointer)

        def shutdown_requested(self, shutdown_requested_input):
            self.is_asked_to_stop(shutdown_requested_input.checkpointer)

    return Processor()


kcl.KCLProcess({"v1": first, "v2": second, "v3": third}[sys.argv[2]]()).run()

#!/usr/bin/env python3
"""A record processor on amazon_kclpy 2 or 3."""
import sys

from amazon_kclpy import kcl
from amazon_kclpy.v3 import processor


class Orders(processor.RecordProcessorBase):
    def initialize(self, initialize_input):
        print("reading", initialize_input.shard_id, file=sys.stderr)

    def process_records(self, process_records_input):
        for record in process_records_input.records:
            print(record.binary_data, file=sys.stderr)  # stdout belongs to the protocol
        process_records_input.checkpointer.checkpoint()

    def lease_lost(self, lease_lost_input):
        pass

    def shard_ended(self, shard_ended_input):
        shard_ended_input.checkpointer.checkpoint()

    def shutdown_requested(self, shutdown_requested_input):
        shutdown_requested_input.checkpointer.checkpoint()


kcl.KCLProcess(Orders()).run()

#!/usr/bin/env node
// A record processor on aws-kcl 2 (npm).
'use strict';

const kcl = require('aws-kcl');

// The end of a shard and a stop are not answered before the checkpoint is stored.
function checkpoint(checkpointer, done) {
  checkpointer.checkpoint((error) => {
    if (error) {
      console.error('checkpoint failed:', error);
    }
    done();
  });
}

kcl({
  initialize(input, done) {
    console.error('reading', input.shardId);
    done();
  },
  processRecords(input, done) {
    for (const record of input.records) {
      console.error(Buffer.from(record.data, 'base64').toString('utf8')); // stdout belongs to the protocol
    }
    checkpoint(input.checkpointer, done);
  },
  leaseLost(_input, done) {
    done();
  },
  shardEnded(input, done) {
    checkpoint(input.checkpointer, done);
  },
  shutdownRequested(input, done) {
    checkpoint(input.checkpointer, done);
  },
}).run();

// A record processor with either of the two interfaces of aws-kcl. Reports every message to the test over
// a socket, checkpoints after each batch, at the end of the shard and in shutdownRequested.
//
// argv: PORT INTERFACE (v1 or v2)
//
// In v1 the end of the shard is shutdown(TERMINATE) and a lost lease is shutdown(ZOMBIE).
'use strict';

const kcl = require('aws-kcl');

const [port, version] = process.argv.slice(2);
const test = require('net').createConnection(Number(port), '127.0.0.1');
let shard = '?';

// Answers an action only after its report is sent, so that the test receives events in order.
function report(what, body, then) {
  test.write(JSON.stringify({ pid: process.pid, shard, what, body }) + '\n', () => then());
}

function checkpoint(checkpointer, then) {
  checkpointer.checkpoint((error) => {
    if (error) {
      console.error('checkpoint failed:', error);
      return then();
    }
    report('checkpointed', null, then);
  });
}

const both = {
  initialize(input, done) {
    shard = input.shardId;
    report('initialize', null, done);
  },
  processRecords(input, done) {
    console.log("a user's print on stdout");
    report('processRecords', { records: input.records }, () => checkpoint(input.checkpointer, done));
  },
  shutdownRequested(input, done) {
    checkpoint(input.checkpointer, () => report('shutdownRequested', null, done));
  },
};

function shardEnded(input, done) {
  checkpoint(input.checkpointer, () => report('shardEnded', null, done));
}

function leaseLost(_input, done) {
  report('leaseLost', null, done);
}

const versions = {
  v1: { ...both, shutdown: (input, done) => ({ TERMINATE: shardEnded, ZOMBIE: leaseLost })[input.reason](input, done) },
  v2: { ...both, shardEnded, leaseLost },
};

test.on('connect', () => {
  // The library exits when stdin ends; the socket alone must not keep the process running.
  test.unref();
  kcl(versions[version]).run();
});

#!/usr/bin/env node
// A record processor without any library: counts words and checkpoints after every batch.
//
// multilangd starts one such process for each shard. Each line on stdin is a JSON message. The processor acts on it
// and answers with a status line on stdout. Lines on stderr go to the daemon's log.
'use strict';

// node:readline is not used: it also ends a line at U+2028 and U+2029, which a partition key may contain.
async function* readMessages() {
  let pieces = [];
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin) {
    const [first, ...others] = chunk.split('\n');
    pieces.push(first);
    for (const next of others) {
      yield JSON.parse(pieces.join(''));
      pieces = [next];
    }
  }
}

// Checkpoint errors that pass: the checkpoint is requested again after a pause.
const RETRIED = ['ThrottlingException', 'KinesisClientLibDependencyException'];

function send(message) {
  process.stdout.write(JSON.stringify(message) + '\n');
}

// Asks the daemon to store the position after the last delivered record, and waits for its answer.
async function checkpoint(messages) {
  for (const pause of [1, 2, 4, null]) {
    send({ action: 'checkpoint' });
    const { value, done } = await messages.next();
    if (done) {
      throw new Error('stdin ended before the checkpoint was answered');
    }
    if (value.error) {
      console.error('checkpoint failed:', value.error);
    }
    if (!RETRIED.includes(value.error) || pause === null) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, pause * 1000));
  }
}

async function main() {
  const counts = new Map();
  const messages = readMessages();
  for (;;) {
    const { value: message, done } = await messages.next();
    if (done) {
      return;
    }
    switch (message.action) {
      case 'initialize':
        console.error(`${message.shardId}: starting after ${message.sequenceNumber}`);
        break;
      case 'processRecords':
        for (const record of message.records) {
          const [word] = Buffer.from(record.data, 'base64').toString('utf8').split(' ');
          counts.set(word, (counts.get(word) ?? 0) + 1);
        }
        await checkpoint(messages);
        break;
      case 'shardEnded':
      case 'shutdownRequested': {
        await checkpoint(messages);
        const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
        console.error(`${message.action}: ${total} records of ${counts.size} different words`);
        break;
      }
      // leaseLost needs no action: another worker owns the shard, and a checkpoint would fail.
    }
    send({ action: 'status', responseFor: message.action });
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

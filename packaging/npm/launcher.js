#!/usr/bin/env node
'use strict';
// Starts the binary of this platform. The install script replaces this file by the binary, where scripts may run.

const { spawn } = require('child_process');
const { binary } = require('../lib/binary');

let file;
try {
  file = binary();
} catch (error) {
  console.error(`multilangd: ${error.message}`);
  process.exit(1);
}

// The daemon must see the signals that a supervisor sends to this process. It treats those that arrive within a second
// as one, so a Ctrl-C, which the terminal sends to both, is still one request.
const child = spawn(file, process.argv.slice(2), { stdio: 'inherit' });
const signals = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'];
for (const signal of signals) {
  process.on(signal, () => child.kill(signal));
}
child.on('error', (error) => {
  console.error(`multilangd: failed to start ${file}: ${error.message}`);
  process.exit(1);
});
child.on('exit', (code, signal) => {
  if (signal) {
    for (const name of signals) process.removeAllListeners(name);
    process.kill(process.pid, signal);
  } else {
    process.exit(code);
  }
});

'use strict';
// Replaces the launcher by the binary itself, so that no Node process stays between a supervisor and the daemon.
// Where this fails or is not run (--ignore-scripts), the launcher stays and works.

const fs = require('fs');
const path = require('path');
const { binary } = require('./binary');

const launcher = path.join(__dirname, '..', 'bin', 'multilangd');
const next = `${launcher}.${process.pid}`;
// Yarn runs the file of "bin" with node, so there it must remain JavaScript.
const yarn = /^yarn\//.test(process.env.npm_config_user_agent || '');

try {
  const source = binary();
  if (!yarn) {
    // A rename, because package managers share the file by hard links.
    try {
      fs.linkSync(source, next);
    } catch {
      fs.copyFileSync(source, next);
    }
    fs.chmodSync(next, 0o755);
    fs.renameSync(next, launcher);
  }
} catch (error) {
  fs.rmSync(next, { force: true });
  console.warn(`multilangd: the launcher stays in place: ${error.message}`);
}

'use strict';
// The path of the binary that npm installed for this platform.

const name = `multilangd-${process.platform}-${process.arch}`;

function binary() {
  try {
    return require.resolve(`${name}/bin/multilangd`);
  } catch (error) {
    throw new Error(
      `package ${name} is not installed: ${error.code}` +
        ' (was npm run with --omit=optional or --no-optional, or is node_modules from another platform?)'
    );
  }
}

module.exports = { binary };

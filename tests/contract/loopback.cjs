// Preloaded into kinesis-local, which asks for every interface: whatever listens, listens on 127.0.0.1.
const { Server } = require('node:net');
const listen = Server.prototype.listen;
Server.prototype.listen = function (first, ...rest) {
  if (first !== null && typeof first === 'object') return listen.call(this, { ...first, host: '127.0.0.1' }, ...rest);
  const others = typeof rest[0] === 'string' ? rest.slice(1) : rest;
  return listen.call(this, { port: Number(first), host: '127.0.0.1' }, ...others.filter((arg) => typeof arg === 'function'));
};

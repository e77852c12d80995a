#!/usr/bin/env python3
"""private-network.py CERTIFICATE KEY PORT...   a network for tests whose only way out is a proxy.

Serves TLS with the certificate on a free loopback port in front of each PORT, and an HTTP proxy (CONNECT), which alone
knows the name of the certificate's host. Prints the ports as one line: the proxy's, then one for each PORT. The proxy
writes a line to stderr for each tunnel.
"""
import asyncio
import ssl
import sys

HOST = "host.docker.internal"


async def copy(source, sink):
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        sink.close()


async def join(reader, writer, port):
    try:
        there, back = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        writer.close()
        return
    await asyncio.gather(copy(reader, back), copy(there, writer))


async def tunnel(reader, writer):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    method, target, _ = head.split("\r\n", 1)[0].split(" ")
    host, _, port = target.rpartition(":")
    if method != "CONNECT" or host != HOST:
        print("refused", method, target, file=sys.stderr, flush=True)
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()
        return
    print("tunnel to", target, file=sys.stderr, flush=True)
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    await join(reader, writer, int(port))


async def main(certificate, key, *ports):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    servers = [await asyncio.start_server(tunnel, "127.0.0.1", 0)]
    for port in ports:
        forward = lambda reader, writer, port=int(port): join(reader, writer, port)
        servers.append(await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context))
    print(*[server.sockets[0].getsockname()[1] for server in servers], flush=True)
    await asyncio.gather(*[server.serve_forever() for server in servers])


asyncio.run(main(*sys.argv[1:]))

"""A TCP proxy before PostgreSQL that reads the protocol and cuts connections at their COMMIT. Without TLS."""
import asyncio
import re
import struct
import threading

import harness

ENDED = re.compile(rb"C\0\0\0.(COMMIT|ROLLBACK)\0", re.S)  # how the server tells that it is done
BEFORE, WHILE, AFTER = "before it is sent", "once it is sent", "once it is done"


class Proxy:
    """self.plan(): asked at each COMMIT; None, or where that connection is cut. self.cuts: how often each was done."""

    def __init__(self, port):
        self.target, self.port = port, harness.free_port()
        self.plan = lambda: None
        self.cuts = {BEFORE: 0, WHILE: 0, AFTER: 0}
        self.loop = asyncio.new_event_loop()
        self.server = None
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        assert started.wait(10)

    def _run(self, started):
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        started.set()
        self.loop.run_forever()

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def _serve(self, client, client_out):
        try:
            server, server_out = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            client_out.transport.abort()
            return
        link = Link(self, client, client_out, server, server_out)
        try:
            await asyncio.gather(link.upwards(), link.downwards())
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            client_out.transport.abort()
            server_out.close()


class Link:
    """One connection. A COMMIT is a Bind of a statement that was prepared as that."""

    def __init__(self, proxy, client, client_out, server, server_out):
        self.proxy, self.client, self.client_out, self.server, self.server_out = proxy, client, client_out, server, server_out
        self.commits = set()
        self.swallow = False

    async def upwards(self):
        size, = struct.unpack("!I", head := await self.client.readexactly(4))
        self.server_out.write(head + await self.client.readexactly(size - 4))
        cut = None
        while True:
            head = await self.client.readexactly(5)
            size, = struct.unpack("!I", head[1:])
            body = await self.client.readexactly(size - 4)
            if head[:1] == b"P":
                name, sql, _ = body.split(b"\0", 2)
                if sql == b"COMMIT":
                    self.commits.add(name)
            if head[:1] == b"B" and body.split(b"\0", 2)[1] in self.commits:
                cut = self.proxy.plan()
                if cut:
                    self.proxy.cuts[cut] += 1
                if cut == BEFORE:
                    raise ConnectionError
                self.swallow = cut == AFTER
            self.server_out.write(head + body)
            if head[:1] == b"S" and cut == WHILE:
                await self.server_out.drain()
                raise ConnectionError

    async def downwards(self):
        data = b""
        while ENDED.search(data) is None:
            more = await self.server.read(65536)
            if not more:
                break
            if self.swallow:
                data += more
            else:
                self.client_out.write(more)
        raise ConnectionError

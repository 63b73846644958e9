# SPDX-License-Identifier: BSD-2-Clause
"""A TCP proxy that behaves like a bad network.

    with Proxy(port) as net:      # listens on net.port, forwards to 127.0.0.1:port
        net.delay = 0.05          # seconds, each direction
        net.rate = 1 << 20        # bytes per second, each direction; None: no limit
        net.stall(); net.resume() # bytes stop, connections stay
        net.hush()                # bytes to the clients stop, what they send goes on; until resume()
        net.cut()                 # reset every connection; new ones are accepted
        net.close(); net.open()   # nobody listens any more; again
        net.flip_at(5000)         # flip one bit in the 5000th byte from now that the client sends
        net.repeat_at(5000, 100)  # from the 5000th byte on that the client sends, 100 bytes (or what comes at once) come twice
        net.cut_after(5000)       # reset the connection after that many more bytes of the client
        net.up, net.down          # bytes forwarded so far: from clients, to clients

All settings may change while connections are open. One thread with its own event loop does the work.
"""
import asyncio
import random
import socket
import struct
import threading

from lib.procs import free_port

CHUNK = 32 << 10


class Proxy:
    def __init__(self, port, host="127.0.0.1"):
        self.target = (host, port)
        self.delay = 0.0
        self.rate = None
        self.up = self.down = 0
        self.connections = 0  # accepted so far
        self._flip = self._cut = self._repeat = None  # bytes of clients left until it happens
        self._length = 0  # of what is repeated
        self._pairs = set()
        self._loop = asyncio.new_event_loop()
        self._flow = self._answers = None
        self._server = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self.port = free_port()  # stays ours while close() leaves it to nobody
        self._sock = self._bound()

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_):
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    # what a test may ask for

    def cut(self):
        """Reset every connection."""
        self._call(self._reset)

    def stall(self):
        """Keep connections, forward nothing; new connections are accepted and stall, too."""
        self._call(lambda: self._flow.clear())

    def hush(self):
        """As stall(), but what clients send goes on."""
        self._call(lambda: self._answers.clear())

    def resume(self):
        self._call(lambda: (self._flow.set(), self._answers.set()))

    def close(self):
        """Reset every connection and listen no more."""
        async def down():
            if self._server:
                self._server.close()
                self._server = None
            self._reset()
        asyncio.run_coroutine_threadsafe(down(), self._loop).result(10)

    def open(self):
        """Listen again after close()."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def flip_at(self, count):
        """Flip a bit in the count-th byte from now that a client sends."""
        self._flip = count

    def repeat_at(self, count, length):
        """A segment of the stream, length bytes from the count-th from now that a client sends, arrives twice."""
        self._length = length
        self._repeat = count

    def cut_after(self, count):
        """Reset the connection after count more bytes of the client."""
        self._cut = count

    # the event loop's side

    def _call(self, fn):
        done = threading.Event()

        def run():
            fn()
            done.set()
        self._loop.call_soon_threadsafe(run)
        done.wait(10)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._flow = asyncio.Event()
        self._flow.set()
        self._answers = asyncio.Event()
        self._answers.set()
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _bound(self):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port))
        return sock

    async def _listen(self):
        if self._server:
            return
        if self._sock.fileno() < 0:
            self._sock = self._bound()
        self._server = await asyncio.start_server(self._accept, sock=self._sock)

    def _reset(self):
        for pair in list(self._pairs):
            for writer in pair:
                sock = writer.get_extra_info("socket")
                if sock is not None and sock.fileno() >= 0:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
        self._pairs.clear()

    async def _accept(self, reader, writer):
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(reader, far_writer, True), self._pump(far_reader, writer, False))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._pairs.discard(pair)
            for w in pair:
                w.transport.abort()

    async def _pump(self, reader, writer, from_client):
        queue = asyncio.Queue(256)

        async def forward():
            free = 0.0  # when what was sent before has left; not when we woke up, which is always late
            while True:
                due, data = await queue.get()
                if self.rate and data:
                    due = free = max(free, due) + len(data) / self.rate
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                await self._flow.wait()
                if not from_client:
                    await self._answers.wait()
                if data is None:
                    if not writer.is_closing() and writer.can_write_eof():
                        writer.write_eof()
                    return
                data = self._damage(data) if from_client else data
                writer.write(data)
                await writer.drain()
                if from_client:
                    self.up += len(data)
                else:
                    self.down += len(data)

        sender = asyncio.ensure_future(forward())
        try:
            while True:
                data = await reader.read(CHUNK)
                await queue.put((self._loop.time() + self.delay, data or None))
                if not data:
                    break
            await sender
        finally:
            sender.cancel()

    def _damage(self, data):
        if self._flip is not None:
            if self._flip < len(data):
                changed = bytearray(data)
                changed[self._flip] ^= 1 << random.randrange(8)
                data, self._flip = bytes(changed), None
            else:
                self._flip -= len(data)
        if self._repeat is not None:
            if self._repeat < len(data):
                at, self._repeat = self._repeat, None
                data = data[:at + self._length] + data[at:]
            else:
                self._repeat -= len(data)
        if self._cut is not None:
            if self._cut < len(data):
                self._cut = None
                self._loop.call_soon(self._reset)
            else:
                self._cut -= len(data)
        return data

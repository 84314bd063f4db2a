"""A RabbitMQ of a test's own on a free port, gone when the test is; tests/support/rabbit-server says how it is run."""
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pika

import harness

logging.getLogger("pika").setLevel(logging.CRITICAL)  # a page for every try while the broker is away
SCRIPT = harness.ROOT / "tests" / "support" / "rabbit-server"


def three_free_ports():
    """PORT, and the two behind it that the script takes too. Below those that the system gives to clients, one of whom might have
    it when a broker that was killed is to come back."""
    while True:
        port = random.randrange(24000, 32700, 3)
        try:
            for p in (port, port + 1, port + 2):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", p))
        except OSError:
            continue
        if all(harness.claim(p) for p in (port, port + 1, port + 2)):
            return port


class Rabbit:
    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="payflow-rabbit-", dir="/tmp"))
        self.port = three_free_ports()
        self.process = None
        self.start()

    @property
    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self, timeout=180):
        with open(self.dir / "out", "ab") as log:
            self.process = subprocess.Popen([SCRIPT, self.dir, str(self.port)], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        end = time.monotonic() + timeout
        while not self._answers():
            assert time.monotonic() < end and self.process.poll() is None, (self.dir / "out").read_text()
            time.sleep(0.1)

    def _answers(self):
        try:
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
            return True
        except (pika.exceptions.AMQPError, OSError):
            return False

    def channel(self):
        """A connection and its channel, of an outsider."""
        c = pika.BlockingConnection(pika.URLParameters(self.url))
        return c, c.channel()

    def kill9(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def freeze(self):
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        os.killpg(self.process.pid, signal.SIGCONT)

    def close(self):
        if self.process.poll() is None:
            self.kill9()
        subprocess.run([SCRIPT, self.dir, str(self.port), "stop"], check=False, timeout=20)
        shutil.rmtree(self.dir, ignore_errors=True)

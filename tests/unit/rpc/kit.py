"""What the tests of src/rpc with independent clients share: the echo server as a process, messages made from the .proto
files at run time (the names of generated modules would collide with python3-grpcio's own), and channels."""
import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SERVER = os.environ["ECHO_SERVER"]
SANITIZED = os.environ.get("ECHO_SANITIZED") == "true"
# What a hostile client may make the server keep; AddressSanitizer keeps freed memory for a while.
GROWTH_MIB = 96 if SANITIZED else 48


def _messages():
    pool, out = descriptor_pool.DescriptorPool(), {}
    with tempfile.TemporaryDirectory() as d:
        for root, files in (HERE, ["echo.proto"]), (ROOT / "proto", [
                "grpc/health/v1/health.proto", "grpc/reflection/v1/reflection.proto",
                "grpc/reflection/v1alpha/reflection.proto", "booking/v1/booking.proto"]):
            subprocess.run(["protoc", "-I", str(root), "-o", f"{d}/set", *files], check=True)
            files = descriptor_pb2.FileDescriptorSet.FromString(Path(d, "set").read_bytes())
            for f in files.file:
                pool.Add(f)
                for m in f.message_type:
                    name = f"{f.package}.{m.name}"
                    out[name] = message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName(name))
    return out


MESSAGES = _messages()
Ask, Told = MESSAGES["echo.v1.Ask"], MESSAGES["echo.v1.Told"]


def method(channel, path, request=Ask, answer=Told, kind="unary_unary"):
    return getattr(channel, kind)(path, request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
                                  response_deserializer=answer.FromString)


class Server:
    """echo_server with these settings."""

    def __init__(self, **settings):
        self.scheme = "https" if "tls_cert" in settings else "http"
        env = dict(os.environ)
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8"
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([SERVER, *(f"{k}={v}" for k, v in settings.items())], stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, env=env)
        self.port = int(self.process.stdout.readline())
        self.target = f"127.0.0.1:{self.port}"

    def channel(self, *options):
        return grpc.insecure_channel(self.target, options=[("grpc.use_local_subchannel_pool", 1), *options])

    def rss_mib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def said(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")

    def counters(self):
        """The metrics: {series: value}."""
        with self.channel() as c:
            text = method(c, "/echo.v1.Echo/Counters")(Ask(), timeout=20).text
        return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}

    def alive(self):
        """It serves another client, at once."""
        with self.channel() as c:
            return method(c, "/echo.v1.Echo/Say")(Ask(text="there?"), timeout=20).text == "there?"

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server does not end") from None
        assert code == 0, f"the server ended with {code}:\n{self.said()[-6000:]}"


@contextlib.contextmanager
def serving(**settings):
    server = Server(**settings)
    try:
        yield server
    finally:
        server.stop()


def eventually(check, timeout=15.0):
    """Polls until check() is truthy; its value."""
    end = time.monotonic() + timeout
    while not (value := check()):
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.02)
    return value

"""gRPC: src/rpc beside Debian's gRPC C++ server, both answering the same call to the same client (h2load)."""

import re
import struct
import subprocess

from common import HERE, ROOT, note, sh

PATH = "/noop.Noop/Say"
HEADERS = ["-H", "content-type: application/grpc", "-H", "te: trailers"]


def program(out, name, source, *more):
    """One on src/rpc, in out, where what is made of the .proto files goes as well."""
    proto = ROOT / "proto"
    ours = ["grpc/health/v1/health", "grpc/reflection/v1/reflection", "booking/v1/booking"]
    sh("protoc", "-I", proto, f"--c_out={out}", *(f"{n}.proto" for n in ours))
    sh(proto / "embed.py", "protoc", proto, "rpc_files", out / "rpc_files.c", out / "rpc_files.h",
       *(proto / f"{n}.proto" for n in (*ours[:2], "grpc/reflection/v1alpha/reflection")))
    sources = [f for room in ("rpc", "telemetry", "base") for f in sorted((ROOT / "src" / room).glob("*.c"))]
    sh("gcc", "-std=gnu17", "-O2", "-D_GNU_SOURCE", "-I", ROOT / "src", "-I", out, "-o", out / name, HERE / source, *more,
       *sources, out / "rpc_files.c", *(out / f"{n}.pb-c.c" for n in ours),
       "-lnghttp2", "-lprotobuf-c", "-lssl", "-lcrypto", "-lpthread", "-lm")
    return out / name


def build(folder):
    """Both servers, from one .proto file."""
    out = folder / "rpc"
    out.mkdir()
    sh("protoc", "-I", HERE, f"--c_out={out}", f"--cpp_out={out}", f"--grpc_out={out}",
       f"--plugin=protoc-gen-grpc={sh('which', 'grpc_cpp_plugin').strip()}", "noop.proto")
    program(out, "own", "grpc_own.c", out / "noop.pb-c.c")
    flags = sh("pkg-config", "--cflags", "--libs", "grpc++", "protobuf").split()
    sh("g++", "-std=c++17", "-O2", "-I", out, "-o", out / "peer", HERE / "grpc_peer.cc", out / "noop.pb.cc",
       out / "noop.grpc.pb.cc", *flags)
    return out


class Server:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}{PATH}"

    def stop(self):
        self.process.kill()
        self.process.wait()


def body(folder):
    """A message behind its prefix, as h2load sends it."""
    text = b"\x0a\x20" + b"0123456789abcdef" * 2
    path = folder / "rpc" / "body"
    path.write_bytes(b"\0" + struct.pack(">I", len(text)) + text)
    return path


def load(server, data, connections, streams, seconds):
    text = sh("h2load", "-t", 1, "-c", connections, "-m", streams, "-D", seconds, "-d", data, *HEADERS, server.url)
    rate = float(re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", text)[1])
    failed = re.search(r"(\d+) failed, (\d+) errored", text)
    return {"rate": rate, "failed": int(failed[1]) + int(failed[2])}


def section(o, report, spread, form):
    note("building both gRPC servers")
    out = build(o.folder)
    data = body(o.folder)
    ours, theirs = Server(out / "own"), Server(out / "peer")
    try:
        for s in ours, theirs:
            said = sh("nghttp", "-v", "-d", data, *HEADERS, s.url)
            if "grpc-status: 0" not in said:
                report.faults.append("a gRPC server does not answer OK")
        for connections, streams in (1, 64), (8, 8):
            a, b = [], []
            for n in range(o.rounds + 1):
                seconds = o.seconds if n else 1
                x, y = load(ours, data, connections, streams, seconds), load(theirs, data, connections, streams, seconds)
                report.check_load(f"gRPC, round {n}", x, y)
                if n:
                    a.append(x["rate"])
                    b.append(y["rate"])
                    note(f"{connections} × {streams} streams: {x['rate']:,.0f}/s, gRPC C++ {y['rate']:,.0f}/s")
            ratio = sorted(p / q for p, q in zip(a, b))[len(a) // 2]
            report.row(f"gRPC unary calls/s, {connections} connection{'s' * (connections > 1)} × {streams} streams",
                       spread(a, form), f"gRPC C++: {spread(b, form)}", f"{ratio:.2f}", "≥ 1 ×", ratio >= 1)
    finally:
        ours.stop()
        theirs.stop()

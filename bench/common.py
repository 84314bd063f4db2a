"""What the parts of the benchmark share: running programs, waiting for them, and telling how it goes."""

import contextlib
import os
import socket
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
COUNT, TWO = "{:,.0f}".format, "{:.2f}".format
BINARY = Path(os.environ.get("PAYFLOW_BIN", ROOT / "build" / "payflow"))


def note(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def sh(*command, **kw):
    """Runs a command to its end and returns what it wrote; its complaints if it fails."""
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, text=True, capture_output=True,
                          check=False, **kw)
    if done.returncode:
        sys.exit(f"bench: {command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def free_port(run=1):
    """The first of so many ports in a row that nobody listens on."""
    while True:
        with contextlib.ExitStack() as held, contextlib.suppress(OSError, OverflowError):
            first = 0
            for n in range(run):
                s = held.enter_context(socket.socket())
                s.bind(("127.0.0.1", first + n if n else 0))
                first = first or s.getsockname()[1]
            return first


def median(rows, field):
    return statistics.median(r[field] for r in rows)


def of(rows, field):
    return [r[field] for r in rows]


def spread(values, form):
    return f"{form(statistics.median(values))} ({form(min(values))}–{form(max(values))})"

"""What the parts of the benchmark share: running programs, waiting for them, and telling how it goes."""

import socket
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BINARY = ROOT / "build" / "payflow"


def note(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def sh(*command, **kw):
    """Runs a command to its end and returns what it wrote; its complaints if it fails."""
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, text=True, capture_output=True,
                          check=False, **kw)
    if done.returncode:
        sys.exit(f"bench: {command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def median(rows, field):
    return statistics.median(r[field] for r in rows)

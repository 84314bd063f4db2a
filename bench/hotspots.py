"""Where the CPU time of a request goes: samples of `perf`, put down to the part of the house that they were taken in."""

import collections
import re
import shutil
import subprocess
import sys
from pathlib import Path

from common import sh

# The innermost frame that is named here says which part a sample belongs to; libraries and the kernel count for the
# part that called them. First the names, then the part.
PARTS = [
    ("journal: rows, seal, commit, fsync", r"store_group_\w+|sqlite_\w+|book_\w+"),
    ("decide and evolve", r"ledger_\w+|decide\w*|process|gather\w*|slot_for\w*|take_group|step|linger"),
    ("answers back to the I/O threads", r"http_resume|ledger_done|finish_all"),
    ("authentication, rights, limits", r"app_authenticate|app_admit|app_rate_check|app_require_owner"),
    ("JSON in", r"json_parse|json_get|api_decode\w*|decode_\w+"),
    ("JSON out", r"jw_\w+|dto_\w+|render_\w+"),
    ("access log and metrics", r"observe|log_\w+|metric_\w+"),
    ("use case, queue", r"app_\w+|cache_\w+|payflow_\w+|banking_\w+|api_\w+"),
    ("HTTP: our headers, router, answer", r"on_\w+|answer_\w+|http_\w+|request_\w+|router_\w+|reply_\w+|watch_\w+"),
]
COMPILED = [(name, re.compile(rf"(?:{pattern})(?:\.\w+)*\Z")) for name, pattern in PARTS]


def part_of(thread, frames):
    """frames: (function, object), innermost first."""
    for function, binary in frames:
        if "payflow" in binary:
            for name, pattern in COMPILED:
                if pattern.match(function):
                    return name
    in_kernel = "kernel" in frames[0][1] if frames else False
    if thread == "MHD-worker":
        return "HTTP: the kernel's network" if in_kernel else "HTTP: libmicrohttpd"
    return "journal: rows, seal, commit, fsync" if thread == "ledger-writer" else f"thread {thread}"


def samples(folder, pid, seconds):
    """[(thread, [(function, object), …]), …] of a running process."""
    data = Path(folder) / "perf.data"
    sh("perf", "record", "-F", "997", "--call-graph", "dwarf,16384", "-o", data, "-p", pid, "--", "sleep", seconds)
    # its complaints about the kernel's symbols are of no interest
    out = subprocess.run(["perf", "script", "-i", data, "-F", "comm,ip,sym,dso", "--no-inline"], text=True,
                         capture_output=True, check=True).stdout
    data.unlink()
    found = []
    for block in out.split("\n\n"):
        lines = block.strip("\n").splitlines()
        if lines:
            frames = [re.match(r"\s*[0-9a-f]+ (.+) \((.+)\)$", line) for line in lines[1:]]
            found.append((lines[0].strip(), [(m[1], m[2]) for m in frames if m]))
    if not found:
        sys.exit("bench: perf saw nothing; is it allowed to (kernel.perf_event_paranoid, or root)?")
    return found


def available():
    return shutil.which("perf") is not None


def split(found):
    """The share of each part, largest first."""
    count = collections.Counter(part_of(thread, frames) for thread, frames in found)
    return [(name, n / len(found)) for name, n in count.most_common()]


def callers(found, least=0.015):
    """(share with all that it calls, share of its own, thread, function) of the program's functions."""
    inclusive, own = collections.Counter(), collections.Counter()
    for thread, frames in found:
        ours = [function for function, binary in frames if "payflow" in binary and function != "[unknown]"]
        for function in set(ours):
            inclusive[thread, function] += 1
        if frames and "payflow" in frames[0][1]:
            own[thread, frames[0][0]] += 1
    return [(n / len(found), own[key] / len(found), *key) for key, n in inclusive.most_common()
            if n / len(found) >= least]

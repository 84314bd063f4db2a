"""What the stack needs of the machine: processes as /proc tells them, ports, files with their owner and mode."""
import contextlib
import fcntl
import http.client
import os
import re
import socket
import sys
import time
from pathlib import Path

HOST = "127.0.0.1"
AM_ROOT = os.geteuid() == 0


class Failure(Exception):
    """What stops the word, in one line; part: whose log tells more."""

    def __init__(self, text, part=None):
        super().__init__(text)
        self.part = part
        self.told = False


def say(text):
    print(text, file=sys.stderr, flush=True)


def until(check, seconds, every=0.1):
    """Polls check until it is true or the time is up; its last value."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value or time.monotonic() > end:
            return value
        time.sleep(every)


def proc_stat(pid):
    """(state, parent, session, start time) of a process, or None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[3]), int(fields[19])


def alive(pid):
    stat = proc_stat(pid)
    return stat is not None and stat[0] not in "ZX"


def processes(field, value):
    """Who lives and has this in that field of proc_stat."""
    return [int(p) for p in os.listdir("/proc") if p.isdigit() and (s := proc_stat(p)) and s[field] == value and s[0] not in "ZX"]


def session_members(sid):
    return processes(2, sid)


def children_of(pid):
    return processes(1, pid)


def send(pids, sig):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)


def reap():
    """Parts started by this very process would stay zombies until it ends."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def port_taken(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((HOST, port))
        except OSError:
            return True
    return False


def fill(template, values):
    """The template with each ${NAME} filled in; a name without a value is a defect."""
    return re.sub(r"\$\{([A-Z0-9_]+)\}", lambda m: str(values[m[1]]), template)


def get(port, path, timeout=3.0):
    """(status, body) of a GET; (0, "") if there is no answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def write_file(path, text, ids=(-1, -1), mode=0o600):
    """A file of that user and group; it has its mode from the first byte on, and is whole whenever it is there."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as f:
        os.fchown(f.fileno(), *ids)
        f.write(text)
    fresh.rename(path)
    return path


@contextlib.contextmanager
def alone(folder):
    """One word at a time works on a folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"stack: another ./dev stack works on {folder}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

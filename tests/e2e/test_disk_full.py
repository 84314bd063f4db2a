"""A real full disk: DATA_DIR on a small tmpfs that is filled while writers run, and emptied again."""
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from decimal import Decimal

import pytest

from harness import Server, cli, eventually, export, money, new_user, ok, problem, reconciled

MIB = 1 << 20
SIZE_MIB = 20
WRITERS = 8


@pytest.fixture
def small_disk(tmp_path):
    """The path of an empty file system of SIZE_MIB."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount the small file system of this test")
    r = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "payflow-full", str(path)],
                       capture_output=True, text=True, check=False)
    if r.returncode != 0:
        pytest.skip(f"mount is not allowed here: {r.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


class Writers:
    """Deposits with a mark in each, until told to end; keeps every answer."""

    def __init__(self, server, users):
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.acknowledged, self.refused, self.odd = [], [], []
        self.full = None  # the first answer that says so
        self.threads = [threading.Thread(target=self._run, args=(server, u, i)) for i, u in enumerate(users)]
        for t in self.threads:
            t.start()

    def _run(self, server, user, tag):
        client = server.client(key=user.key)
        for n in range(1 << 30):
            if self.over.is_set():
                return
            mark = f"w{tag}-{n}"
            body = {"user_id": user.id, "amount": "0.01", "description": mark + " " + "x" * 400}
            try:
                r = client.post("/api/transactions/deposit", json=body, headers={"Idempotency-Key": mark})
            except Exception as e:  # pylint: disable=broad-except
                with self.lock:
                    self.odd.append(repr(e))
                return
            with self.lock:
                if r.status_code == 201:
                    self.acknowledged.append(mark)
                elif r.status_code == 503:
                    self.refused.append(mark)
                    self.full = self.full or r
                else:
                    self.odd.append(r.text[:300])
            if r.status_code == 503:
                time.sleep(0.005)

    def counts(self):
        with self.lock:
            return len(self.acknowledged), len(self.refused)

    def all_have_written(self):
        with self.lock:
            return len({mark.split("-")[0] for mark in self.acknowledged}) == len(self.threads)

    def end(self):
        self.over.set()
        for t in self.threads:
            t.join()


def fill(path):
    """Takes every free byte of the file system."""
    with open(path, "ab", buffering=0) as f:
        for block in (MIB, 4096, 1):
            try:
                while True:
                    f.write(b"\0" * block)
            except OSError:
                pass


def test_a_full_disk_and_room_again(small_disk):
    server = Server(small_disk / "data")
    server.log_path = small_disk.parent / "serve.log"  # must not fill up with the data
    writers = None
    filler = small_disk / "filler"
    try:
        server.start()
        server.admin = new_user(server, role="admin", name="root")
        users = [new_user(server) for _ in range(WRITERS)]
        for u in users:
            assert u.key
        writers = Writers(server, users)
        eventually(lambda: writers.counts()[0] > 50 and writers.all_have_written())

        fill(filler)
        end = time.monotonic() + 10
        while writers.full is None:  # a log that has room in its file goes on until it needs more
            assert time.monotonic() < end, "the disk is full and every write goes through"
            fill(filler)
            time.sleep(0.01)
        problem(writers.full, 503, "storage-full")  # with Retry-After

        fill(filler)
        # A small write may still find room in the files; the whole stream must not.
        before = writers.counts()
        eventually(lambda: writers.counts()[1] > before[1] + 50)
        for u in users:  # reads go on, of memory and of the journal
            b = ok(u.api.get(f"/api/balances?user_id={u.id}"))
            assert b["balance"] >= 0
            assert ok(u.api.get(f"/api/balances/history?user_id={u.id}&limit=5"))["data"]
        h = money(server.anon.get("/health"))
        assert h["status"] == "DEGRADED" and h["services"]["database"]["writable"] is False, h
        assert server.anon.get("/health").status_code == 200
        assert server.process.poll() is None
        r = server.anon.post("/api/users", json={"username": "nobody", "email": "n@example.com", "password": "x" * 12})
        if r.status_code != 201:
            problem(r, 503, "storage-full")

        filler.unlink()
        before = writers.counts()
        eventually(lambda: writers.counts()[0] > before[0] + 50)
        eventually(lambda: server.anon.get("/health").json()["status"] == "UP")
        writers.end()
        after = writers.counts()
        assert writers.odd == []

        # What was refused was not done: the same keys go through now, once.
        again = writers.refused[:20]
        for mark in again:
            u = users[int(mark[1:].split("-")[0])]
            r = u.api.post("/api/transactions/deposit", headers={"Idempotency-Key": mark},
                           json={"user_id": u.id, "amount": "0.01", "description": mark + " " + "x" * 400})
            ok(r, 201)
            assert "idempotency-replayed" not in r.headers
        assert reconciled(server.admin.bank.get("/api/v1/admin/reconciliation"))
        server.kill9()

        data = shutil.copytree(server.data, small_disk.parent / "copy")
        assert cli("verify", "--data", data).returncode == 0
        count = Counter(e["description"].split(" ")[0] for e in export(data))
        assert count == Counter(writers.acknowledged + again), "lost, twice, or done although refused"
        assert after[0] > 100 and Decimal(sum(count.values())) == len(writers.acknowledged) + len(again)
    finally:
        if writers:
            writers.end()
        server.kill9()
        if server.log_path.exists():
            print(server.log_tail(5))

#!/usr/bin/env python3
"""Plants the bugs of mutations.py in copies of the tree, one at a time, and demands that a test goes red for each.

    mutate.py [--junit FILE] [NAME…]    all of them, or those named
    mutate.py --list

A bug is a replacement of text that must occur once. Its catchers are tests as `meson test --list` names them, or
`tests/e2e/…` for pytest; every one of them must fail, with a test case that says so, after it has passed on the tree as
it is. What does not apply, does not compile, or only runs out of time proves nothing and is a failure here.

With all of them go a few bugs that are none, or that prove nothing: unless they are told apart, the run fails.

The copies stay in build-mutate, one for each processor, so that the next run builds what has changed.
"""

import argparse
import collections
import fcntl
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as xml
from pathlib import Path

from mutations import E2E, MUTATIONS, SELF_CHECK

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "build-mutate"
COPIES = max(1, min(4, os.cpu_count() or 1))
LIMIT_S = 300  # for one catcher; the slowest takes some seconds on an idle machine

CAUGHT, SURVIVED, BROKEN = "caught", "survived", "broken"

# Of a test program or file: did it pass, did a case say no (which), or did it end in a way that says nothing?
Outcome = collections.namedtuple("Outcome", "kind text")
GREEN, RED, NOTHING = "green", "red", "nothing"

CMOCKA_RUN = re.compile(r"^\[ RUN      \] (.+)$", re.M)
CMOCKA_FAILED = re.compile(r"^\[  FAILED  \] (?!\d+ test)(.+)$", re.M)
CMOCKA_PASSED = re.compile(r"^\[  PASSED  \] [1-9]\d* test", re.M)
TAP_FAILED = re.compile(r"^not ok\b[ \d]*(?:- )?([^#\n]*)", re.M)
TAP_PASSED = re.compile(r"^ok\b", re.M)
PYTEST_FAILED = re.compile(r"^FAILED \S*::(\S+)", re.M)
PYTEST_PASSED = re.compile(r"^[1-9]\d* passed\b", re.M)


def judge_program(code, output):
    """code: of the process, negative for a signal; None: out of time."""
    failed = CMOCKA_FAILED.findall(output) or TAP_FAILED.findall(output) or PYTEST_FAILED.findall(output)
    if failed:
        return Outcome(RED, failed[0].strip())
    if code is None:
        return Outcome(NOTHING, "ran out of time")
    if code == 0 and any(p.search(output) for p in (CMOCKA_PASSED, TAP_PASSED, PYTEST_PASSED)):
        return Outcome(GREEN, "")
    if code in (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS):
        during = CMOCKA_RUN.findall(output)
        return Outcome(RED, f"{during[-1] if during else 'start'} ({signal.Signals(-code).name})")
    return Outcome(NOTHING, f"ended with {code}, and no case failed")


def judge_pytest(code, junit):
    """junit: the text of the results; '' if there are none."""
    cases = list(xml.fromstring(junit).iter("testcase")) if junit else []
    failed = [c.get("name") for c in cases if c.find("failure") is not None]
    if failed:
        return Outcome(RED, failed[0])
    if code is None:
        return Outcome(NOTHING, "ran out of time")
    if code == 0 and cases and all(c.find("skipped") is None for c in cases):
        return Outcome(GREEN, "")
    return Outcome(NOTHING, f"ended with {code}, and no case failed")


RUNNING = set()  # process groups


def end_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def interrupted(number, _):
    for pid in list(RUNNING):
        end_group(pid)
    os._exit(128 + number)


def read_tree():
    """The tree's files as git knows them, those not yet added included: path -> (bytes, mode)."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            check=True, capture_output=True).stdout
    tree = {}
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            tree[name] = path.read_bytes(), path.stat().st_mode & 0o777
    return tree


class Copy:
    """One copy of the tree with its build folder. Used by one thread."""

    def __init__(self, number, tree):
        self.dir = SCRATCH / str(number)
        self.tree, self.build = self.dir / "tree", self.dir / "build"
        self.files = tree
        self.tests = {}

    def run(self, command, env=None, limit=LIMIT_S, enough=None):
        """(exit code or None when out of time, what it wrote). Whatever it started ends with it, and it ends once
        what it wrote matches one of enough: a bug that is found needs no further cases."""
        with open(self.dir / "output", "wb+") as out:
            p = subprocess.Popen(command, cwd=self.tree, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
            RUNNING.add(p.pid)
            code, ends = None, time.monotonic() + limit
            while code is None and time.monotonic() < ends:
                try:
                    code = p.wait(0.2 if enough else limit)
                except subprocess.TimeoutExpired:
                    if enough and any(e.search(self.written(out)) for e in enough):
                        break
            end_group(p.pid)
            RUNNING.discard(p.pid)
            p.wait()
            return code, self.written(out)

    @staticmethod
    def written(out):
        return os.pread(out.fileno(), os.fstat(out.fileno()).st_size, 0).decode("utf-8", "replace")

    def write(self, name, data, mode):
        path = self.tree / name
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        path.chmod(mode)

    def prepare(self, catchers):
        """Brings the copy up to date and its build folder into being; an error text, or None."""
        self.tree.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.tree.rglob("*"), reverse=True):
            if path.is_file() and str(path.relative_to(self.tree)) not in self.files:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        for name, (data, mode) in self.files.items():
            self.write(name, data, mode)
        if not (self.build / "build.ninja").is_file():
            shutil.rmtree(self.build, ignore_errors=True)
            # warnings are no errors: a planted bug may leave something unused
            code, output = self.run(["meson", "setup", str(self.build), "--buildtype=plain", "-Doptimization=1",
                                     "-Dwerror=false", "-Dtests=enabled"])
            if code != 0:
                return "meson: " + output[-2000:]
        error = self.make(["build.ninja"])  # a folder of an earlier run learns of new tests
        if error:
            return error
        self.learn()
        return self.make(sorted({self.target(c) for c in catchers if self.has(c)}))

    def make(self, targets):
        code, output = self.run(["ninja", "-C", str(self.build), *targets], limit=1800)
        if code == 0:
            return None
        errors = [line for line in output.splitlines() if "error:" in line] or output.splitlines()[-5:]
        return "\n".join(errors[:5])

    def learn(self):
        """The test programs, as meson knows them: name -> command, environment."""
        code, output = self.run(["meson", "introspect", "--tests", str(self.build)])
        if code != 0:
            raise RuntimeError("meson introspect: " + output)
        self.tests = {t["name"]: (t["cmd"], t["env"]) for t in json.loads(output)}

    def has(self, catcher):
        return catcher.startswith(E2E) or catcher in self.tests

    def target(self, catcher):
        if catcher.startswith(E2E):
            return "payflow"
        program = Path(self.tests[catcher][0][0])
        return os.path.relpath(program, self.build) if program.is_relative_to(self.build) else "all"  # a script's

    def catch(self, catcher, limit):
        if not catcher.startswith(E2E):
            command, env = self.tests[catcher]
            return judge_program(*self.run(command, env, limit, (CMOCKA_FAILED, TAP_FAILED)))
        junit = self.dir / "pytest.xml"
        junit.unlink(missing_ok=True)
        # bytes compiled from a file that was changed back within a second would be taken for new
        env = {"PAYFLOW_BIN": str(self.build / "payflow"), "PYTHONDONTWRITEBYTECODE": "1"}
        code, _ = self.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
                            f"--basetemp={self.dir / 'tmp'}", f"--junitxml={junit}", catcher], env, limit)
        return judge_pytest(code, junit.read_text() if junit.is_file() else "")

    def control(self, catcher):
        """None if it passes on the tree as it is, else what is wrong with it."""
        if not self.has(catcher):
            return "there is no such test"
        outcome = self.catch(catcher, LIMIT_S)
        return None if outcome.kind == GREEN else f"it does not pass without a bug: {outcome.text}"

    def plant(self, m, controls):
        """(verdict, text)"""
        if m.file not in self.files:
            return BROKEN, f"there is no file {m.file}"
        data, mode = self.files[m.file]
        times = data.count(m.old.encode())
        if times != 1 or m.old == m.new:
            return BROKEN, f"does not apply: its text occurs {times} times in {m.file}"
        for c in m.catchers:
            if controls[c]:
                return BROKEN, f"{c}: {controls[c]}"
        try:
            self.write(m.file, data.replace(m.old.encode(), m.new.encode()), mode)
            error = self.make(sorted({self.target(c) for c in m.catchers}))
            if error:
                return BROKEN, f"does not compile: {error}"
            red = []
            for c in m.catchers:
                outcome = self.catch(c, m.limit_s or LIMIT_S)
                if outcome.kind == GREEN:
                    return SURVIVED, f"{c} passes"
                if outcome.kind == NOTHING:
                    return BROKEN, f"{c}: {outcome.text}"
                red.append(f"{c}: {outcome.text}")
            return CAUGHT, "; ".join(red)
        finally:
            self.write(m.file, data, mode)


def spread(copies, items, do):
    """do(copy, item) for all items, each copy one at a time; the results in the order of the items."""
    todo, results = queue.Queue(), [None] * len(items)
    for pair in enumerate(items):
        todo.put(pair)

    def work(copy):
        while True:
            try:
                i, item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                results[i] = do(copy, item)
            except BaseException as e:  # a thread must not take its items with it
                results[i] = e
    threads = [threading.Thread(target=work, args=(c,)) for c in copies]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for r in results:
        if isinstance(r, BaseException):
            raise r
    return results


def say(text):
    print(text, file=sys.stderr, flush=True)


def chosen(names):
    if not names:
        return MUTATIONS + SELF_CHECK
    known = {m.name: m for m in MUTATIONS + SELF_CHECK}
    for n in names:
        if n not in known:
            sys.exit(f"mutate: no such mutation: {n}")
    return [known[n] for n in names]


def write_junit(path, rows):
    suite = xml.Element("testsuite", name="mutate", tests=str(len(rows)))
    for m, verdict, text, seconds, ok in rows:
        case = xml.SubElement(suite, "testcase", classname="mutate", name=m.name, time=f"{seconds:.1f}")
        if not ok:
            xml.SubElement(case, "failure", message=f"{verdict}: {text}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    xml.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


CMOCKA_RED = ("[ RUN      ] a\n[  FAILED  ] a\n[  PASSED  ] 1 test(s).\n"
              "[  FAILED  ] 1 test(s), listed below:\n[  FAILED  ] a\n")
KNOWN_PROGRAMS = [
    ((0, "[  PASSED  ] 2 test(s).\n"), GREEN, ""),
    ((1, CMOCKA_RED), RED, "a"),
    ((None, CMOCKA_RED), RED, "a"),
    ((None, "[ RUN      ] a\n"), NOTHING, "ran out of time"),
    ((-signal.SIGABRT, "[ RUN      ] a\n[       OK ] a\n[ RUN      ] b\n"), RED, "b (SIGABRT)"),
    ((-signal.SIGKILL, "[ RUN      ] a\n"), NOTHING, "ended with -9, and no case failed"),
    ((0, ""), NOTHING, "ended with 0, and no case failed"),
    ((2, "usage\n"), NOTHING, "ended with 2, and no case failed"),
    ((1, "1..2\nok 1 - x\nnot ok 2 - y\n"), RED, "y"),
    ((0, "1..1\nok 1 - x\n"), GREEN, ""),
    ((0, "..\n2 passed in 0.10s\n"), GREEN, ""),
    ((0, "no tests ran in 0.01s\n"), NOTHING, "ended with 0, and no case failed"),
    ((1, "FAILED a/test_b.py::test_c - AssertionError\n1 failed, 1 passed in 0.10s\n"), RED, "test_c"),
]
KNOWN_PYTEST = [
    ((0, '<s><testcase name="a"/></s>'), GREEN, ""),
    ((1, '<s><testcase name="a"/><testcase name="b"><failure/></testcase></s>'), RED, "b"),
    ((1, '<s><testcase name="a"><error/></testcase></s>'), NOTHING, "ended with 1, and no case failed"),
    ((0, '<s><testcase name="a"><skipped/></testcase></s>'), NOTHING, "ended with 0, and no case failed"),
    ((5, "<s></s>"), NOTHING, "ended with 5, and no case failed"),
    ((None, ""), NOTHING, "ran out of time"),
]


def check_judges():
    for judge, known in ((judge_program, KNOWN_PROGRAMS), (judge_pytest, KNOWN_PYTEST)):
        for given, kind, text in known:
            if judge(*given) != Outcome(kind, text):
                sys.exit(f"mutate: {judge.__name__} takes {given} for {judge(*given)}")


def main():
    parser = argparse.ArgumentParser(prog="mutate", description="Plants bugs; tests must find them.")
    parser.add_argument("--list", action="store_true", help="the names, and what each breaks")
    parser.add_argument("--junit", metavar="FILE", help="the results as JUnit XML too")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    check_judges()
    if args.list:
        for m in MUTATIONS:
            print(f"{m.name:28} {m.breaks}")
        return 0

    mutations = chosen(args.names)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    begin = time.monotonic()
    SCRATCH.mkdir(exist_ok=True)
    lock = open(SCRATCH / "lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit("mutate: another run is at work in build-mutate")
    tree = read_tree()
    copies = [Copy(i + 1, tree) for i in range(COPIES)]
    say(f"mutate: building {len(copies)} copies")
    catchers = sorted({c for m in mutations for c in m.catchers})
    for error in spread(copies, copies, lambda _, c: c.prepare(catchers)):
        if error:
            sys.exit(f"mutate: the tree as it is does not build:\n{error}")

    say(f"mutate: {len(catchers)} tests without a bug ({time.monotonic() - begin:.0f} s)")
    controls = dict(zip(catchers, spread(copies, catchers, lambda copy, c: copy.control(c))))
    for c in catchers:
        if controls[c]:
            say(f"mutate: {c}: {controls[c]}")

    def plant(copy, m):
        t0 = time.monotonic()
        verdict, text = copy.plant(m, controls)
        ok = (verdict == m.expect[0] and m.expect[1] in text)
        say(f"mutate: {'ok    ' if ok else 'FAILED'} {m.name}: {verdict}, {text}")
        return m, verdict, text, time.monotonic() - t0, ok
    say(f"mutate: {len(mutations)} bugs ({time.monotonic() - begin:.0f} s)")
    # those of one file together: building takes back the one before
    in_order = sorted(mutations, key=lambda m: m.file)
    rows = spread(copies, in_order, plant)
    rows.sort(key=lambda row: mutations.index(row[0]))

    width = max(len(m.name) for m in mutations)
    print(f"{'mutation':{width}} {'seconds':>7} | caught by")
    for m, verdict, text, seconds, ok in rows:
        shown = text.splitlines()[0] if ok and verdict == CAUGHT else f"{verdict}: {text}"
        print(f"{m.name:{width}} {seconds:7.1f} | {'' if ok else 'FAILED '}{shown}")
    if args.junit:
        write_junit(args.junit, rows)
    failed = sum(not row[4] for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed, 0 skipped ({time.monotonic() - begin:.0f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Counts test cases in a result file: prints "PASSED FAILED SKIPPED".

    counts.py meson  BUILD/meson-logs/NAME.json    cases inside each cmocka or TAP program
    counts.py pytest RESULTS.xml                   JUnit XML
    counts.py self-check                           counts known outputs; fails if it gets them wrong

A program that ended badly without a failed case of its own (a crash, a sanitizer's report, a time-out) counts as one
failure, so the sum never hides one. A file without a single case is an error.
"""

import json
import re
import sys
import xml.etree.ElementTree as xml

# cmocka's closing lines; "test(s) run" counts skipped ones too
CMOCKA_PASSED = re.compile(r"^\[  PASSED  \] (\d+) test\(s\)\.", re.M)
CMOCKA_FAILED = re.compile(r"^\[  FAILED  \] (\d+) test\(s\), listed below:", re.M)
CMOCKA_SKIPPED = re.compile(r"^\[  SKIPPED \] (\d+) test\(s\), listed below:", re.M)
TAP_LINE = re.compile(r"^(not )?ok\b[^#\n]*(# *skip)?", re.M | re.I)


def program(run):
    """Cases of one test program, from what it wrote."""
    text = (run.get("stdout") or "") + "\n" + (run.get("stderr") or "")
    passed, failed, skipped = (
        sum(int(m[1]) for m in r.finditer(text)) for r in (CMOCKA_PASSED, CMOCKA_FAILED, CMOCKA_SKIPPED)
    )
    if passed + failed + skipped == 0:
        for m in TAP_LINE.finditer(run.get("stdout") or ""):
            if m[1]:
                failed += 1
            elif m[2]:
                skipped += 1
            else:
                passed += 1
    good = run["result"] in ("OK", "EXPECTEDFAIL")
    if run["result"] == "SKIP" and passed + failed + skipped == 0:
        return 0, 0, 1
    if run["result"] == "SKIP":
        good = True
    if good and passed + failed + skipped == 0:
        passed = 1
    if not good and failed == 0:
        failed = 1
    return passed, failed, skipped


def meson(path):
    total = [0, 0, 0]
    with open(path, encoding="utf-8") as f:
        for line in f:
            total = [a + b for a, b in zip(total, program(json.loads(line)))]
    return total


def pytest(path):
    total = [0, 0, 0]
    for case in xml.parse(path).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        total[1 if kinds & {"failure", "error"} else 2 if "skipped" in kinds else 0] += 1
    return total


CMOCKA = "[==========] 5 test(s) run.\n[  PASSED  ] 3 test(s).\n"
CMOCKA_BAD = CMOCKA + "[  FAILED  ] 2 test(s), listed below:\n[  FAILED  ] a\n[  FAILED  ] b\n"
KNOWN = [
    ({"result": "OK", "stdout": "[  PASSED  ] 17 test(s).\n"}, (17, 0, 0)),
    ({"result": "OK", "stdout": CMOCKA, "stderr": "[  SKIPPED ] 2 test(s), listed below:\n"}, (3, 0, 2)),
    ({"result": "FAIL", "stdout": CMOCKA_BAD}, (3, 2, 0)),
    ({"result": "FAIL", "stdout": "[  PASSED  ] 17 test(s).\n", "stderr": "ERROR: LeakSanitizer"}, (17, 1, 0)),
    ({"result": "TIMEOUT"}, (0, 1, 0)),
    ({"result": "FAIL", "stdout": "1..3\nok 1 - a\nnot ok 2 - b\nok 3 - c # SKIP no\n"}, (1, 1, 1)),
    ({"result": "OK", "stdout": "silent"}, (1, 0, 0)),
    ({"result": "SKIP"}, (0, 0, 1)),
]


def self_check():
    for run, expect in KNOWN:
        if program(run) != expect:
            sys.exit(f"counts.py: {run} counts as {program(run)}, not {expect}")


def main():
    if sys.argv[1] == "self-check":
        return self_check()
    counts = {"meson": meson, "pytest": pytest}[sys.argv[1]](sys.argv[2])
    if sum(counts) == 0:
        sys.exit(f"{sys.argv[2]}: not a single test in it")
    return print(*counts)


if __name__ == "__main__":
    main()

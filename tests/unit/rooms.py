#!/usr/bin/env python3
"""Checks the house against src/rooms.txt: who includes whom, and that no file has grown too long. Speaks TAP.

    rooms.py REPOSITORY

Every `#include "room/…"` in src/ must be of a room that the table allows; system includes are free. Before that it
builds small houses with one known fault each and fails unless exactly that fault is found.
"""

import re
import sys
import tempfile
from pathlib import Path

LINES_MAX = 800
SOURCES = {".c", ".h", ".def"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]*)[>"]', re.M)
COMMENT = re.compile(r"/\*.*?\*/", re.S)


def table(text):
    """{room: set of rooms that it may include}; "*" stands for all."""
    rooms = {}
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line:
            room, allowed = line.split(":")
            rooms[room.strip()] = set(allowed.split())
    return rooms


def sources(src):
    return sorted(p for p in src.rglob("*") if p.suffix in SOURCES)


def without_comments(text):
    """Comments become their newlines, so that line numbers stay."""
    return COMMENT.sub(lambda m: "\n" * m[0].count("\n"), text)


def include_faults(src, rooms):
    for path in sources(src):
        place = path.relative_to(src)
        room = place.parts[0]
        if len(place.parts) < 2:
            yield f"{place}: stands in no room"
            continue
        if room not in rooms:
            yield f"{place}: room {room} is not in rooms.txt"
            continue
        text = without_comments(path.read_text("utf-8"))
        for m in INCLUDE.finditer(text):
            where = f"{place}:{text.count(chr(10), 0, m.start()) + 1}"
            target = m[2].split("/")[0]
            if m[1] == "<":
                if "/" in m[2] and target in rooms and (src / m[2]).exists():
                    yield f'{where}: <{m[2]}> is ours, so it takes quotes'
            elif "/" not in m[2] or target not in rooms:
                yield f'{where}: "{m[2]}" must begin with its room'
            elif target != room and target not in rooms[room] and "*" not in rooms[room]:
                yield f'{where}: {room} may not include "{m[2]}"'


def length_faults(src):
    for path in sources(src):
        with path.open("rb") as f:
            lines = sum(1 for _ in f)
        if lines > LINES_MAX:
            yield f"{path.relative_to(src)}: {lines} lines, at most {LINES_MAX}"


def planted(files, expect):
    """Whether the checks find in these files the faults with these beginnings, and no others."""
    with tempfile.TemporaryDirectory() as d:
        src = Path(d)
        for name, text in files.items():
            path = src / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        rooms = table("base:\ndomain: base  # pure\nmain: *\n")
        found = [*include_faults(src, rooms), *length_faults(src)]
    return len(found) == len(expect) and all(f.startswith(e) for f, e in zip(found, expect))


SELF_CHECKS = {
    "what is allowed passes": ({
        "base/a.c": '#include "base/a.h"\n#include <stdio.h>\n#include <sys/socket.h>\n',
        "base/a.h": "",
        "domain/money/b.c": '#include "base/a.h"\n/* #include "main/c.h" */\n',
        "main/c.c": '#include "domain/b.h"\n',
        "main/list.def": "X(1)\n" * LINES_MAX,
    }, []),
    "a room that the table does not allow": ({"base/a.c": '\n#include "domain/b.h"\n'}, ["base/a.c:2: base may not"]),
    "the same in a nested folder and odd spacing":
        ({"domain/money/b.h": '/* a\n */\n  #  include "main/c.h"\n'}, ["domain/money/b.h:3: domain may not"]),
    "the same in a .def file": ({"base/e.def": '#include "main/c.h"\n'}, ["base/e.def:1: base may not"]),
    "a name without its room": ({"base/a.c": '#include "a.h"\n'}, ['base/a.c:1: "a.h" must begin']),
    "a way around the room": ({"base/a.c": '#include "../main/c.h"\n'}, ['base/a.c:1: "../main/c.h" must begin']),
    "our header in angle brackets":
        ({"base/a.c": "#include <main/c.h>\n", "main/c.h": ""}, ["base/a.c:1: <main/c.h> is ours"]),
    "a room without a row": ({"attic/a.c": ""}, ["attic/a.c: room attic"]),
    "a file outside of rooms": ({"a.c": ""}, ["a.c: stands in no room"]),
    "a file that is too long": ({"base/a.c": "\n" * (LINES_MAX + 1)}, ["base/a.c: 801 lines"]),
}


def main():
    src = Path(sys.argv[1]) / "src"
    rooms = table((src / "rooms.txt").read_text("utf-8"))
    results = [("self-check: " + name, [] if planted(*case) else ["not found, or more than that"])
               for name, case in SELF_CHECKS.items()]
    results.append(("there are sources and rooms", [] if len(sources(src)) > 10 and len(rooms) > 5 else [str(src)]))
    results.append(("every include is allowed by rooms.txt", list(include_faults(src, rooms))))
    results.append((f"no file is over {LINES_MAX} lines", list(length_faults(src))))
    print(f"1..{len(results)}")
    for i, (name, faults) in enumerate(results, 1):
        print(f"{'not ok' if faults else 'ok'} {i} - {name}")
        for fault in faults:
            print("#", fault)
    return any(faults for _, faults in results)


if __name__ == "__main__":
    sys.exit(main())

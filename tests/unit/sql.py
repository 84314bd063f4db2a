#!/usr/bin/env python3
"""No SQL is built from input: every statement that the store runs is text of the program. Speaks TAP.

    sql.py REPOSITORY

The statement given to each function that takes one must be made of literals, macros and names of constant texts; nothing
that formats or joins text may have SQL in it; and only the engines speak to a database. Before that it checks snippets
with one known fault each and fails unless exactly that fault is found.
"""

import re
import sys
from pathlib import Path

ENGINES = ("sqlite", "postgres")
# which argument is the statement
TAKES = {"pg_q_begin": -1, "pg_read_begin": -1, "pg_q_on": -1, "pg_exec": -1, "pg_script": -1, "sqlite_q_begin": -1,
         "sqlite_exec": -1, "sqlite3_exec": 1, "sqlite3_prepare_v3": 1, "sqlite3_prepare_v2": 1, "PQexec": 1,
         "PQexecParams": 1, "PQprepare": 2, "PQsendQuery": 1, "PQsendQueryParams": 1, "PQsendPrepare": 2}
STRING = r'"(?:[^"\\]|\\.)*"'
QUOTED = re.compile(STRING + r"|'(?:[^'\\]|\\.)+'")
COMMENT = re.compile(r"/\*.*?\*/", re.S)
FORMATS = re.compile(r"\b(?:v?snprintf|v?asprintf|sprintf|buf_printf|buf_put\w*|strcat|strncat|stpcpy|strcpy|sqlite3_\w*mprintf)"
                     r"\s*\(")
SQL = re.compile(r"\b(?:SELECT|INSERT INTO|DELETE FROM|UPDATE \w+ SET|CREATE (?:TABLE|SCHEMA|INDEX)|DROP (?:TABLE|SCHEMA)|"
                 r"ALTER TABLE|TRUNCATE|WHERE|ORDER BY|LOCK TABLE|SAVEPOINT|NOTIFY|LISTEN)\b")
# names that hold texts of the program where a function is handed them: parameters, and migrations' texts
CONSTANT = re.compile(r"\bconst\s+char\s*(?:\*\s*const\s*)?(\w+)\s*\[|,\s*(\w+)\[\]\s*=")
HANDED = {"sql", "text", "up", "down", "lock", "any"}
DATABASE = re.compile(r"\b(?:PQ[a-z]\w+|sqlite3_(?!libversion)\w+)\s*\(")


def arguments(text, at):
    """The arguments of the call whose parenthesis opens at text[at]."""
    out, depth, begin, i = [], 0, at + 1, at
    while i < len(text):
        c = text[i]
        literal = QUOTED.match(text, i)
        if literal:
            i = literal.end()
            continue
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth == 0:
                return out + [text[begin:i]]
        elif c == "," and depth == 1:
            out.append(text[begin:i])
            begin = i + 1
        i += 1
    return out


def faults(text, constants, engine):
    """[(line, what)] of one file."""
    text = COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    found = []

    def note(at, what):
        found.append((text.count("\n", 0, at) + 1, what))

    for m in re.finditer(r"\b(" + "|".join(TAKES) + r")\s*(\()", text):
        args = arguments(text, m.start(2))
        before = text[text.rfind("\n", 0, m.start()) + 1:m.start()]
        if re.match(r"\s*(?:enum|void|int|bool|static|struct)\b[^;{]*$", before):
            continue  # its own declaration
        sql = re.sub(STRING, " ", args[TAKES[m[1]]]) if len(args) > TAKES[m[1]] else "?"
        sql = re.sub(r"[^?:]*\?", " ", sql)  # what a choice depends on
        sql = re.sub(r"\w+(?:->|\.)", " ", re.sub(r"\[[^\]]*\]", " ", sql))
        for name in re.findall(r"\w+", sql):
            if not (re.fullmatch(r"[A-Z][A-Z0-9_]*|\d+", name) or name in constants or name in HANDED):
                note(m.start(), f"{m[1]} is given {name}")
        if "(" in sql:
            note(m.start(), f"{m[1]} is given what a call returns")
    for m in FORMATS.finditer(text):
        call = " ".join(re.findall(STRING, ",".join(arguments(text, m.end() - 1))))
        if SQL.search(call):
            note(m.start(), "formats SQL")
    if not engine and DATABASE.search(text):
        note(DATABASE.search(text).start(), "speaks to a database")
    return found


def constants_of(text):
    return {n for pair in CONSTANT.findall(text) for n in pair if n}


BAD = [
    ('pg_q_begin(&q, c, name);', "given name"),
    ('pg_q_begin(&q, c, "SELECT " COLUMNS " FROM t WHERE x = " x);', "given x"),
    ('sqlite_q_begin(&q, c, a ? "SELECT 1" : statement_for(b));', "given statement_for"),
    ('PQexec(c->pg, buffer);', "given buffer"),
    ('snprintf(b, n, "SELECT * FROM t WHERE id = %d", id);', "formats SQL"),
    ('buf_printf(&b, "DROP TABLE %s", name);', "formats SQL"),
]
GOOD = ['pg_q_begin(&q, c, "SELECT " COLUMNS " FROM t WHERE id = $1");', 'pg_exec(c, wanted ? pg_begin : "ROLLBACK");',
        'snprintf(why, n, "the server (at %s) is away", host);', 'pg_q_begin(&q, c, n == 1 ? of_one : of_many);']


def main():
    root, n, bad = Path(sys.argv[1]), 0, 0

    def result(ok, name, why=""):
        nonlocal n, bad
        n, bad = n + 1, bad + (not ok)
        print(f"{'ok' if ok else 'not ok'} {n} - {name}" + (f"\n# {why}" if why and not ok else ""))

    for text, what in BAD:
        found = faults(text, {"pg_begin"}, True)
        result(any(what in w for _, w in found), f"refuses {text}", str(found))
    for text in GOOD:
        found = faults(text, {"pg_begin", "of_one", "of_many"}, True)
        result(not found, f"takes {text}", str(found))
    for path in sorted((root / "src").rglob("*.[ch]")):
        engine = path.parent.name if path.parent.name in ENGINES else None
        constants = set()
        if engine:
            for p in path.parent.glob("*.[ch]"):
                constants |= constants_of(p.read_text("utf-8"))
        found = faults(path.read_text("utf-8"), constants, engine)
        result(not found, str(path.relative_to(root)), "; ".join(f"line {line}: {what}" for line, what in found))
    print(f"1..{n}")
    return bad > 0


sys.exit(main())

#!/usr/bin/env python3
"""Writes a C file that holds the migrations: embed.py ENGINE OUT.c UP.sql DOWN.sql [UP.sql DOWN.sql …], in order of
version. ENGINE is a folder of src/store."""

import os
import re
import sys


def literal(path):
    with open(path, encoding="utf-8") as f:
        lines = f.read().splitlines(keepends=True)
    quoted = (
        '    "' + l.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"' for l in lines
    )
    return "\n".join(quoted)


def main():
    engine, out, files = sys.argv[1], sys.argv[2], sys.argv[3:]
    rows = []
    for version, (up, down) in enumerate(zip(files[::2], files[1::2]), 1):
        m = re.fullmatch(r"(\d{4})_(\w+)\.up\.sql", os.path.basename(up))
        if not m or int(m[1]) != version or os.path.basename(down) != f"{m[1]}_{m[2]}.down.sql":
            sys.exit(f"migration {version}: unexpected files {up} and {down}")
        rows.append(f'{{{version}, "{m[2]}",\n{literal(up)},\n{literal(down)}}},\n')
    with open(out, "w", encoding="utf-8") as f:
        f.write(f'#include "store/{engine}/schema.h"\n\n')
        f.write(f"const struct {engine}_migration_text {engine}_migration_texts[] = {{\n" + "".join(rows) + "};\n")
        f.write(f"const unsigned {engine}_migration_texts_n = {len(rows)};\n")


main()

#!/usr/bin/python3
"""Runs the sample lines of tests/filters through fail2ban's own engine: `filters.py [NAME...]`.

NAME.txt holds lines for conf/filter.d/NAME.conf, after a first line `filter NAME[arguments]` where it needs arguments:

    + HOST USER|LINE    matches, and HOST failed; USER is `-` where the filter does not know
    - LINE              does not match
"""

import os
import sys
from types import SimpleNamespace

from fail2ban.client.filterreader import FilterReader
from fail2ban.helpers import extractOptions
from fail2ban.server.filter import FileFilter
from fail2ban.server.jail import Jail
from fail2ban.server.transmitter import Transmitter

tests = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
here = os.path.join(tests, "filters")
conf = os.path.join(tests, "..", "conf")


def load(text):
    name, options = extractOptions(text)
    reader = FilterReader(name, "j", options, basedir=conf)
    assert reader.read(), name
    reader.getOptions({})
    filter = FileFilter(Jail("j", backend="polling"))
    filter.setUseDns("raw")
    filter.checkFindTime = False
    for command in reader.convert():
        key, values = command[2], command[3] if command[0] == "multi-set" else command[3:]
        for value in values:
            if key == "addfailregex":
                filter.addFailRegex(value)
            elif key == "datepattern":
                filter.setDatePattern(value)
            elif key == "maxlines":
                filter.setMaxLines(value)
    return filter


wrong = lines = 0
names = sys.argv[1:] or sorted(name[:-4] for name in os.listdir(here) if name.endswith(".txt"))
for name in names:
    filter, text = None, name
    for number, line in enumerate(open(os.path.join(here, name + ".txt"), encoding="utf-8"), 1):
        line = line.rstrip("\n")
        if line.startswith("filter "):
            text = line[7:]
            continue
        if not line or line.startswith("#"):
            continue
        filter = filter or load(text)
        lines += 1
        found = [(str(f[3].get("ip", f[1])), f[3].get("user", "-")) for f in filter.processLine(line[2:].split("|", 1)[1] if line[0] == "+" else line[2:])]
        expected = [tuple(line[2:].split("|", 1)[0].split(" ", 1))] if line[0] == "+" else []
        if found != expected:
            wrong += 1
            print(f"{name}.txt:{number}: found {found}, expected {expected}: {line}")
print(f"{lines} lines, {wrong} wrong")
sys.exit(wrong > 0)

"""The annotated sample lines of the installed fail2ban package, and what its own filters make of them.

Prints one JSON object for each filter and option session: {"filter": "sshd[mode=\"ddos\"]", "dir": "/etc/fail2ban",
"stamped": false, "lines": [{"line": "...", "noted": {...}, "real": {...}}]}. `noted` is what the package's samples
say of the line, `real` is what fail2ban's filter answers (null: nothing that counts). The argument is an empty folder.
"""
import json
import os
import re
import shutil
import sys

os.environ["TZ"] = "CET-01CEST-02,M3.5.0,M10.5.0"
import time

time.tzset()

import fail2ban
from fail2ban.client.filterreader import FilterReader
from fail2ban.server.filter import Filter
from fail2ban.server.ipdns import IPAddr
from fail2ban.server.mytime import MyTime

NOW = 1124013600
MyTime.setTime(NOW)
TESTS = os.path.join(os.path.dirname(fail2ban.__file__), "tests")
LOGS = os.path.join(TESTS, "files", "logs")
STOCK = "/etc/fail2ban"
# The package's own test filters include stock files by a path of fail2ban's source tree, seven folders up.
TREE = sys.argv[1]


def load(name, folder, options):
    judge = Filter(None)
    judge.returnRawHost = True
    judge.checkFindTime = False
    judge.active = True
    reader = FilterReader(name, "jail", dict(options), basedir=folder)
    reader.read()
    reader.getOptions({})
    for token in reader.convert():
        values = token[3] if token[0] == "multi-set" else [token[3]]
        for value in values:
            if token[2] == "prefregex":
                judge.prefRegex = value
            elif token[2] == "addfailregex":
                judge.addFailRegex(value)
            elif token[2] == "addignoreregex":
                judge.addIgnoreRegex(value)
            elif token[2] == "maxlines":
                judge.setMaxLines(value)
            elif token[2] == "datepattern":
                judge.setDatePattern(value)
    return judge


def plain(value):
    if isinstance(value, set):
        return sorted(value)
    if isinstance(value, tuple):
        return list(value)
    return value


def answer(found):
    """The first failure that counts, as `test --json` shows it."""
    for regex, key, at, data in found:
        if key is None or data.get("nofail"):
            continue
        groups = {
            k: plain(v)
            for k, v in data.items()
            if v is not None and k not in ("matches", "nofail-matches", "mlfpending") and not isinstance(v, IPAddr)
        }
        written = next((data[k] for k in ("ip4", "ip6", "dns") if data.get(k) is not None), str(key))
        return {"host": written, "id": str(key), "time": None if at is None else float(at), "regex": regex + 1, "groups": groups}
    return None


def quoted(value):
    quote = "'" if '"' in value else '"'
    return quote + value + quote


def session(name, folder, options):
    wanted = {k: v for k, v in options.items() if not k.startswith("test.")}
    text = ",".join("%s=%s" % (k, quoted(str(v))) for k, v in wanted.items())
    return {
        "judge": load(name, folder, wanted),
        "filter": name + ("[%s]" % text if text else ""),
        "dir": folder,
        "stamped": options.get("logtype") == "journal",
        "prefix": options.get("test.prefix-line", ""),
        "lines": [],
    }


def samples(name, folder):
    sessions = {}
    files, current, common = [name], None, {}
    while files:
        skipping = False
        with open(os.path.join(LOGS, files.pop(0)), "rb") as lines:
            texts = iter([line.decode("utf-8", "replace").rstrip("\r\n") for line in lines])
        noted = {}
        for line in texts:
            note = re.match(r"^#+ ?(failJSON|(?:file|filter)Options|addFILE):(.+)$", line)
            if note:
                kind, value = note.group(1), json.loads(note.group(2))
                if kind == "fileOptions":
                    common = value
                elif kind == "addFILE":
                    files.append(value)
                elif kind == "filterOptions":
                    current, skipping = [], False
                    for options in value if isinstance(value, list) else [value]:
                        options = dict(common, **options)
                        condition = options.get("test.condition")
                        if condition:
                            skipping = not eval(condition)
                        if not skipping:
                            key = options.get("test.filter-name") or json.dumps(
                                {k: v for k, v in options.items() if not k.startswith("test.")}
                            )
                            if key not in sessions:
                                sessions[key] = session(name, folder, options)
                            current.append((sessions[key], options))
                else:
                    noted = value
                    line = next(texts)
                if kind != "failJSON":
                    continue
            elif skipping or line.startswith("#") or not line.strip():
                continue
            else:
                noted = {}
            if skipping:
                continue
            if not current:
                sessions[""] = session(name, folder, {})
                current = [(sessions[""], {})]
            for one, options in current:
                if noted.get("constraint") and not eval(noted["constraint"], {"opts": options, "name": name}):
                    continue
                judge = one["judge"]
                if options.get("logtype") != "journal":
                    text = line
                    found = judge.processLine(text)
                else:
                    text = options.get("test.prefix-line", "") + line
                    found = judge.processLine(("", "2005-08-14T10:00:00", text), NOW)
                one["lines"].append({"line": text, "noted": noted, "real": answer(found)})
    return sessions.values()


names = sorted(os.listdir(os.path.join(STOCK, "filter.d")))
own = os.path.join(TREE, "as", "deep", "as", "they", "include", "config")
shutil.copytree(os.path.join(TESTS, "config"), own)
shutil.copytree(STOCK, os.path.join(TREE, "config"))
for folder, wanted in (
    (STOCK, lambda n: n.endswith(".conf") and not n.endswith("common.conf")),
    (own, lambda n: n.startswith("zzz-") and n.endswith(".conf")),
):
    for file in sorted(os.listdir(os.path.join(folder, "filter.d"))):
        if not wanted(file):
            continue
        name = file[: -len(".conf")]
        if not os.path.isfile(os.path.join(LOGS, name)):
            print("no samples of " + name, file=sys.stderr)
            continue
        for one in samples(name, folder):
            del one["judge"], one["prefix"]
            print(json.dumps(one))

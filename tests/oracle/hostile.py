"""Hostile lines for every stock filter in every mode, and what fail2ban's own classes make of them.

hostile.py PER_FILTER [TIME_LIMIT]: one JSON object for each filter and mode, {"filter": ..., "rules": {...}, "lines":
[[line, verdict], ...]}, PER_FILTER lines each. A line is one that the filter's expressions match, mostly, in which some
piece, some repetition or some part of the date stands 3000 times. `verdict`: the ids that failed, or "slow" where fail2ban
did not end within the limit, seconds (0, the default: fail2ban is not asked).
"""

import datetime
import glob
import json
import os
import random
import re
import signal
import sys
import time

os.environ["TZ"] = "UTC"
time.tzset()

from python_regex import CONFIG, DATES, Maker, compiled_by_fail2ban, logs, sre, sre_parse

from fail2ban.client.filterreader import FilterReader
from fail2ban.server.filter import Filter
from fail2ban.server.mytime import MyTime

NOW = 1795590000
LONGEST = 100000
TIMES = 3000
MyTime.setTime(NOW)


class Slow(BaseException):
    """Not an Exception: fail2ban catches those."""


def too_slow(*_):
    raise Slow


signal.signal(signal.SIGALRM, too_slow)


def filters():
    """(name with options, rules), each set of rules once."""
    seen = set()
    for path in sorted(glob.glob(CONFIG + "/filter.d/*.conf")):
        name = os.path.basename(path)[:-5]
        for mode in (None, "normal", "ddos", "extra", "aggressive", "auth", "more"):
            options = {"mode": mode} if mode else {}
            try:
                reader = FilterReader(name, "jail", options, basedir=CONFIG)
                reader.read()
                reader.getOptions({})
                stream = reader.convert()
            except Exception:
                continue  # not a filter by itself
            rules = {"prefregex": None, "failregex": [], "ignoreregex": [], "datepattern": [], "maxlines": 1}
            for line in stream:
                values = line[3] if line[0] == "multi-set" else [line[3]]
                key = {"addfailregex": "failregex", "addignoreregex": "ignoreregex"}.get(line[2], line[2])
                if key in ("failregex", "ignoreregex"):
                    rules[key] += values
                elif key == "datepattern":
                    rules[key] = values[0].split("\n")
                elif key == "prefregex":
                    rules[key] = values[0]
                elif key == "maxlines":
                    rules[key] = int(values[0])
            text = json.dumps(rules)
            if rules["failregex"] and text not in seen:
                seen.add(text)
                try:
                    judge_of(rules)
                except Exception:
                    continue  # fail2ban has no such mode of it
                yield name + ("[mode=%s]" % mode if mode else ""), rules


def judge_of(rules):
    judge = Filter(None)
    judge.returnRawHost = True
    judge.checkFindTime = False
    judge.active = True
    if rules["prefregex"]:
        judge.prefRegex = rules["prefregex"]
    for value in rules["failregex"]:
        judge.addFailRegex(value)
    for value in rules["ignoreregex"]:
        judge.addIgnoreRegex(value)
    judge.setMaxLines(rules["maxlines"])
    if rules["datepattern"]:
        judge.setDatePattern("\n".join(rules["datepattern"]))
    return judge


class Inside(Maker):
    """Texts of a prefregex, with a given content."""

    def __init__(self, rng, compiled):
        super().__init__(rng, sre_parse.parse(compiled.pattern))
        self.number = compiled.groupindex.get("content")
        self.content = None

    def one(self, op, av):
        if op is sre.SUBPATTERN and av[0] == self.number and self.content is not None:
            return self.content
        return super().one(op, av)


def dates(rng, samples):
    at = datetime.datetime.utcfromtimestamp(NOW - rng.randrange(100))
    own = [m.group() for m in map(DATES.search, samples) if m]
    forms = ["%Y-%m-%d %H:%M:%S", "%b %d %H:%M:%S", "%d/%b/%Y:%H:%M:%S +0000", "%a %b %d %H:%M:%S.123456 %Y", "%Y-%m-%dT%H:%M:%S.1Z"]
    return at.strftime(rng.choice(forms)) if not own or rng.randrange(3) else rng.choice(own)


def dated(rng, text, samples):
    """The date stands where it is to be cut out, or before."""
    date = dates(rng, samples)
    return text.replace("[]", "[%s]" % date, 1) if "[]" in text else date + " " + text


def hostile(rng, rules, samples):
    pre = rules["prefregex"]
    around = Inside(rng, compiled_by_fail2ban(pre, False, True)) if pre else None
    while True:
        multiline = rules["maxlines"] > 1
        source = rng.choice(rules["failregex"])
        maker = Maker(rng, sre_parse.parse(compiled_by_fail2ban(source, multiline, True).pattern))
        long = None
        if rng.randrange(2):
            maker.text()
            long = rng.randrange(maker.seen) if maker.seen else None
        text = maker.text(long)
        if around:
            around.content = text
            if not rng.randrange(8):
                around.text()
                text = around.text(rng.randrange(around.seen) if around.seen else None)
            else:
                text = around.text()
        text = dated(rng, text, samples)
        words = re.findall(r"\w+\W?|\W+", text)
        if long is None and words:
            word = rng.choice(words)
            text = rng.choice(
                [word * TIMES, text + word * TIMES, text.replace(word, word * TIMES, 1), word * TIMES + text]
            )
        if not rng.randrange(4):
            text = text[:-1] + "\x01"
        text = text.replace("\r", " ")[:LONGEST]
        if multiline:
            yield from text.split("\n")
        else:
            yield text.replace("\n", " ")


def verdict(judge, line, limit):
    if not limit:
        return None
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        found = judge.processLine(line)
    except Slow:
        return "slow"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return [str(key) for _, key, _, data in found if key is not None and not data.get("nofail")]


def main(count, limit):
    rng = random.Random(3)
    samples = logs()
    for name, rules in filters():
        judge = judge_of(rules) if limit else None
        made = hostile(rng, rules, samples.get(name.split("[")[0], []))
        lines = [next(made) for _ in range(count)]
        print(json.dumps({"filter": name, "rules": rules, "lines": [[line, verdict(judge, line, limit)] for line in lines]}), flush=True)


main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0)

"""What Python's re says: patterns, texts and results, one JSON object a line, for tests/python_regex.rs to compare.

python_regex.py stock    the filters of the installed fail2ban on the lines of its own tests, whole, cut and damaged
python_regex.py hostile  the same patterns on texts in which one of their repetitions goes round 3000 times
python_regex.py table    pairs of pattern and text from standard input (JSON), one a line
python_regex.py random SEED COUNT    patterns and texts made up
"""

import glob
import json
import logging
import os
import random
import re
import signal
import sys
import time
import warnings

sys.path.append("/usr/lib/python3/dist-packages")
warnings.simplefilter("ignore")
logging.disable()
try:
    from re import _constants as sre, _parser as sre_parse
except ImportError:
    import sre_constants as sre
    import sre_parse

CONFIG = "/etc/fail2ban"
DATES = re.compile(
    r"\d{4}[-/]\d\d[-/]\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
    r"|\d+/\w{3}/\d{4}[: ]\d\d:\d\d:\d\d(?: [+-]\d{4})?"
    r"|(?:\w{3} )?\w{3} +\d+ \d\d:\d\d:\d\d(?:\.\d+)?(?: \d{4})?"
    r"|\d\d-\w{3}-\d{4} \d\d:\d\d:\d\d(?:\.\d+)?"
    r"|\b\d{10}(?:\.\d+)?\b"
)


class Slow(Exception):
    pass


def too_slow(*_):
    raise Slow


signal.signal(signal.SIGALRM, too_slow)


def say(**what):
    json.dump(what, sys.stdout)
    sys.stdout.write("\n")


class Texts:
    """Each text is told once."""

    def __init__(self):
        self.numbers = {}

    def number(self, text):
        if text not in self.numbers:
            self.numbers[text] = len(self.numbers)
            say(text=text)
        return self.numbers[text]


def offsets(text, span):
    if span[0] < 0:
        return None
    start = len(text[: span[0]].encode())
    return [start, start + len(text[span[0] : span[1]].encode())]


def search(compiled, text, limit):
    """None: no match. "slow": Python did not end, or found a mistake of its own. Else the span of the match and of each named group, in bytes."""
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        match = compiled.search(text)
        spans = match and [match.span()] + [match.span(name) for name in compiled.groupindex]
    except (Slow, SystemError):
        return "slow"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return spans and [offsets(text, span) for span in spans]


def judge(texts, source, compiled, lines, names=True, multiline=False, limit=0.2):
    numbers = [texts.number(line) for line in lines]
    results = [[number, search(compiled, line, limit)] for number, line in zip(numbers, lines)]
    say(pattern=source, names=names, multiline=multiline, groups=list(compiled.groupindex), results=results)


# The installed filters.


def stock():
    """(filter, kind, source, multiline, prefregex) of every filter in every mode, each once."""
    from fail2ban.client.filterreader import FilterReader

    seen = set()
    for path in sorted(glob.glob(CONFIG + "/filter.d/*.conf")):
        name = os.path.basename(path)[:-5]
        for mode in (None, "normal", "ddos", "extra", "aggressive", "auth", "more"):
            for logtype in (None, "journal"):
                options = {k: v for k, v in (("mode", mode), ("logtype", logtype)) if v}
                try:
                    reader = FilterReader(name, "jail", options, basedir=CONFIG)
                    reader.read()
                    reader.getOptions({})
                    stream = reader.convert()
                except Exception:
                    continue  # not a filter by itself
                lines = [line for line in stream if line[2] == "maxlines"]
                multiline = any(int(line[3]) > 1 for line in lines)
                prefix = [line[3] for line in stream if line[2] == "prefregex"]
                for line in stream:
                    kind = line[2]
                    if kind not in ("prefregex", "addfailregex", "addignoreregex"):
                        continue
                    for source in line[3] if line[0] == "multi-set" else [line[3]]:
                        many = multiline and kind == "addfailregex"
                        key = (name, kind, source, many, prefix[0] if prefix else None)
                        if key not in seen:
                            seen.add(key)
                            yield key


def compiled_by_fail2ban(source, multiline, names):
    from fail2ban.server.failregex import Regex

    return Regex(source, multiline=multiline, useDns="warn" if names else "no")._regexObj


def logs():
    import fail2ban.tests

    folder = os.path.join(os.path.dirname(fail2ban.tests.__file__), "files", "logs")
    lines = {}
    for path in sorted(glob.glob(folder + "/*")):
        if os.path.isfile(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                found = [line.rstrip("\r\n") for line in file]
            lines[os.path.basename(path)] = [line for line in found if line and line[0] != "#"]
    return lines


def views(line):
    """As a filter may see it: the date cut out, or not."""
    date = DATES.search(line)
    yield line + "\n"
    if date:
        yield line[: date.start()] + line[date.end() :] + "\n"


def damaged(rng, line):
    """One small change."""
    at = rng.randrange(len(line))
    to = rng.randrange(len(line))
    return rng.choice(
        [
            lambda: line[:at] + line[at + 1 :],
            lambda: line[:at] + rng.choice(" \"[]:.<>(=,\té\u2028\ufffd") + line[at:],
            lambda: line[:at] + line[to:],
            lambda: line[:at] + rng.choice("\n \x1f") + line[at:],
            lambda: line.swapcase(),
            lambda: line[: at] + line,
        ]
    )()


def all_stock():
    rng = random.Random(1)
    texts = Texts()
    samples = logs()
    everything = sorted({line for lines in samples.values() for line in lines})
    for name, kind, source, multiline, prefix in stock():
        own = samples.get(name) or rng.sample(everything, 20)
        lines = [view for line in own for view in views(line)]
        if prefix and kind != "prefregex":
            cut = compiled_by_fail2ban(prefix, False, True)
            matches = [cut.search(line) for line in lines]
            lines = [m.groupdict()["content"] + "\n" for m in matches if m and m.groupdict().get("content")] + lines[:10]
        tree = sre_parse.parse(compiled_by_fail2ban(source, multiline, True).pattern)
        lines += [text + rng.choice(["\n", "\n", " x\n"]) for text in (Maker(rng, tree).text() for _ in range(12))]
        lines = sorted(set(lines))
        if len(lines) > 90:
            lines = rng.sample(lines, 90)
        lines += [damaged(rng, line) for line in lines]
        lines += [view for line in rng.sample(everything, 8) for view in views(line)]
        if multiline:
            lines += ["".join(rng.sample(lines, 3)) for _ in range(40)]
        for names in (True, False) if "<HOST>" in source else (True,):
            compiled = compiled_by_fail2ban(source, multiline, names)
            judge(texts, source, compiled, lines if names else lines[::4], names, multiline)


class Maker:
    """Texts that a tree matches, mostly."""

    def __init__(self, rng, tree):
        self.rng = rng
        self.tree = tree
        self.long = None
        self.groups = {}

    def text(self, long=None):
        """`long`: the repetition that goes round so often, 3000 times."""
        self.long = long
        self.seen = 0
        self.groups = {}
        return self.some(self.tree)

    def some(self, tree):
        return "".join(self.one(op, av) for op, av in tree)

    def one(self, op, av):
        rng = self.rng
        if op is sre.LITERAL:
            return chr(av)
        if op in (sre.ANY, sre.NOT_LITERAL):
            return rng.choice("ax1 .:]\"=")
        if op is sre.IN:
            fits = [c for c in map(chr, range(32, 127)) if self.inside(av, c)]
            return rng.choice(fits or ["\n"])
        if op is sre.BRANCH:
            return self.some(rng.choice(av[1]))
        if op is sre.SUBPATTERN:
            text = self.some(av[-1])
            self.groups[av[0]] = text
            return text
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT) or str(op) == "POSSESSIVE_REPEAT":
            low, high, body = av
            self.seen += 1
            if self.seen - 1 == self.long and high > 8:
                piece = self.some(body)
                return piece * 3000
            count = rng.randint(low, max(low, min(int(high), low + 2)))
            return "".join(self.some(body) for _ in range(min(count, 20)))
        if op is sre.GROUPREF:
            return self.groups.get(av, "")
        if op is sre.GROUPREF_EXISTS:
            group, yes, no = av
            return self.some(yes if group in self.groups else no or [])
        if str(op) == "ATOMIC_GROUP":
            return self.some(av)
        return ""  # places and assertions

    @staticmethod
    def inside(items, c):
        fits = False
        negated = False
        for op, av in items:
            if op is sre.NEGATE:
                negated = True
            elif op is sre.LITERAL:
                fits |= ord(c) == av
            elif op is sre.RANGE:
                fits |= av[0] <= ord(c) <= av[1]
            elif op is sre.CATEGORY:
                name = str(av)[len("CATEGORY_") :]
                kind = {"DIGIT": c.isdigit(), "SPACE": c.isspace(), "WORD": c.isalnum() or c == "_"}
                fits |= not kind[name[4:]] if name.startswith("NOT_") else kind[name]
        return fits != negated


def all_hostile():
    rng = random.Random(2)
    texts = Texts()
    done = set()
    for _, _, source, multiline, _ in stock():
        if (source, multiline) in done:
            continue
        done.add((source, multiline))
        compiled = compiled_by_fail2ban(source, multiline, True)
        maker = Maker(rng, sre_parse.parse(compiled.pattern))
        maker.text()
        plain = maker.text()
        lines = []
        words = sorted(set(re.findall(r"\w+\W?|\W+", plain)))
        for word in rng.sample(words, min(len(words), 3)):
            lines.append(word * 3000 + "\n")
            lines.append(plain + word * 3000 + "\n")
            lines.append(plain.replace(word, word * 3000, 1) + "\n")
        repeats = range(maker.seen)
        for long in rng.sample(repeats, min(len(repeats), 6)):
            text = maker.text(long)
            if len(text) < 200000:
                lines += [text + "\n", text[:-1] + "\x01\n"]
        judge(texts, source, compiled, sorted(set(lines)), multiline=multiline, limit=0.5)


def table():
    texts = Texts()
    for line in sys.stdin:
        source, lines = json.loads(line)
        one(texts, source, lines)


def one(texts, source, lines):
    try:
        if not source.strip():
            raise re.error("empty")  # for fail2ban
        compiled = re.compile(source)
    except (re.error, OverflowError, RecursionError) as error:
        say(pattern=source, error=str(error))
        return
    judge(texts, source, compiled, lines)


def made_up(seed, count):
    rng = random.Random(seed)
    texts = Texts()

    def atom(depth):
        kind = rng.randrange(26 if depth else 13)
        if kind < 7:
            return rng.choice("aabbcc ._-é")
        if kind < 9:
            return rng.choice([".", r"\w", r"\d", r"\s", r"\S", r"\W", "[ab]", "[^a]", "[^ab\\s]", "[b-d1]", "\\."])
        if kind < 13:
            return rng.choice(["^", "$", r"\b", r"\B", r"\Z", r"\A", "", "[-a]", "(?:)", "{", "a{,2}", "x{1,", "]"])
        body = pattern(depth - 1)
        if kind < 18:
            return "(%s)" % body
        if kind < 20:
            return "(?:%s)" % body
        return rng.choice(
            ["(?=%s)", "(?!%s)", "(?>%s)", "(?i:%s)", "(?P<g%d>%%s)" % rng.randrange(99), "(?<=a%.0s)", "(?<!b%.0s)"]
            + ["\\1%.0s", "\\2%.0s", "(?(1)%s|b)", "(?(2)a|%s)", "(?s:%s)", "(?-i:%s)"]
        ) % body

    def pattern(depth):
        parts = []
        for _ in range(rng.randrange(1, 5)):
            parts.append(atom(depth))
            if rng.randrange(3) == 0:
                parts.append(rng.choice("*+?") + rng.choice(["", "", "?", "+" if parts[-1][:1] != "(" else ""]))
            elif rng.randrange(9) == 0:
                parts.append(rng.choice(["{2}", "{0,2}", "{1,}", "{,1}?", "{1,3}", "{2,}?"]))
            if rng.randrange(6) == 0:
                parts.append("|")
        return "".join(parts)

    def asks_itself(tree, around=()):
        """A condition inside of the very group it asks about: what it sees is the turn before, sometimes."""
        if not isinstance(tree, (list, tuple, sre_parse.SubPattern)):
            return False
        if isinstance(tree, tuple) and tree and tree[0] is sre.SUBPATTERN:
            return asks_itself(tree[1][-1], (*around, tree[1][0]))
        if isinstance(tree, tuple) and tree and tree[0] is sre.GROUPREF_EXISTS and tree[1][0] in around:
            return True
        return any(asks_itself(part, around) for part in tree)

    made = 0
    while made < count:
        source = pattern(3)
        try:
            if asks_itself(sre_parse.parse(source)):
                continue
        except re.error:
            pass
        made += 1
        lines = ["".join(rng.choice("aaabbbccB1 ._-\né") for _ in range(rng.randrange(14))) for _ in range(8)]
        one(texts, source, lines)


if __name__ == "__main__":
    kind = sys.argv[1]
    if kind == "stock":
        all_stock()
    elif kind == "hostile":
        all_hostile()
    elif kind == "table":
        table()
    else:
        made_up(int(sys.argv[2]), int(sys.argv[3]))

"""Lines with dates of all kinds, and what fail2ban's own detector says about them.

    /usr/bin/python3 dates.py SEED      TZ as it is in the environment

Writes one JSON object a line: {"patterns": [...], "zone": null or text, "error": null or text, "lines": [...]}, a sequence
that goes through one detector; each of its lines {"line": text, "now": clock, "real": clock by which order ages,
"kind": "none" | "at" | "impossible" | "stumble" | "nodate", "cut": [from, to] in bytes, "time": seconds, as text for the last bit's sake}.
With "samples" for a seed: the lines of fail2ban's own sample logs, each log by itself and all through one detector.
With the single argument "zones": each name of fail2ban's table with its minutes.
"""
import copy, glob, json, os, random, re, sys, time, types

from fail2ban.server import datedetector, datetemplate, strptime
from fail2ban.server.mytime import MyTime
from fail2ban.server.utils import Utils

DEFAULTS = list(datedetector.DateDetectorCache.DEFAULT_TEMPLATES)
REAL = [0.0]
datedetector.time = types.SimpleNamespace(time=lambda: REAL[0])
import logging
logging.disable(logging.CRITICAL)

MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
LONG_MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Mon Tue Wed Thu Fri Sat Sun".split()
LONG_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
ZONES = [z for z in strptime.TZ_ABBR_OFFS if z]


def fresh():
    """Forgets what detectors before have left in the process."""
    datedetector.DD_patternCache = Utils.Cache(maxCount=1000, maxTime=3600)
    datedetector.DateDetectorCache.DEFAULT_TEMPLATES = list(DEFAULTS)
    datedetector.DateDetector._defCache = datedetector.DateDetectorCache()
    # mktime begins its search at the offset it found last; a new process begins at none.
    zone = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    time.mktime((2000, 1, 1, 0, 0, 0, 0, 0, -1))
    if zone is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = zone
    time.tzset()


def run(patterns, zone, lines):
    fresh()
    case = {"patterns": patterns, "zone": zone, "error": None, "lines": []}
    try:
        detector = datedetector.DateDetector()
        detector.default_tz = zone
        for pattern in patterns:
            detector.appendTemplate(pattern)
        if not patterns:
            detector.addDefaultTemplate()
        for t in detector.templates:
            t.template._compileRegex()
    except Exception as error:
        case["error"] = repr(error)
        return case
    for line, now, real in lines:
        MyTime.setTime(now)
        REAL[0] = real
        out = {"line": line, "now": now, "real": real, "kind": "none"}
        try:
            found = detector.matchTime(line)
            match = found[0]
            if match:
                start, end = match.start(1), match.end(1)
                if not line[start:end]:
                    out["kind"] = "nodate"
                else:
                    out["cut"] = [len(line[:start].encode()), len(line[:end].encode())]
                    date = detector.getTime(line[start:end], found)
                    if date is None:
                        out["kind"] = "impossible"
                    else:
                        out["kind"] = "at"
                        out["time"] = repr(float(date[0]))
        except Exception as error:
            out["kind"] = "stumble"
            out["why"] = repr(error)
        case["lines"].append(out)
    return case


class Made:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def zone(self):
        r = self.r
        return r.choice(["Z", "UTC", "GMT", "+0100", "-0330", "+05:30", "-08", "+1", "+2500", "+0960", "FOO", "cest",
                         "PDT", "MSK", "NPT", "utc", "CET", "CEST", "EST", "IST", "A", "AB", "ABCDEF", r.choice(ZONES),
                         r.choice(ZONES) + r.choice(["+01", "-0230", "+03:15"])])

    def when(self, now):
        r = self.r
        kind = r.random()
        if kind < 0.5:
            return now + r.uniform(-3 * 86400, 2 * 86400)
        if kind < 0.8:
            return now + r.uniform(-400 * 86400, 400 * 86400)
        if kind < 0.9:
            # near the steps of summer time
            year = time.localtime(now).tm_year
            month, day = r.choice([(3, 29), (10, 25), (3, 8), (11, 1), (3, 28), (10, 31), (4, 5), (9, 27)])
            return time.mktime((year, month, day, 0, 0, 0, 0, 0, -1)) + r.uniform(0, 4 * 3600)
        return r.uniform(0, 3e9)

    def parts(self, now):
        """The values that codes can take."""
        r = self.r
        t = time.localtime(self.when(now))
        v = dict(Y=t.tm_year, m=t.tm_mon, d=t.tm_mday, H=t.tm_hour, M=t.tm_min, S=t.tm_sec, a=t.tm_wday, j=t.tm_yday)
        if r.random() < 0.08:
            v["d"] = r.choice([0, 29, 30, 31, 32])
        if r.random() < 0.04:
            v["m"] = r.choice([0, 2, 13])
        if r.random() < 0.05:
            v["H"] = r.choice([23, 24, 25, 29, 30])
        if r.random() < 0.05:
            v["S"] = r.choice([59, 60, 61, 62])
        if r.random() < 0.03:
            v["M"] = 60
        # Before 1970 the C library knows no summer time of a zone by a rule; such dates are left out.
        if r.random() < 0.06:
            v["Y"] = r.choice([1999, 2000, 2029, 2030, 1970, 2099, 9999, 0, 1971, 2038])
        return v

    def code(self, code, v):
        r = self.r
        n = lambda value, width=2: str(value).zfill(r.choice([width, width, width, 1]))
        hour12 = (v["H"] - 1) % 12 + 1
        made = {
            "Y": lambda: str(v["Y"]).zfill(4), "y": lambda: str(v["Y"] % 100).zfill(2),
            "m": lambda: n(v["m"]), "d": lambda: r.choice([n(v["d"]), str(v["d"]).rjust(2)]),
            "H": lambda: n(v["H"]), "k": lambda: str(v["H"]).rjust(2), "I": lambda: n(hour12),
            "l": lambda: str(hour12).rjust(2), "M": lambda: n(v["M"]), "S": lambda: n(v["S"]),
            "f": lambda: str(r.randrange(10 ** r.randint(1, 7))), "a": lambda: DAYS[v["a"]],
            "A": lambda: LONG_DAYS[v["a"]], "b": lambda: MONTHS[(v["m"] - 1) % 12],
            "B": lambda: LONG_MONTHS[(v["m"] - 1) % 12], "p": lambda: "PM" if v["H"] >= 12 else "AM",
            "z": self.zone, "Z": self.zone, "j": lambda: n(v["j"], 3), "U": lambda: n(r.randrange(55)),
            "W": lambda: n(r.randrange(55)), "w": lambda: str(r.randrange(8)), "u": lambda: str(r.randrange(9)),
            "G": lambda: str(v["Y"]), "V": lambda: n(r.randrange(55)), "%": lambda: "%",
            "c": lambda: self.codes("%a %b %d %H:%M:%S %Y", v), "x": lambda: self.codes("%m/%d/%y", v),
            "X": lambda: self.codes("%H:%M:%S", v),
        }[code[-1]]()
        if len(code) > 1 and r.random() < 0.9:
            made = made.replace(" ", "0") if code[-1] not in "kl" else made
            if code[-1] in "mdHMS":
                made = made.zfill(2)
        if made.isalpha() and r.random() < 0.1:
            made = r.choice([made.lower(), made.upper()])
        return made

    def codes(self, pattern, v):
        return re.sub(r"%(Ex.|.)", lambda m: self.code(m.group(1), v), pattern)

    FORMS = [
        "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y.%m.%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f%z",
        "%Y-%m-%d %H:%M:%S,%f", "%Y-%m-%d  %H:%M:%S %z", "%Y-%m/%d %H:%M:%S", "%Y-%m-%d%H:%M:%S",
        "%b %d %H:%M:%S", "%a %b %d %H:%M:%S", "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S.%f %Y", "%b %d %k:%M:%S",
        "%b %d %Y %H:%M:%S", "%a %b %d %Y %k:%M:%S.%f", "%d/%m/%Y %H:%M:%S", "%d-%m-%y %k:%M:%S", "%d/%m-%Y %H:%M:%S",
        "%d/%b/%Y:%H:%M:%S %z", "%d-%b-%Y %H:%M:%S.%f", "%d/%b/%Y:%H:%M:%S", "%d-%b-%Y %H:%M:%S.%f %z",
        "%m/%d/%Y:%H:%M:%S", "%m-%d-%Y %k:%M:%S.%f", "%H:%M:%S", "<%m/%d/%y@%H:%M:%S>", "%Exy%Exm%Exd  %H:%M:%S",
        "%Exy%Exm%Exd %k:%M:%S", "%b %d, %Y %I:%M:%S %p", "%b-%d-%y %k:%M:%S", "%Y%Exm%ExdT%ExH%ExM%ExS",
        "%Y%Exm%Exd %ExH%ExM%ExS.%f %z", "%Y%Exm%Exd%ExH%ExM%ExSZ", "%Z %b %d %H:%M:%S", "%Z %a %b %d %H:%M:%S %Y",
        "%z %b %d %H:%M:%S", "%z %a %b %d %H:%M:%S.%f %Y", "EPOCH", "LEPOCH", "TAI64N", "%A %d. %B %Y", "%c",
    ]

    def date(self, now, form=None):
        r = self.r
        form = form or r.choice(self.FORMS)
        def epoch(_):
            n = int(self.when(now))
            return str(n) + r.choice(["", "", ".%03d" % r.randrange(1000), ".%06d" % r.randrange(10 ** 6), ".1", "0", "000", "123456", "123.5"])
        form = re.sub(r"\{?L?EPOCH\}?", epoch, form, flags=re.I)
        form = re.sub("TAI64N", lambda m: "@4%015x%08x" % (int(self.when(now)) , r.randrange(10 ** 9)), form, flags=re.I)
        return self.codes(form, self.parts(now))

    BEFORE = ["", "", "", "", "", "[", "<", "(", " ", "  ", "   ", "[ ", "x", "7", "host ", "192.0.2.7 - - [", "2001:db8::1 - - [",
              "audit(", "type=X msg=audit(", "-", ": ", "<34>1 ", "<13>", "\t", "\u00e4 ", "\u00e4", "\u0663", "a\u0308 ", "server: ",
              "mail 12:34:56 ", "id=1234567890 ", "w", "L ", "t=", "=ERR==== ", "0", "_", "-- a -- - ", "\u20ac\u20ac"]
    AFTER = ["", "", " host sshd[7]: Failed password for root from 192.0.2.7 port 22", "] x", "]", ">", ") y", ":77): pid=1",
             "Z", " x", "7", "x", ".5", " 2026", " 2019 z", " +0100] \"GET / HTTP/1.1\" 200 5", ",", ", 1", " \u00e4",
             "\u00e4", "_", "-", ":", " error: bad", " EST", "\u0663", " ", "  ", ": 127.0.0.1", " [error]"]
    NOISE = ["", "x", "no date here", "a line with 12:34 in it", "1.2.3.4 5 6 7", "warning: 2026 is a year", "[]", "\u00e4\u00f6\u00fc", "May", "May 5",
             "Jan 32 00:00", "12345678901234567890", "Mon Mon Mon", "::1 ::", "     ", "GET /2026/11/25/index.html 200", "@40000000",
             "Oct oct OCT", "Sep 3 1:2:3x", "a\u017fep 03 11:22:33", "\u017fep 03 11:22:33 x", "fr\u0131 jan 3 1:2:3 x"]

    def line(self, now, form=None):
        r = self.r
        if r.random() < 0.05:
            return r.choice(self.NOISE)
        line = r.choice(self.BEFORE) + self.date(now, form) + r.choice(self.AFTER)
        if r.random() < 0.08:
            line += r.choice([" ", "", " - "]) + self.date(now) + r.choice(self.AFTER)
        if r.random() < 0.08 and line:
            at = r.randrange(len(line))
            line = line[:at] + r.choice(["", " ", "0", "x", ":", "-", "\u0664", line[at] * 2]) + line[at + 1:]
        return line

    def sequence(self, now, forms, length):
        """Lines of a log that mostly keeps to its form."""
        r = self.r
        real = 1.7e9
        lines = []
        form, before, after = r.choice(forms), r.choice(self.BEFORE), r.choice(self.AFTER)
        steady = r.random()
        while len(lines) < length:
            now += r.choice([0, 0, 0.25, 1, 30, 1000, 90000])
            real += r.choice([0, 0, 0, 1, 200, 400])
            if lines and r.random() < 0.2:
                lines.append((lines[-1][0], now, real))
            elif r.random() < steady:
                lines.append((before + self.date(now, form) + after, now, real))
            else:
                lines.append((self.line(now, r.choice(forms)), now, real))
            if r.random() < 0.05:
                form, before, after = r.choice(forms), r.choice(self.BEFORE), r.choice(self.AFTER)
        return lines


# Patterns of our own: codes, bounds, groups, anchors, case, escapes.
PATTERNS = [
    ["%Y-%m-%d %H:%M:%S"], ["^%Y-%m-%d %H:%M:%S"], ["%Y-%m-%d %H:%M:%S$"], ["**%Y-%m-%d %H:%M:%S**"], ["{UNB}%Y-%m-%d %H:%M:%S"],
    ["{^LN-BEG}%Y-%m-%d %H:%M:%S"], ["{^LN-BEG}%b %d %H:%M:%S"], ["(%Y-%m-%d) (?:%H:%M:%S)"], ["\\[%d/%b/%Y:%H:%M:%S %z\\]"],
    ["^[^\\[]*\\[({DATE})"], ["^[^\\[]*(\\[{DATE}\\s*\\])"], ["({DATE})"], ["^{DATE}"], ["{DATE}$"], ["{UNB}{DATE}"],
    ["**{DATE}"], ["x{DATE}"], ["{^LN-BEG}{DATE}"], ["<\\d+>\\s*{DATE}"], ["{date}"],
    ["EPOCH"], ["epoch"], ["LEPOCH"], ["^EPOCH"], ["{^LN-BEG}EPOCH"], ["^LEPOCH"], ["{^LN-BEG}LEPOCH"], ["{EPOCH}"], ["{LEPOCH}"],
    ["audit\\({EPOCH}"], ["\\[{LEPOCH}\\]"], ["(x)?{EPOCH}"], ["{^LN-BEG}{EPOCH}"], ["^{EPOCH}"], ["**{EPOCH}**"], ["id={epoch}"],
    ["TAI64N"], ["{^LN-BEG}TAI64N"], ["^TAI64N"], ["tai64n"], ["{NONE}"], ["{none}"], ["{DEFAULT}"], ["{default}"], ["{^LN-BEG}"],
    ["EPOCH", "{DEFAULT}"], ["%d.%m.%Y %H:%M", "{DEFAULT}"], ["{^LN-BEG}", "%H:%M:%S"], ["{^LN-BEG}Epoch", "{^LN-BEG}"], ["EPOCH", "EPOCH"],
    ["{DEFAULT}", "%Y-%m-%d"], ["%Y-%m-%d", "%Y-%m-%d %H:%M:%S"], ["%H:%M:%S", "%b %d %H:%M:%S", "{NONE}"],
    ["%A %d\\. %B %Y"], ["%a %b %d"], ["%b %d"], ["%d"], ["%m"], ["%j"], ["%Y %j %H:%M"], ["%Y-%U-%w"], ["%Y-%W-%w %H:%M:%S"], ["%Y %W %a"], ["%U %A"],
    ["%G-%V-%u"], ["%c"], ["%x %X"], ["%x"], ["%X"], ["%I:%M:%S %p"], ["%I:%M:%S(?: %p)?"], ["%l:%M %p"], ["%k:%M"], ["%Exk:%M:%S"], ["%Exl:%M:%S"],
    ["%b %d %H:%M:%S %Z"], ["%b %d %H:%M:%S %ExZ"], ["%Y-%m-%d %H:%M:%S %Exz"], ["%Y-%m-%d %H:%M:%S %z"], ["%Y-%m-%d %H:%M:%S ?%Z"], ["%H:%M:%S %ExZ"],
    ["%b %d %H:%M:%S %Exz"], ["%ExY%Exm%Exd%ExH%ExM%ExS"], ["%y%m%d %H:%M"], ["%Exy-%Exm-%Exd"], ["%f"], ["%H:%M:%S[.,]%f"],
    ["(?P<Y>\\d{4})-(?P<m>\\d\\d)-(?P<d>\\d\\d)"], ["(?P<Y>\\S+) (?P<m>\\S+) (?P<d>\\S+)"], ["(?P<H>[\\w ]+):(?P<M>\\w+)"], ["(?P<b>\\w{3}) %d"], ["%d (?P<B>\\w+) %Y"],
    ["(?P<S>\\d+)"], ["(?P<y>\\d+)"], ["(?P<z>[A-Z]+) %H:%M"], ["(?P<Z>\\S*) %H:%M:%S"], ["(?P<p>\\w\\w)? ?%I:%M"], ["(?P<a>\\w+) %W %Y"],
    ["%Y(?P<_sep>[-/])%m(?P=_sep)%d"], ["%Y([-/])%m\\1%d"], ["(?i)t%H:%M:%S"], ["(?i)x %b %d %H:%M:%S"], ["T%H:%M:%S(?i)"], ["%b %d(?! %Y) %H:%M:%S"],
    ["(?<=\\[)%d/%b/%Y:%H:%M:%S"], ["(?<!x)%H:%M:%S"], ["%H:%M:%S(?= )"], ["%H:%M:%S(?=$|\\])"], ["(?:^|\\b|\\W)%H:%M:%S"], ["(^|x)%H:%M:%S"], ["^(?:x|)%H:%M:%S"],
    ["%H:%M:%S\\b"], ["%H:%M:%S\\s"], ["(%H:%M:%S$)"], ["(?:%H:%M:%S)$"], ["%H:%M:%S\\$"], ["%H:%M:%S|%Y"], ["(%H):%M|x"], ["(%H:%M:%S)?"], ["x?"], ["(?:%Y-)?%m-%d[ T]%H:%M:%S(?:\\.%f)?"],
    ["(?:%Z )?%H:%M:%S"], ["(a+)+%H:%M"], ["\\W*%H:%M:%S\\W*"], ["[[]?%H:%M:%S"], ["[^]x]%H:%M"], ["[a-c\\d]+ %H:%M:%S"], ["(?x) %H : %M"], ["(?>\\d+):%M"], ["\\d++:%M"], ["\\d+?:%M"], ["\\d{1,2}?:%M:%S"],
    ["(?s).%H:%M"], ["(?m)^%H:%M"], ["(?P<x>a)?(?(x)%H|%M):"], ["\\x5b%d/%b"], ["\\u00e4 ?%H:%M"], ["\u00e4%H:%M"], ["\\Z"], ["\\A%H:%M:%S"], ["%H:%M:%S\\Z"], ["%%%H"], ["100%% %H:%M"],
    ["%q"], ["%H:%H"], ["(%H"], ["%H)"], ["[%H"], ["*%H"], ["%H**:%M"], ["(**%H:%M**)"], ["((%H:%M))"], ["(?P<H>"], ["%"], ["(?P=x)%H"], ["%H{2}"], ["%b{1,2}"], ["\\", ], ["{,3}%H"], ["%H:%M{x}"], ["%H:{1,2}%M"], ["%H:%M{"],
    ["^\\w+ %b %d %H:%M:%S"], ["^(?:=[^=]+={3,} )?(%ExY(?P<_sep>[-/.])%m(?P=_sep)%d[T ]%H:%M:%S)"], ["(?#c)%H:%M:%S"], ["%H:%M:%S%z?"], ["(?a)\\d%H:%M"], ["(?i:t)%H:%M:%S"], ["(?-i:T)%H:%M:%S %p"],
    ["  %H:%M:%S  "], ["(?:%b|%B) %d"], ["%B %d %Y"], ["%p"], ["%H:%M(?P<S>)"], ["{UNB}^%H:%M"], ["{UNB}(%H):%M"], ["{UNB}{^LN-BEG}%H:%M"], ["{^LN-BEG}{UNB}%H:%M"], ["{^LN-BEG}^%H:%M:%S"], ["{^LN-BEG}(%H:%M):%S"], ["{^LN-BEG}**%H:%M"],
]


def stock():
    """The patterns of the installed filters."""
    patterns = []
    for path in sorted(glob.glob("/etc/fail2ban/filter.d/*.conf")):
        for line in open(path):
            match = re.match(r"\s*datepattern\s*=\s*(.*)", line)
            if match and "<lt_" not in match.group(1) and "%(" not in match.group(1) and "<L_" not in match.group(1):
                text = match.group(1).strip().replace("%%", "%")
                if [text] not in patterns:
                    patterns.append([text])
    return patterns


def forms_of(patterns, r):
    """Texts near what the patterns want, made from themselves."""
    forms = []
    for pattern in patterns:
        if "{DATE}" in pattern.upper() or "{DEFAULT}" in pattern.upper() or pattern.upper() in ("{^LN-BEG}", "{NONE}"):
            forms += Made.FORMS
            continue
        text = re.sub(r"^\{(?:UNB|\^LN-BEG)\}", "", pattern, flags=re.I)
        text = re.sub(r"\(\?P<_sep>.*?\)", "-", text).replace("(?P=_sep)", "-")
        text = re.sub(r"\(\?P<([a-zA-Z])>.*?\)", r"%\1", text)
        text = text.replace("**", "").replace("\\[", "[").replace("\\d+", "34").replace("\\s+", " ").replace("\\s*", "").replace("[T ]", "T")
        text = text.replace("[^\\[]*", "a b ").replace("\\.", ".").replace("\\(", "").replace("[^/]*", "")
        text = re.sub(r"%([^a-zA-Z%]|$)", r"\1", text)
        text = re.sub(r"%(?!Ex[YymdHkzlMSZ]|[dfHIGjmMSUwuVyYzAaBbpZ%WcxXkl])", "", text)
        forms.append(re.sub(r"(?:\(\?[:!=]?|[()^$?])", "", text))
        forms.append(re.sub(r"\(\?:.*?\)\??|[()^$?]", "", text))
        codes = " ".join(re.findall(r"%(?:Ex.|.)", text))
        if codes:
            forms.append(codes)
            forms.append(codes.replace(" ", ":"))
    return forms


def main(seed):
    made = Made(seed)
    r = made.r
    clocks = [1780000000.0, 1124013600.0, 1767225605.0, 1735689590.5, 1709164800.0, 1774746000.0, 1793062800.25, 1583020800.0, 978393600.0]
    zones = [None, None, None, None, "UTC", "UTC+0130", "-0330", "CET", "PDT", "+02:00", "GMT-08", ""]
    out = []
    # every default form by itself, in odd surroundings
    for form in Made.FORMS:
        for _ in range(3):
            now = r.choice(clocks) + r.uniform(-1e6, 1e6)
            out.append(run([], r.choice(zones), [(made.line(now, form), now, 1.7e9) for _ in range(1)]))
            out.append(run([], r.choice(zones), made.sequence(now, [form], 12)))
    # mixed forms through one detector
    for _ in range(30):
        now = r.choice(clocks)
        forms = r.sample(Made.FORMS, r.choice([2, 3, 5, len(Made.FORMS)]))
        out.append(run(r.choice([[], [], ["{DEFAULT}"], ["{^LN-BEG}"]]), r.choice(zones), made.sequence(now, forms, 40)))
    for patterns in PATTERNS + stock():
        now = r.choice(clocks) + r.uniform(-1e5, 1e5)
        forms = forms_of(patterns, r)
        out.append(run(patterns, r.choice(zones), made.sequence(now, forms + r.sample(Made.FORMS, 3), 16)))
    for name in ["FOO", "Europe/Paris", "cet", "UTC+1", "+1234", "ChST"] + r.sample(ZONES, 5):
        out.append(run([], name, [(made.line(clocks[0]), clocks[0], 1.7e9)]))
    for case in out:
        print(json.dumps(case))


def samples():
    """fail2ban's own sample logs, read where they are installed."""
    import fail2ban
    logs = sorted(glob.glob(os.path.join(os.path.dirname(fail2ban.__file__), "tests/files/logs/*")))
    now = 1124013600.0
    together = []
    for path in logs:
        if not os.path.isfile(path):
            continue
        text = open(path, encoding="utf-8", errors="replace").read()
        lines = [(line, now, 1.7e9) for line in text.split("\n") if line]
        together += lines
        print(json.dumps(run([], None, lines)))
        print(json.dumps(run(["{^LN-BEG}"], None, lines)))
        print(json.dumps(run(["^[^\\[]*\\[({DATE})", "{DATE}"], None, lines)))
    print(json.dumps(run([], None, together)))
    for patterns in stock():
        print(json.dumps(run(patterns, None, together[::7])))


if sys.argv[1] == "samples":
    samples()
elif sys.argv[1] == "zones":
    print(json.dumps({z: m for z, m in strptime.TZ_ABBR_OFFS.items() if z}))
else:
    main(int(sys.argv[1]))

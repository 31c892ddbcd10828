"""What fail2ban decides on old logs by their own times: its own reader reads the folder, its own filters judge the lines.

Arguments: the folder of the configuration, then the logs, each followed by a file with the time of each of its lines (a
number, or - of a line without one), since finding dates twice would change how they are found. The clock is the latest
time so far. What fail2ban leaves to the moment is as in decisions.py.

stdout: JSON, one line for each decision, in their order in time.
"""

import json
import re
import sys

import decisions
from decisions import Fail2BanDb, MyTime, Observer, Observers, World
from fail2ban.client.jailsreader import JailsReader

THEIRS = {
    "prefregex": lambda jail, value: setattr(jail.filter, "prefRegex", value),
    "maxlines": lambda jail, value: jail.filter.setMaxLines(int(value)),
    "datepattern": lambda jail, value: jail.filter.setDatePattern(value),
    "logtimezone": lambda jail, value: jail.filter.setLogTimeZone(value),
    "usedns": lambda jail, value: jail.filter.setUseDns(value),
    "maxretry": lambda jail, value: jail.filter.setMaxRetry(int(value)),
    "findtime": lambda jail, value: jail.filter.setFindTime(value),
    "bantime": lambda jail, value: jail.actions.setBanTime(value),
    "addignoreip": lambda jail, value: jail.filter.addIgnoreIP(value),
    "addignoreregex": lambda jail, value: jail.filter.addIgnoreRegex(value),
    "addfailregex": lambda jail, value: jail.filter.addFailRegex(value),
}


class Jail(World):
    def __init__(self, name, database):
        terms = {"everything": False, "shortens": False, "maxretry": 5, "findtime": 600, "bantime": 600, "extra": {}}
        super().__init__({"name": name, **terms}, database)
        del self.filter.processLine
        self.logs = set()

    def set(self, option, value):
        if option == "addlogpath":
            self.logs.add(value)
        elif option.startswith("bantime."):
            self.setBanTimeExtra(option[len("bantime."):], value)
        elif option in THEIRS:
            THEIRS[option](self, value)


def tell(what, jail, ticket, end, **more):
    time = end if what == "unban" else float(MyTime.time())
    told = {"time": time, "jail": jail.name, "ip": str(ticket.getID()), "action": what, "until": end, "hits": more.get("count", 0)}
    told = {key: repr(float(value)) if key in ("time", "until") and value is not None else value for key, value in told.items()}
    print(json.dumps(told))


def main():
    folder, *logs = sys.argv[1:]
    decisions.tell = tell
    MyTime.setTime(0)
    database = Fail2BanDb(":memory:")
    database.purgeage = 86400
    Observers.Main = Observer()
    reader = JailsReader(basedir=folder)
    reader.read()
    reader.getOptions()
    jails = {}
    for command in reader.convert():
        if command[0] == "add":
            jails[command[1]] = Jail(command[1], database)
        elif command[0] == "set":
            for value in command[3:] if command[2] == "addignoreip" else command[3:4]:
                jails[command[1]].set(command[2], value)
        elif command[0] == "multi-set":
            for value in command[3]:
                jails[command[1]].set(command[2], value)
    jails = list(jails.values())
    clock = None
    for log, times in zip(logs[::2], logs[1::2]):
        readers = [jail for jail in jails if re.sub(r"\.\d+$", "", log) in jail.logs]
        with open(log) as lines, open(times) as times:
            for line, time in zip(lines, times):
                if time != "-\n" and (clock is None or float(time) > clock):
                    clock = float(time) if "." in time else int(time)
                    MyTime.setTime(clock)
                    with database._lock, database._db:
                        database._purge_bips(database._db.cursor())
                over = [(jail.end(ticket), n, jail, ticket) for n, jail in enumerate(jails) for ticket in jail.ended()]
                for end, _, jail, ticket in sorted(over, key=lambda told: told[:2]):
                    tell("unban", jail, ticket, end)
                for jail in readers:
                    jail.filter.processLineAndAdd(line.rstrip("\r\n"))
                    jail.decide()


main()

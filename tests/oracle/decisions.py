"""What fail2ban decides on failures that are read from stdin, told on stdout.

Its own classes decide: the filter's counting, the bans, the observer with a database in memory. Nothing runs in threads,
so each is asked in turn; the two things that fail2ban leaves to the moment are done at once: a counter that is over is
dropped before it is used, and a ban that has ended before the next failure.

stdin: one line of JSON, {"jails": [{...}], "purgeage": seconds}, then "CLOCK TIME JAIL KEY WHAT" for each failure;
WHAT is "failure", or by hand "ban", "unban", or how many attempts.
stdout: JSON, one line for each decision; times as text, since readers of JSON may not keep the last digit.
"""

import json
import logging
import random
import sys

logging.disable(logging.CRITICAL)

from fail2ban.server import banmanager, failmanager
from fail2ban.server.actions import Actions
from fail2ban.server.database import Fail2BanDb
from fail2ban.server.filter import Filter
from fail2ban.server.ipdns import IPAddr
from fail2ban.server.jail import Jail
from fail2ban.server.mytime import MyTime
from fail2ban.server.observer import Observers, ObserverThread


class Chance:
    """The numbers that the other side draws too."""

    def __init__(self):
        self.state = 1

    def __call__(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 32) / 2**32


class Observer(ObserverThread):
    """Does at once what it is told."""

    def add(self, name, *args):
        getattr(self, name)(*args)

    def add_timer(self, *args):
        pass


class Counters(failmanager.FailManager):
    """Cleans up before it counts: the one counter, or, to see that this is the same, all."""

    everything = False

    def addFailure(self, ticket, *args, **kwargs):
        if self.everything:
            self.cleanup(MyTime.time())
        else:
            failures = self._FailManager__failList
            old = failures.get(ticket.getID())
            if old and old.getTime() <= MyTime.time() - self.getMaxTime():
                del failures[ticket.getID()]
        return super().addFailure(ticket, *args, **kwargs)


class Bans(banmanager.BanManager):
    def __init__(self):
        super().__init__()
        self.news = []

    def addBanTicket(self, ticket, reason={}):
        made = super().addBanTicket(ticket, reason)
        if made:
            self.news.append(("ban", ticket, ticket))
        elif reason.get("prolong"):
            self.news.append(("prolong", reason["ticket"], ticket))
        return made


class World(Jail):
    def __init__(self, terms, database):
        super().__init__(terms["name"], backend=None, db=database)
        self._Jail__filter = Filter(self)
        self._Jail__actions = Actions(self)
        database.addJail(self)
        self.filter.failManager = Counters()
        self.filter.failManager.everything = terms["everything"]
        self.filter.ignoreSelf = False
        self.filter.setMaxRetry(terms["maxretry"])
        self.filter.setFindTime(terms["findtime"])
        self.filter.processLine = lambda line, date=None: [line]
        self.actions.banManager = Bans()
        self.actions.setBanTime(terms["bantime"])
        self.shortens = terms["shortens"]
        for option, value in terms["extra"].items():
            self.setBanTimeExtra(option, value)

    def isAlive(self):
        return True

    def end(self, ticket):
        end = ticket.getEndOfBanTime(self.actions.getBanTime())
        return None if end == ticket.MAX_TIME else end

    def happens(self, what, key, at):
        key = IPAddr(key)
        if what == "failure":
            self.filter.processLineAndAdd((None, key, at, {}))
        elif what == "ban":
            self.actions.addBannedIP(key)
        elif what == "unban":
            ticket = self.actions.banManager._BanManager__banList.get(key)
            self.actions.removeBannedIP(key, ifexists=True)
            if ticket:
                tell("unban", self, ticket, MyTime.time())
        else:
            self.filter.addAttempt(key, *["a line"] * int(what))
        self.decide()

    def decide(self):
        """Bans whoever has failed often enough, and tells of it."""
        while self.hasFailTickets:
            self.actions._Actions__checkBan()
        bans = self.actions.banManager
        for what, ticket, cause in bans.news:
            end = self.end(ticket)
            if what == "ban" and end is not None and end < MyTime.time():
                # Made and ended within the same moment: for us it was not made.
                bans.getTicketByID(ticket.getID())
                continue
            tell(
                what,
                self,
                ticket,
                end,
                start=repr(float(ticket.getTime())),
                bans=ticket.getBanCount(),
                count=int(cause.getRetry()),
                noted=not ticket.restored,
            )
        bans.news.clear()

    def ended(self):
        """Bans that have ended, in the order of their ends."""
        bans = self.actions.banManager
        if self.shortens:
            # It looks for ended bans when the ban that it made would have ended, not the one that it made of it.
            bans._nextUnbanTime = 0
        return sorted(bans.unBanList(MyTime.time()), key=self.end)

    def advance(self):
        for ticket in self.ended():
            tell("unban", self, ticket, self.end(ticket))


def tell(what, jail, ticket, end, **more):
    print(json.dumps({"what": what, "jail": jail.name, "key": str(ticket.getID()), "end": None if end is None else repr(float(end)), **more}))


def number(text):
    return float(text) if "." in text else int(text)


def formulas():
    """Python's values of expressions, one a line: ban.Time, ban.Count, banFactor (JSON), a tab, the expression."""
    import math  # for eval

    for line in sys.stdin:
        names, text = line.rstrip("\n").split("\t")
        time, count, factor = json.loads(names)
        ban = Observer.BanTimeIncr(time, count)
        try:
            value = eval(text, {"ban": ban, "banFactor": factor, "math": math, "random": random})
            print("complex" if isinstance(value, complex) else repr(float(value)))
        except Exception as error:
            print(type(error).__name__)


def keys():
    """How keys are written, one a line."""
    for line in sys.stdin:
        try:
            print(str(IPAddr(line.rstrip("\n"))))
        except Exception as error:
            print(type(error).__name__)


def main():
    random.random = Chance()
    if sys.argv[1:] == ["formulas"]:
        return formulas()
    if sys.argv[1:] == ["keys"]:
        return keys()
    setting = json.loads(sys.stdin.readline())
    MyTime.setTime(0)
    database = Fail2BanDb(":memory:")
    database.purgeage = setting["purgeage"]
    jails = [World(terms, database) for terms in setting["jails"]]
    Observers.Main = Observer()
    clock = None
    for line in sys.stdin:
        now, at, jail, key, what = line.split()
        if now != clock:
            clock = now
            MyTime.setTime(number(now))
            with database._lock, database._db:
                database._purge_bips(database._db.cursor())
        jail = jails[int(jail)]
        jail.advance()
        jail.happens(what, key, number(at))


if __name__ == "__main__":
    main()

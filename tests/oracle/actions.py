"""What the installed fail2ban makes of its own actions, for tests/actions.rs to compare with.

Arguments: the folder of recorders (its `bin` is $PATH, its `log` what they write), and a file of tickets (JSON).
Prints JSON: by action, its properties, and by event what the recorders wrote.
"""

import json
import os
import re
import shutil
import sys

from fail2ban.client.actionreader import ActionReader
from fail2ban.server.ipdns import DNSUtils
from fail2ban.server.jail import Jail
from fail2ban.server.ticket import BanTicket

stage, tickets = sys.argv[1], json.load(open(sys.argv[2]))
work, log = os.path.join(stage, "work"), os.path.join(stage, "log")
os.environ["PATH"] = os.path.join(stage, "bin")
DNSUtils._IPv6IsAllowed = True
for ticket in tickets:
    DNSUtils.CACHE_ipToName.set(ticket["ip"], ticket["host"])


def apart(value):
    """A property's value without the real system in it."""
    if not isinstance(value, str):
        return value
    value = re.sub(r"(?<![\w/.])/(usr/(local/)?)?(s?bin|libexec)/", "", value)
    return re.sub(r"(?<![\w/.])/(var/run|var/lib|run|etc|tmp|proc)/", work + "/", value)


def fresh():
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("fail2ban", "nginx", "net/xt_recent"):
        os.makedirs(os.path.join(work, folder))
    open(log, "w").close()


def recorded():
    with open(log, encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    open(log, "w").close()
    return text


def fail(command):
    with open(os.path.join(stage, "fail"), "w") as file:
        file.write(command)


def ban_ticket(wanted):
    data = dict(wanted["captures"], failures=wanted["failures"])
    ticket = BanTicket(wanted["ip"], wanted["time"], wanted["matches"], data)
    ticket.setBanTime(wanted["ban_time"])
    ticket.setBanCount(wanted["ban_count"])
    return ticket


def play(name, options):
    reader = ActionReader(name, "sshd", options, basedir="/etc/fail2ban")
    reader.read()
    reader.getOptions({})
    properties = {}
    for command in reader.convert():
        if command[2] == "addaction":
            actname = command[3]
        elif command[0] == "multi-set":
            properties.update((key, apart(value)) for key, value in command[4])
        else:
            properties[command[4]] = apart(command[5])
    jail = Jail("sshd", backend="polling")
    jail.actions.add(actname)
    action = jail.actions[actname]
    for key, value in properties.items():
        setattr(action, key, value)
    held = [ban_ticket(ticket) for ticket in tickets]
    info = jail.actions._getActionInfo
    events = []

    def event(what, *calls):
        for call in calls:
            try:
                call()
            except RuntimeError:
                pass
        events.append([what, recorded()])

    fresh()
    fail("")
    event("start", action.start)
    for number, ticket in enumerate(held):
        event("ban %i" % number, lambda: action.ban(info(ticket)))
    event("unban 0", lambda: action.unban(info(held[0])))
    for command in ("iptables", "nft", "ipset", "curl"):
        if not any(command in str(value) for value in properties.values()):
            continue
        fail(command)
        event("ban 0 without " + command, lambda: action.ban(info(held[0])))
        event("unban 0 without " + command, lambda: action.unban(info(held[0])))
    fail("")
    event("ban 0 again", lambda: action.ban(info(held[0])))
    if action.actionflush:
        event("flush", action.flush)
    else:
        event("flush", *(lambda t=t: action.unban(info(t)) for t in held))
    event("stop", action.stop)
    return {"actname": actname, "properties": properties, "events": events}


result = {}
for name in sorted(os.listdir("/etc/fail2ban/action.d")):
    name, kind = os.path.splitext(name)
    if kind == ".conf" and not name.endswith("-common"):
        result[name] = play(name, {"port": "ssh,2222", "protocol": "tcp", "logpath": "/nonexistent", "dest": "root"})
json.dump(result, sys.stdout)

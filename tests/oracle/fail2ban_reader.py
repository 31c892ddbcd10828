#!/usr/bin/python3
"""What the installed fail2ban makes of configuration folders, for tests/fail2ban_reader.rs.

Arguments: folders like /etc/fail2ban. Output: a JSON list with one object for each: what its server would be told, in its
order and added up. With --filters: one folder, and every filter of it by itself, for files and for the journal.
"""

import json
import logging
import os
import sys

sys.path.insert(0, "/usr/lib/python3/dist-packages")

from fail2ban.client.configurator import Configurator
from fail2ban.client.filterreader import FilterReader
from fail2ban.client.jailreader import JailReader
from fail2ban.helpers import extractOptions
from fail2ban.server.mytime import MyTime

logging.disable(logging.CRITICAL)

# Logs need not exist here: what is compared is what is configured.
JailReader._glob = staticmethod(lambda path: [path] if path else [])

LISTS = ("failregex", "ignoreregex", "journalmatch")
SECONDS = ("findtime", "bantime", "bantime.maxtime", "bantime.rndtime")
# What the server has before it is told anything.
UNTOLD = {
    "failregex": [], "ignoreregex": [], "journalmatch": [], "ignoreip": [], "logpath": [], "actions": [],
    "maxretry": 3, "findtime": 600, "bantime": 600, "maxmatches": 5, "usedns": "warn", "ignoreself": True,
    "maxlines": 1, "prefregex": "", "datepattern": "", "logencoding": "auto", "logtimezone": "",
    "ignorecommand": "", "ignorecache": "", "bantime.increment": False, "bantime.factor": "1", "bantime.formula": "",
    "bantime.multipliers": "", "bantime.maxtime": "", "bantime.rndtime": "", "bantime.overalljails": False,
}


def fresh():
    return {key: list(value) if isinstance(value, list) else value for key, value in UNTOLD.items()}


def tell(jail, command, args):
    """One `set JAIL command args`."""
    if command in ("addfailregex", "addignoreregex"):
        jail[command[3:]] += args[0] if isinstance(args[0], list) else [args[0]]
    elif command == "addjournalmatch":
        jail["journalmatch"].append(args)
    elif command == "addignoreip":
        jail["ignoreip"] += args
    elif command == "addlogpath":
        jail["logpath"].append(args)
    elif command == "addaction":
        action = {"name": args[0], "told": {}}
        if len(args) > 1:
            action["python"] = args[1]
            action["told"] = json.loads(args[2])
        jail["actions"].append(action)
    elif command == "action":
        told = args[1] if isinstance(args[1], list) else [args[1:]]
        action = [a for a in jail["actions"] if a["name"] == args[0]][-1]
        for name, value in told:
            if value is None:  # a file without [Definition]: the server would be told to run "None"
                continue
            action["told"][name] = str(value).lower() if isinstance(value, bool) else str(value)
    else:
        jail[command] = args[0]


def finished(jail):
    for key in SECONDS:
        if jail[key] != "":
            jail[key] = float(MyTime.str2seconds(jail[key]))
    if jail["ignorecache"]:
        cache = extractOptions("cache[" + jail["ignorecache"] + "]")[1]
        seconds = float(MyTime.str2seconds(cache.get("max-time", 300)))
        jail["ignorecache"] = [cache["key"], int(cache.get("max-count", 100)), seconds]
    jail["bantime.factor"] = float(eval(jail["bantime.factor"] or "1"))
    jail["bantime.multipliers"] = [int(n) for n in jail["bantime.multipliers"].split()]
    jail["logencoding"] = jail["logencoding"] or "auto"  # the server refuses an empty one
    lines = [line.strip() for line in (jail["datepattern"] or "").split("\n")]
    jail["datepattern"] = [line for line in lines if line]
    return jail


def folder(path):
    configurator = Configurator()
    configurator.setBaseDir(path)
    try:
        configurator.readAll()
        configurator.getOptions()
        configurator.convertToProtocol(allow_no_files=True)
    except Exception as error:
        return {"error": repr(error)}
    jails, broken = {}, []
    for command in configurator.getConfigStream():
        kind = command[0]
        if kind == "config-error":
            broken.append(command[1].split("'")[1])
        elif kind == "add":
            jails[command[1]] = fresh()
            name, options = extractOptions(command[2])
            jails[command[1]]["backend"] = [name, options]
        elif kind in ("set", "multi-set") and command[1] in jails:
            tell(jails[command[1]], command[2], command[3:])
    return {"jails": [[name, finished(jail)] for name, jail in jails.items()], "broken": broken}


def filters(path):
    found = {}
    share = {}
    for file in sorted(os.listdir(os.path.join(path, "filter.d"))):
        name, end = os.path.splitext(file)
        if end != ".conf":
            continue
        for backend in ("auto", "systemd"):
            reader = FilterReader(name, "x", {}, share_config=share, basedir=path)
            rules = fresh()
            try:
                reader.read()
                reader.applyAutoOptions(backend)
                reader.getOptions(None)
                for command in reader.convert():
                    tell(rules, command[2], command[3:])
                found[name + " " + backend] = finished(rules)
            except Exception as error:
                found[name + " " + backend] = {"error": repr(error)}
    return found


if sys.argv[1] == "--filters":
    print(json.dumps(filters(sys.argv[2])))
else:
    print(json.dumps([folder(path) for path in sys.argv[1:]]))

# Runs one event of an action that is a python class: python3 -I -c THIS FILE JAIL NAME OPTIONS EVENT [TAG VALUE]...
#
# The class finds what it may import from fail2ban, as far as stock actions need it; its object lives for this event.
import json
import logging
import sys
import types
from collections.abc import MutableMapping


class CallingMap(MutableMapping):
    """A mapping whose values are called, if they can be, when they are asked for."""

    def __init__(self, *args, **kwargs):
        self.data = dict(*args, **kwargs)

    def __getitem__(self, key):
        value = self.data[key]
        return value() if callable(value) else value

    def __setitem__(self, key, value):
        self.data[key] = value

    def __delitem__(self, key):
        del self.data[key]

    def __iter__(self):
        return iter(self.data)

    def __len__(self):
        return len(self.data)

    def copy(self):
        return CallingMap(self.data)


class ActionBase:
    def __init__(self, jail, name):
        self._jail = jail
        self._name = name
        self._logSys = logging.getLogger("fail2ban." + type(self).__name__)

    def start(self):
        pass

    def stop(self):
        pass

    def ban(self, aInfo):
        pass

    def unban(self, aInfo):
        pass

    def reban(self, aInfo):
        return self.ban(aInfo)


def module(name, **content):
    made = types.ModuleType(name)
    made.__dict__.update(content)
    sys.modules[name] = made


module("fail2ban", __path__=[])
module("fail2ban.helpers", getLogger=logging.getLogger)
module("fail2ban.server", __path__=[])
for name in ("action", "actions"):
    module("fail2ban.server." + name, ActionBase=ActionBase, CallingMap=CallingMap)

logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
file, jail, name, options, event = sys.argv[1:6]
given = iter(sys.argv[6:])
info = CallingMap()
for tag, value in zip(given, given):
    number = tag in ("failures", "bantime", "bancount", "restored", "ipfailures", "ipjailfailures")
    info[tag] = int(value) if number else float(value) if tag == "time" else value
actions = types.SimpleNamespace(getBanTime=lambda: info.get("bantime", 0))

with open(file, encoding="utf-8") as source:
    code = {"__name__": "action", "__file__": file}
    exec(compile(source.read(), file, "exec"), code)
action = code["Action"](types.SimpleNamespace(name=jail, actions=actions), name, **json.loads(options))
if event in ("start", "stop"):
    getattr(action, event)()
elif event == "flush":
    flush = getattr(action, "flush", None)
    sys.exit(0 if flush and flush() else 3)
elif event == "prolong":
    if getattr(action, "_prolongable", False):
        action.prolong(info)
elif not (event == "ban" and info["restored"] and getattr(action, "norestored", False)):
    getattr(action, event)(info)

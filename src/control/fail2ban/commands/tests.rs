use std::collections::BTreeMap;

use super::*;
use crate::bans::Written;
use crate::changes::Setting;
use crate::control::fail2ban::fake::Fake;
use crate::fail2ban::UseDns;

#[test]
fn status_has_the_shapes_that_programs_index_by_position() {
    let mut fake = Fake::new();
    assert_eq!(
        fake.says(&["status"]),
        "[('Number of jail', 2), ('Jail list', 'door, gate')]"
    );
    fake.says(&["set", "door", "banip", "192.0.2.1"]);
    assert_eq!(
        fake.says(&["status", "door"]),
        "[('Filter', [('Currently failed', 2), ('Total failed', 7), ('File list', ['/var/log/door.log'])]), \
         ('Actions', [('Currently banned', 1), ('Total banned', 1), ('Banned IP list', ['192.0.2.1'])])]"
    );
    assert!(!fake.says(&["status", "door", "short"]).contains("IP list"));
    assert!(
        fake.says(&["status", "door", "cymru"])
            .contains("('Banned RIR list', ['error'])")
    );
    assert_eq!(
        fake.says(&["status", "nojail"]),
        "!UnknownJailException ('nojail',)"
    );
    assert_eq!(
        fake.says(&["status", "door", "basic", "more"]),
        "!Exception ('Invalid command (no status)',)"
    );
}

#[test]
fn bans_by_hand_are_counted_and_lifted_also_by_network() {
    let mut fake = Fake::new();
    let who = [
        "set",
        "door",
        "banip",
        "192.0.2.1",
        "192.0.2.2",
        "2001:db8::0001",
        "198.51.100.0/28",
    ];
    assert_eq!(fake.says(&who), "4");
    assert_eq!(fake.says(&["set", "door", "banip", "192.0.2.1"]), "0");
    assert_eq!(
        fake.says(&["banned"]),
        "[{'door': ['192.0.2.1', '192.0.2.2', '2001:db8::1', '198.51.100.0/28']}, {'gate': []}]"
    );
    assert_eq!(
        fake.says(&["banned", "192.0.2.1", "192.0.2.9"]),
        "[['door'], []]"
    );
    assert_eq!(fake.says(&["get", "door", "banned", "192.0.2.1"]), "1");
    assert_eq!(
        fake.says(&["get", "door", "banned", "192.0.2.1", "192.0.2.9"]),
        "[1, 0]"
    );
    assert_eq!(
        fake.says(&[
            "set",
            "door",
            "unbanip",
            "--report-absent",
            "192.0.2.9",
            "192.0.2.2"
        ]),
        "!ValueError (\"not banned: ['192.0.2.9']\",)"
    );
    assert_eq!(
        fake.says(&["set", "door", "unbanip", "192.0.2.0/24", "192.0.2.9"]),
        "1"
    );
    assert_eq!(fake.says(&["unban", "2001:db8::/64"]), "1");
    assert_eq!(fake.says(&["unban", "--all"]), "1");
    assert_eq!(fake.says(&["unban"]), "!Exception ('Invalid command',)");
}

#[test]
fn words_are_looked_at_in_fail2bans_order() {
    let mut fake = Fake::new();
    let missing = "!IndexError ('list index out of range',)";
    for words in [
        &["set"][..],
        &["get"],
        &["set", "nojail"],
        &["set", "nojail", "maxretry"],
        &["set", "door", "unbanip"],
        &["get", "wrong"],
        &["reload", "door"],
        &[],
    ] {
        assert_eq!(fake.says(words), missing, "{words:?}");
    }
    assert_eq!(
        fake.says(&["set", "nojail", "maxretry", "abc"]),
        "!ValueError (\"invalid literal for int() with base 10: 'abc'\",)"
    );
    // The jail is asked for before the time is read.
    assert_eq!(
        fake.says(&["set", "nojail", "bantime", "abc"]),
        "!UnknownJailException ('nojail',)"
    );
    assert_eq!(
        fake.says(&["set", "door", "bantime", "abc"]),
        "!NameError (\"name 'abc' is not defined\",)"
    );
    assert_eq!(
        fake.says(&["set", "wrong", "1"]),
        "!Exception (\"Invalid command '1' (no set action or not yet implemented)\",)"
    );
    assert_eq!(
        fake.says(&["get", "door", "wrong"]),
        "!Exception ('Invalid command (no get action or not yet implemented)',)"
    );
    assert_eq!(fake.says(&["wrong"]), "!Exception ('Invalid command',)");
    assert!(fake.said.is_empty(), "{:?}", fake.said);
}

#[test]
fn what_is_set_is_answered_as_it_is_then() {
    let mut fake = Fake::new();
    assert_eq!(fake.says(&["set", "door", "maxretry", "7"]), "7");
    assert_eq!(fake.says(&["get", "door", "maxretry"]), "7");
    assert_eq!(fake.says(&["set", "door", "usedns", "maybe"]), "'no'");
    assert_eq!(
        fake.says(&["set", "door", "datepattern", "%Y-%m-%d"]),
        "('%Y-%m-%d', 'Year-Month-Day')"
    );
    assert_eq!(
        fake.says(&["set", "door", "datepattern", "EPOCH"]),
        "(None, 'Epoch')"
    );
    assert_eq!(
        fake.says(&["get", "gate", "datepattern"]),
        "(None, 'Default Detectors')"
    );
    assert_eq!(
        fake.says(&["set", "door", "bantime.increment", "true"]),
        "True"
    );
    assert_eq!(fake.says(&["set", "door", "bantime.factor", "2"]), "'2'");
    assert_eq!(
        fake.says(&["set", "door", "bantime.factor", "x"]),
        "!NameError (\"name 'x' is not defined\",)"
    );
    assert_eq!(
        fake.says(&["set", "door", "bantime.maxtime", "1w"]),
        "604800"
    );
    assert_eq!(fake.says(&["get", "door", "bantime.formula"]), "None");
    let Setting::Increment(written) = Setting::Increment(Written {
        on: Some(true),
        factor: Some("2".to_owned()),
        maxtime: Some(604_800.0),
        ..Written::default()
    }) else {
        panic!();
    };
    assert_eq!(
        fake.of("door").unwrap().0.raw.as_ref().unwrap().increment,
        written
    );
    assert_eq!(fake.says(&["get", "gate", "bantime"]), "-1");
    assert_eq!(fake.says(&["get", "door", "findtime"]), "600");
    assert_eq!(
        fake.says(&["get", "door", "ignoreip"]),
        "['198.51.100.0/24', 'host.example.org', '203.0.113.5']"
    );
    assert_eq!(
        fake.says(&["set", "door", "delignoreip", "192.0.2.1"]),
        "!ValueError ('list.remove(x): x not in list',)"
    );
}

#[test]
fn expressions_are_added_and_taken_away_by_index() {
    let mut fake = Fake::new();
    fake.of("door")
        .unwrap()
        .0
        .raw
        .as_mut()
        .unwrap()
        .rules
        .usedns = UseDns::No;
    let added = fake.says(&[
        "set",
        "door",
        "addfailregex",
        "^door: knocked <F-ID>.+</F-ID>$",
    ]);
    assert!(added.ends_with("'^door: knocked (?P<fid>.+)$']"), "{added}");
    assert_eq!(
        fake.says(&["set", "door", "addfailregex", "^nobody$"]),
        "!Exception (\"No failure-id group in '^nobody$'\",)"
    );
    assert_eq!(
        fake.says(&["set", "door", "addfailregex", ""]),
        "!Exception ('Cannot add empty regex',)"
    );
    assert!(
        fake.says(&["set", "door", "addfailregex", "^( <HOST>"])
            .contains("Unable to compile regular expression")
    );
    let left = fake.says(&["set", "door", "delfailregex", "-1"]);
    assert!(
        !left.contains("knocked") && left.contains("wrong key"),
        "{left}"
    );
    assert_eq!(fake.says(&["set", "door", "delfailregex", "9"]), left);
    let both = Value::List(vec![
        Value::text("multi-set"),
        Value::text("gate"),
        Value::text("addfailregex"),
        Value::texts(["^a <ADDR>$", "^b <ADDR>$"]),
    ]);
    assert_eq!(
        answer(&both, &mut fake),
        Value::pair(Value::Int(0), Value::Bool(true))
    );
    let all = &fake
        .of("gate")
        .unwrap()
        .0
        .raw
        .as_ref()
        .unwrap()
        .rules
        .failregex;
    assert_eq!(
        all.as_slice(),
        ["^gate: <ADDR>$", "^a <ADDR>$", "^b <ADDR>$"]
    );
}

#[test]
fn actions_are_shown_and_never_changed() {
    let mut fake = Fake::new();
    assert_eq!(fake.says(&["get", "door", "actions"]), "['note']");
    assert_eq!(
        fake.says(&["get", "door", "action", "note", "actionban"]),
        "'echo <ip>'"
    );
    assert_eq!(
        fake.says(&["get", "door", "action", "note", "actionstop"]),
        "''"
    );
    assert_eq!(
        fake.says(&["get", "door", "action", "note", "timeout"]),
        "60"
    );
    assert_eq!(
        fake.says(&["get", "door", "action", "note", "nope"]),
        "!AttributeError (\"'CommandAction' object has no attribute 'nope'\",)"
    );
    let unknown = "!KeyError ('Invalid Action name: nope',)";
    for words in [
        &["get", "door", "action", "nope", "x"][..],
        &["set", "door", "action", "nope", "x", "y"],
        &["set", "door", "delaction", "nope"],
    ] {
        assert_eq!(fake.says(words), unknown);
    }
    assert_eq!(
        fake.says(&["set", "door", "addaction", "note"]),
        "!ValueError ('Action note already exists',)"
    );
    for words in [
        &["set", "door", "addaction", "second"][..],
        &["set", "door", "delaction", "note"],
        &["set", "door", "action", "note", "actionban", "touch /tmp/x"],
        &["set", "door", "ignorecommand", "/bin/true"],
    ] {
        let refused = fake.says(words);
        assert!(refused.contains("in the configuration alone"), "{refused}");
    }
    let methods = fake.says(&["set", "door", "action", "note", "ban", "{}"]);
    assert!(methods.contains("calls no methods"), "{methods}");
    let properties = fake.says(&["get", "door", "actionproperties", "note"]);
    assert!(
        properties.contains("'actionban', 'actioncheck'"),
        "{properties}"
    );
    assert!(fake.said.is_empty(), "{:?}", fake.said);
}

#[test]
fn the_streams_of_reloads_are_not_looked_at() {
    let mut fake = Fake::new();
    fake.says(&["set", "door", "banip", "192.0.2.1"]);
    fake.said.clear();
    let stream = Value::List(vec![Value::texts(["set", "door", "maxretry", "1"])]);
    let command = |jail: &str, options: &[&str]| {
        Value::List(vec![
            Value::text("reload"),
            Value::text(jail),
            Value::texts(options.iter().copied()),
            stream.clone(),
        ])
    };
    let ok = Value::pair(Value::Int(0), Value::text("OK"));
    assert_eq!(answer(&command("--all", &["--unban"]), &mut fake), ok);
    assert_eq!(fake.says(&["banned"]), "[{'door': []}, {'gate': []}]");
    assert_eq!(answer(&command("door", &["--restart"]), &mut fake), ok);
    assert_ne!(answer(&command("nojail", &[]), &mut fake), ok);
    assert_eq!(fake.said, ["reload None", "reload Some(\"door\")"]);
}

#[test]
fn the_server_is_not_stopped_but_a_jail_is() {
    let mut fake = Fake::new();
    assert!(fake.says(&["stop"]).contains("systemctl stop f2b-pipe"));
    assert_eq!(fake.says(&["stop", "door"]), "None");
    assert_eq!(fake.says(&["start", "door"]), "None");
    assert_eq!(fake.said, ["switch door false", "switch door true"]);
    assert_eq!(
        fake.says(&["add", "door"]),
        "!DuplicateJailException ('door',)"
    );
    assert_eq!(
        fake.says(&["add", "--all"]),
        "!Exception (\"Reserved name '--all'\",)"
    );
    assert!(fake.says(&["server-stream", "x"]).starts_with("!Exception"));
}

#[test]
fn what_is_general_is_as_it_is_configured() {
    let mut fake = Fake::new();
    let answers = BTreeMap::from([
        ("loglevel", "'INFO'"),
        ("logtarget", "'/var/log/fail2ban.log'"),
        ("syslogsocket", "'auto'"),
        ("dbfile", "'/var/lib/f2b-pipe/f2b-pipe.sqlite3'"),
        ("dbpurgeage", "86400"),
        ("dbmaxmatches", "10"),
    ]);
    for (name, value) in answers {
        assert_eq!(fake.says(&["get", name]), value, "{name}");
    }
    assert_eq!(fake.says(&["set", "loglevel", "debug"]), "'DEBUG'");
    assert_eq!(
        fake.says(&["set", "loglevel", "wrong"]),
        "!ValueError (\"Invalid log level 'WRONG'\",)"
    );
    assert_eq!(
        fake.says(&["set", "logtarget", "/tmp/other.log"]),
        "!Exception ('Failed to change log target',)"
    );
    assert_eq!(
        fake.says(&["set", "logtarget", "/var/log/fail2ban.log"]),
        "'/var/log/fail2ban.log'"
    );
    assert_eq!(fake.says(&["set", "dbpurgeage", "1d"]), "86400");
}

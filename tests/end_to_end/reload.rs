//! The configuration read anew, a hundred times under load: nothing is lost by it.

use std::time::Duration;

use crate::feed::{Watch, hits};
use crate::support::{
    Connection, Httpd, Load, Request, Setup, World, comes_true, secs, wait_until,
};

const ATTACKER: &str = "198.51.100.66";
const BANNED: &str = "198.51.100.67";
/// Jails come and go, so that the others have other numbers each time.
const TIMES: usize = 100;

/// One more jail in every second one, before the one that counts.
fn config(n: usize) -> String {
    let extra = match n % 2 {
        0 => "",
        _ => "[jail.another]\npath = ['^/nowhere']\nmaxretry = 3\n",
    };
    format!(
        "[defaults]\nbantime = '1h'\nfindtime = '30m'\n{extra}[jail.steady]\npath = ['^/page']\nmaxretry = {TIMES}\n"
    )
}

/// Two mistakes; and the jail that must not be lost is among them.
fn broken(n: usize) -> String {
    format!(
        "{}bantime = 'soonish'\n[jail.more]\nmaxretri = {n}\n",
        config(n)
    )
}

/// Who is banned, and for how long still.
fn members(world: &World) -> Vec<(String, u32)> {
    let sets = world.sets();
    let mut members: Vec<(String, u32)> = sets["f2bp-steady"]
        .iter()
        .map(|entry| {
            let mut words = entry.split(' ');
            let who = words.next().unwrap().to_owned();
            let left = words.skip_while(|word| *word != "timeout").nth(1).unwrap();
            (who, left.parse().unwrap())
        })
        .collect();
    members.sort();
    members
}

fn reloads_under_load<'w>(world: &'w World, watch: impl FnOnce(&Httpd<'w>)) {
    let httpd = Setup::new(world).start();
    watch(&httpd);
    wait_until("somebody in charge", secs(10), || {
        world.ask(&["reload"]).status.success() && world.path("run/f2b-pipe.sock").exists()
    });
    let load = Load::start(
        world,
        6,
        usize::MAX,
        Duration::from_millis(5),
        |client| format!("203.0.113.{}", client + 10),
        |_, n| Request::get(format!("/style.css?{n}")),
    );
    let mut banned = Connection::open(world, BANNED).unwrap();
    banned.patience(Duration::from_millis(500));
    for _ in 0..TIMES {
        banned.ask(&Request::get("/page")).ok();
    }
    world.wait_banned("steady", BANNED);
    let before = members(world);
    let mut attacker = Connection::open(world, ATTACKER).unwrap();
    for n in 1..TIMES {
        assert_eq!(attacker.ask(&Request::get("/page")).unwrap(), 200);
        world.config(&broken(n));
        let refused = world.ask(&["reload"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        for part in ["soonish", "maxretri", "the old configuration goes on"] {
            assert!(said.contains(part), "{said}");
        }
        world.config(&config(n));
        let done = world.ask(&["reload"]);
        assert!(done.status.success(), "{done:?}");
    }
    let after = members(world);
    let who = |all: &[(String, u32)]| all.iter().map(|(who, _)| who.clone()).collect::<Vec<_>>();
    assert_eq!(who(&after), who(&before));
    for ((_, left), (_, at_first)) in after.iter().zip(&before) {
        // Nor did they begin anew.
        assert!(left <= at_first, "{after:?} {before:?}");
    }
    // Of a hundred hits ninety-nine are counted, each under another configuration.
    let banned = || {
        let so = || world.banned("steady").contains(&ATTACKER.to_owned());
        comes_true(Duration::from_millis(500), so)
    };
    let mut asked = TIMES;
    attacker.ask(&Request::get("/page")).ok();
    // On a machine that is too busy watch may not have answered in time: then two processes have counted a part each, and
    // one of them has all from then on.
    while !banned() {
        let shared = httpd.said().contains("watch is gone");
        assert!(shared && asked < 2 * TIMES, "not banned after {asked}");
        attacker.ask(&Request::get("/page")).ok();
        asked += 1;
    }
    let all = u64::try_from(TIMES + asked).unwrap();
    let mut counted = 0;
    wait_until("all hits to be told", secs(10), || {
        counted = hits(world, "steady");
        counted >= all
    });
    if !httpd.said().contains("watch is gone") {
        assert_eq!(counted, all);
    }
    let served = load.stop();
    assert_eq!((served.failed, served.refused), (0, 0), "{served:?}");
    assert!(served.served > 5_000, "{served:?}");
    httpd.stop();
    httpd.assert_tee_is_complete();
    let said = httpd.said();
    assert!(!said.contains("internal error"), "{said}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_logger_alone_reloads_a_hundred_times_under_load_and_loses_nothing() {
    let world = World::new();
    world.config(&config(0));
    reloads_under_load(&world, |_| {});
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_logger_and_watch_reload_a_hundred_times_under_load_and_lose_nothing() {
    let world = World::new();
    world.config(&config(0));
    let watch = Watch::start(&world);
    reloads_under_load(&world, |_| watch.wait_fed_by(1));
    assert!(!watch.said().contains("internal error"), "{}", watch.said());
    assert!(
        !watch.said().contains("count for nobody"),
        "{}",
        watch.said()
    );
}

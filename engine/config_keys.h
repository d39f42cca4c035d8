/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_keys: every key of the configuration once: CONFIG_KEY(section, name, kind, field, default,
 * min, max, help).
 *
 * Parser, `ramjet check --defaults` and the manual page come from here. Kinds: COUNT (u32), SECONDS
 * and MILLISECONDS (u32; 30s, 5m, 4h, 5d, 200ms), SIZE (u64; 512K, 64M, 1G), RATE (u64 per hour;
 * 100/s, 5000/m, 400000/h, 0 = none), SWITCH (bool: yes, no), TEXT (char *), ADDRESS (struct
 * net_addr), PERCENT (u32). min and max are in the field's unit; a TEXT of min 1 may not be empty.
 */
/* Not guarded: included where the table is wanted, with CONFIG_KEY defined. */

CONFIG_KEY(NODE, "hostname", TEXT, hostname, "", 0, 0,
           "name of this machine in EHLO, Message-ID and logs; default: the system's")
CONFIG_KEY(NODE, "workers", COUNT, workers_count, "0", 0, CONFIG_WORKERS_MAX,
           "worker threads; 0 = one a core")
CONFIG_KEY(NODE, "drain-timeout", MILLISECONDS, drain_timeout_ms, "60s", 0, 3600000,
           "how long SIGTERM waits for messages whose end was sent")

CONFIG_KEY(SPOOL, "path", PATH, spool, "/var/spool/ramjet", 1, 0,
           "the spool directory, on one file system")
CONFIG_KEY(SPOOL, "free-space-min", SIZE, free_space_min, "256M", 0, INT64_MAX,
           "nothing new is claimed when less is free")
CONFIG_KEY(SPOOL, "journal-segment", SIZE, journal_segment_size, "64M", 65536, 1ull << 32,
           "size of one journal file")
CONFIG_KEY(SPOOL, "journal-segments", COUNT, journal_segments_max, "16", 2, 100000,
           "so many are kept before a checkpoint is written")

CONFIG_KEY(LOG, "events", SWITCH, log_events, "yes", 0, 0, "write one line of JSON for each event")
CONFIG_KEY(LOG, "directory", PATH, log_directory, "", 0, 0,
           "of events.ndjson; default: log/ in the spool")
CONFIG_KEY(LOG, "size-max", SIZE, log_size_max, "1G", 1 << 16, INT64_MAX,
           "events.ndjson is rotated at this size")

CONFIG_KEY(CONTROL, "socket", PATH, control_socket, "", 0, 0,
           "UNIX socket of ramjet status; default: control.sock in the spool")
CONFIG_KEY(CONTROL, "metrics", ADDRESS, metrics_listen, "", 0, 0,
           "address:port for GET /metrics; default: on the socket only")

CONFIG_KEY(DNS, "servers", TEXT, dns_servers, "", 0, 0,
           "resolvers, as in \"127.0.0.1:53,[::1]\"; default: resolv.conf")
CONFIG_KEY(DNS, "timeout", MILLISECONDS, dns_timeout_ms, "3s", 10, 60000, "for one try")
CONFIG_KEY(DNS, "tries", COUNT, dns_tries, "3", 1, 10, "of one question")
CONFIG_KEY(DNS, "questions-max", COUNT, dns_questions_max, "200", 1, 65536,
           "questions on their way at once")
CONFIG_KEY(DNS, "answers-max", COUNT, dns_answers_max, "1000000", 64, 1u << 26, "answers kept")
CONFIG_KEY(DNS, "ttl-min", SECONDS, dns_ttl_min_s, "30s", 0, 86400,
           "answers are kept at least so long")
CONFIG_KEY(DNS, "ttl-max", SECONDS, dns_ttl_max_s, "1d", 1, 604800, "and at most so long")
CONFIG_KEY(DNS, "negative-ttl-max", SECONDS, dns_negative_ttl_max_s, "15m", 1, 86400,
           "\"no such name\" is kept at most so long")
CONFIG_KEY(DNS, "temporary-ttl", SECONDS, dns_temporary_ttl_s, "30s", 1, 3600,
           "a failure is not asked again for so long")
CONFIG_KEY(DNS, "stale-max", SECONDS, dns_stale_max_s, "1d", 0, 604800,
           "an expired answer serves so long while resolvers fail")
CONFIG_KEY(DNS, "ip4", SWITCH, use_ip4, "yes", 0, 0, "use IPv4 addresses")
CONFIG_KEY(DNS, "ip6", SWITCH, use_ip6, "yes", 0, 0, "use IPv6 addresses")
CONFIG_KEY(DNS, "allow-special", SWITCH, allow_special, "no", 0, 0,
           "use addresses not globally reachable (loopback, private) that name servers give")

CONFIG_KEY(LIMITS, "sessions", COUNT, sessions_max, "20000", 1, 1u << 20,
           "connections in all, shared out over the workers")
CONFIG_KEY(LIMITS, "recipients", COUNT, recipients_max, "20000000", 64, 1u << 30,
           "recipients in memory (48 bytes each)")
CONFIG_KEY(LIMITS, "batches", COUNT, batches_max, "100000", 1, 1u << 24, "batches claimed at once")
CONFIG_KEY(LIMITS, "domains", COUNT, domains_max, "2000000", 16, 1u << 28,
           "recipient domains known at once")
CONFIG_KEY(LIMITS, "sites", COUNT, sites_max, "200000", 16, 1u << 26, "sites known at once")
CONFIG_KEY(LIMITS, "message-size", SIZE, message_size_max, "50M", 1024, (1u << 26) - 1,
           "of one message")
CONFIG_KEY(LIMITS, "read-ahead", SIZE, readahead_bytes_max, "256M", 1 << 20, INT64_MAX,
           "message bytes in memory")

CONFIG_KEY(SOURCE, "address", ADDRESS, address, "", 0, 0,
           "IP address to send from; default: the system chooses")
CONFIG_KEY(SOURCE, "address6", ADDRESS, address6, "", 0, 0,
           "IPv6 address to send from, beside an IPv4 address: each host gets its own family's")
CONFIG_KEY(SOURCE, "ehlo", TEXT, ehlo, "", 0, 0, "name said in EHLO; default: node hostname")
CONFIG_KEY(SOURCE, "connections", COUNT, connections_max, "1000000", 1, 1u << 20,
           "open from this source, all sites together")

CONFIG_KEY(ROUTE, "port", COUNT, port, "25", 1, 65535, "port of the hosts")
CONFIG_KEY(ROUTE, "connections", COUNT, connections_max, "20", 1, 1u << 20, "open to one site")
CONFIG_KEY(ROUTE, "per-connection", COUNT, connection_messages_max, "100", 1, 1u << 30,
           "transactions on one connection")
CONFIG_KEY(ROUTE, "connection-age", SECONDS, connection_age_max_s, "5m", 1, 86400,
           "a connection is not used longer")
CONFIG_KEY(ROUTE, "connection-idle", MILLISECONDS, connection_idle_ms, "2s", 0, 600000,
           "an idle connection is closed after")
CONFIG_KEY(ROUTE, "backlog-per-connection", COUNT, backlog_per_connection, "8", 1, 1u << 20,
           "one more connection for each so many that wait")
CONFIG_KEY(ROUTE, "rate", RATE, rate_per_hour, "0", 0, 3600000000ull,
           "messages to one site; 0 = no limit")
CONFIG_KEY(ROUTE, "burst", COUNT, rate_burst, "1", 1, 1u << 20,
           "messages that may go at once when the rate has been idle")
CONFIG_KEY(ROUTE, "rcpts-max", COUNT, rcpts_max, "100", 1, LOAD_RECIPIENTS_MAX,
           "recipients of one transaction when the bytes are the same")
CONFIG_KEY(ROUTE, "connect-timeout", MILLISECONDS, connect_timeout_ms, "30s", 10, 600000,
           "until a connection is up")
CONFIG_KEY(ROUTE, "suspend-first", SECONDS, suspend_first_s, "1m", 1, 86400,
           "a site that cannot be reached rests, doubling ...")
CONFIG_KEY(ROUTE, "suspend-max", SECONDS, suspend_max_s, "15m", 1, 86400, "... up to this")
CONFIG_KEY(ROUTE, "retry-first", SECONDS, schedule.first_s, "15m", 1, 604800,
           "delay after the first failed attempt, growing ...")
CONFIG_KEY(ROUTE, "retry-max", SECONDS, schedule.ceiling_s, "4h", 1, 604800, "... up to this")
CONFIG_KEY(ROUTE, "retry-jitter", PERCENT, schedule.jitter_percent, "20", 0, 50,
           "share of the delay that chance may take away")
CONFIG_KEY(ROUTE, "expire", SECONDS, schedule.expire_s, "5d", 1, 604800,
           "age at which a recipient is given up")
CONFIG_KEY(ROUTE, "greeting-timeout", MILLISECONDS, timeouts.greeting_ms, "5m", 10, 3600000,
           "until the greeting; this and the next by RFC 5321 4.5.3.2")
CONFIG_KEY(ROUTE, "ehlo-timeout", MILLISECONDS, timeouts.ehlo_ms, "5m", 10, 3600000,
           "until the answer to EHLO")
CONFIG_KEY(ROUTE, "mail-timeout", MILLISECONDS, timeouts.mail_ms, "5m", 10, 3600000,
           "until the answer to MAIL")
CONFIG_KEY(ROUTE, "rcpt-timeout", MILLISECONDS, timeouts.rcpt_ms, "5m", 10, 3600000,
           "until the answer to RCPT")
CONFIG_KEY(ROUTE, "data-timeout", MILLISECONDS, timeouts.data_ms, "2m", 10, 3600000,
           "until the answer to DATA")
CONFIG_KEY(ROUTE, "body-timeout", MILLISECONDS, timeouts.body_ms, "3m", 10, 3600000,
           "until some more of a message was taken")
CONFIG_KEY(ROUTE, "end-of-data-timeout", MILLISECONDS, timeouts.end_of_data_ms, "10m", 10, 3600000,
           "until the answer to the end of data")
CONFIG_KEY(ROUTE, "rset-timeout", MILLISECONDS, timeouts.rset_ms, "20s", 10, 3600000,
           "until the answer to RSET")
CONFIG_KEY(ROUTE, "quit-timeout", MILLISECONDS, timeouts.quit_ms, "5s", 10, 3600000,
           "until the answer to QUIT")

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * feed_text: the bytes of made-up batches: who gets mail, with which values, and what it says. The
 * same seed and numbers give the same bytes on every machine.
 *
 * Domains are d0001.SUFFIX, d0002.SUFFIX, ...; domain n has a share of the recipients in proportion
 * to 1 / n^zipf. Values of variables have a fixed length, so that every message of a batch has the
 * size asked for (the engine's own header lines come on top).
 *
 * Owner: the one thread of ramjet-feed or of a test. feed_create exits when there is no memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/base/random.h"

enum {
    FEED_DOMAINS_MAX = 1000000,
    FEED_VARS_MAX = 16,
    FEED_VALUE_SIZE = 10,
    FEED_RECIPIENT_MAX = 1024, /* one line of recipients.ndjson */
    FEED_MESSAGE_MIN = 512,
};

struct feed_config {
    uint64_t seed;
    uint64_t recipients_count;
    uint32_t domains_count;
    uint32_t vars_count;
    uint64_t message_size; /* with CRLF line ends, rendered */
    double zipf;           /* 0: all domains alike */
    bool is_spread;        /* recipient n is of domain n, the domains in turn; zipf says nothing */
    bool is_same;          /* a template without variables: the same bytes for all */
    struct span suffix;    /* of the domains */
    struct span local;     /* what local parts begin with, e.g. a script of the sink: "dot451-" */
    struct span batch;     /* its id */
};

struct feed {
    struct feed_config config;
    struct random random;
    uint64_t *sums; /* of the domains' weights */
    char *filler;
};

struct feed *feed_create(const struct feed_config *config);
void feed_destroy(struct feed *feed); /* NULL-safe */
/* One line of recipients.ndjson; recipients are made in order, from 1. */
void feed_put_recipient(struct feed *feed, uint64_t number, struct writer *writer);
/* The template of a merge batch. */
void feed_put_template(struct feed *feed, struct writer *writer);
/* One message of a BSMTP batch: its envelope, text and lone dot, in CRLF form. */
void feed_put_bsmtp(struct feed *feed, uint64_t number, struct writer *writer);
void feed_put_manifest(struct feed *feed, bool is_bsmtp, struct writer *writer);

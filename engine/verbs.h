/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbs: what `ramjet VERB ...` does. Each verb gets the words behind its name and returns the
 * process's exit status: 0 done, 1 it could not be done (said on standard error), 2 wrong words,
 * others as the verb's help says.
 */
#pragma once

int verb_run(int count, char **words);
int verb_submit(int count, char **words);
int verb_status(int count, char **words);
int verb_check(int count, char **words);

/* Where the configuration is when no -c is given: this file if it is there, else the defaults. */
#define VERBS_CONFIG_PATH "/etc/ramjet/ramjet.conf"

struct config;
/* Reads it or says what is wrong with it on standard error and returns NULL. */
struct config *verbs_config_read(const char *path);

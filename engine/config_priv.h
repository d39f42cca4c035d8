/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_priv: what the parts of config share: config.c (keys, sections, the snapshot) and
 * config_file.c (files and their order). Start is single-threaded: one configuration is read at a
 * time.
 */
#pragma once

#include <confuse.h>

#include "engine/config_lint.h"

/* One line of the errors under way; `file` NULL: of the file under way. */
__attribute__((format(printf, 3, 4))) void config_error(const char *file, int line,
                                                        const char *format, ...);

/* Names the file under way. The path must outlive the reading of it. */
void config_error_set_file(const char *file);

/* config_file.c: the named file, then every .conf file of conf.d beside it, into `cfg`. */
void config_parse_all(cfg_t *cfg, struct config_lint *lint, const char *path);

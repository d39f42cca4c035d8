/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smtp_command: writes one command line into a writer, whole or not at all.
 *
 * Pure functions, any actor. A path is written byte for byte as it was given (A35), between angle
 * brackets and without a blank before them (A25). Nothing that is not a valid argument can be
 * written, whatever the caller did before (A22):
 *
 *   0          written
 *   -EINVAL    a control byte, DEL or 8-bit byte in the argument; outside of quotes a blank or an
 *              angle bracket; an open quote
 *   -EMSGSIZE  longer than RFC 5321 4.5.3.1 allows (A24)
 *   -ENOBUFS   no room now; a writer with SMTP_COMMAND_SIZE_MAX bytes left takes any command
 *
 * On failure the writer is as it was.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/smtp/smtp.h"

struct smtp_mail_parameters {
    bool has_size; /* SIZE= (RFC 1870), only if offered */
    bool is_8bit;  /* BODY=8BITMIME (RFC 6152), only if offered */
    uint64_t size;
};

/* EHLO and HELO: `name` is an FQDN or an address literal (A11). */
int smtp_command_greeting(struct writer *writer, enum smtp_verb verb, struct span name)
    __attribute__((warn_unused_result));
/* `path` may be empty: the null return path (A20). */
int smtp_command_mail(struct writer *writer, struct span path,
                      const struct smtp_mail_parameters *parameters)
    __attribute__((warn_unused_result));
/* `path` must not be empty. */
int smtp_command_rcpt(struct writer *writer, struct span path) __attribute__((warn_unused_result));
/* DATA, DOT, RSET, QUIT. */
int smtp_command_plain(struct writer *writer, enum smtp_verb verb)
    __attribute__((warn_unused_result));
/* What the functions above would answer for the path, room aside. */
int smtp_command_check_path(struct span path) __attribute__((warn_unused_result));

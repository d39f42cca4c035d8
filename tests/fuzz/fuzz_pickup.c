/* SPDX-License-Identifier: Apache-2.0 */
/* Files of the pickup: what they become is a BSMTP message that intake takes. */
#include "queue/scan.h"
#include "queue/spool_pickup_priv.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(struct span input)
{
    static struct scan_message message;
    size_t room = PICKUP_RECORD_MAX(input.size);
    char *record = malloc(room);
    ensure(record != NULL);
    struct writer writer = writer_of(record, room);
    struct spool_problem problem = {0};
    if (spool_pickup_convert(input, &writer, &problem) == 0) {
        struct scan_problem refused;
        ensure(!writer.is_full);
        ensure(scan_record_message(writer_span(&writer), NULL, &message, &refused) == 0);
        ensure(!message.is_lf && message.rcpts_count <= PICKUP_RCPTS_MAX);
    } else {
        ensure(problem.text[0] != '\0');
    }
    free(record);
}

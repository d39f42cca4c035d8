/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/worker_priv.h"

void worker_report_add(struct worker_report *report, const struct lane *lane, struct mono_time now)
{
    ensure(lane->site != NULL);
    uint64_t backlog = lane_backlog(lane);
    uint32_t at = report->rows_count;
    while (at > 0 && report->rows[at - 1].backlog < backlog) {
        at--;
    }
    if (at == WORKER_REPORT_ROWS) {
        return;
    }
    if (report->rows_count < WORKER_REPORT_ROWS) {
        report->rows_count++;
    }
    struct worker_report_row *row = &report->rows[at];
    memmove(row + 1, row, (report->rows_count - at - 1) * sizeof(*row));
    memset(row, 0, sizeof(*row));
    memcpy(row->site, lane->site->name, lane->site->name_size);
    row->backlog = backlog;
    row->sessions = lane->sessions_count;
    row->delivered = stat_read_xcore(&lane->delivered);
    row->deferred = stat_read_xcore(&lane->deferred);
    row->bounced = stat_read_xcore(&lane->bounced);
    struct mono_time until = site_suspended_until_xcore(lane->site, now);
    row->suspended_ms = until.ns == 0 ? 0 : (until.ns - now.ns) / NS_PER_MS;
    size_t size = lane->error_size < WORKER_REPORT_TEXT ? lane->error_size : WORKER_REPORT_TEXT - 1;
    memcpy(row->last_error, lane->error_text, size);
}

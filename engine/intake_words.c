/* SPDX-License-Identifier: Apache-2.0 */
/* Lines wait in intake until control has lent the room to carry them; it comes once a second. */
#include "engine/intake_priv.h"

void intake_words_begin(struct intake_core *core)
{
    core->words_waiting = writer_of(core->words_text, sizeof(core->words_text));
}

void intake_words_add(struct intake_core *core, const char *line)
{
    struct writer *writer = &core->words_waiting;
    const char *spool = core->engine->config->spool;
    const size_t around = sizeof("ramjet: /\n");
    if ((size_t)(writer->end - writer->at) < strlen(spool) + strlen(line) + around) {
        core->words_left_out++;
        return;
    }
    writer_put_format(writer, "ramjet: %s/%s\n", spool, line);
}

void intake_words_send(struct intake_core *core)
{
    struct inbox_node *node = inbox_take(&core->intake->words);
    if (node != NULL) {
        core->words = CONTAINER_OF(node, struct intake_words, node);
    }
    struct intake_words *words = core->words;
    if (words == NULL || writer_size(&core->words_waiting) == 0) {
        return;
    }
    struct writer writer = writer_of(words->text, sizeof(words->text));
    writer_put(&writer, writer_span(&core->words_waiting));
    if (core->words_left_out > 0) {
        writer_put_format(&writer, "ramjet: and %u more that are not named here\n",
                          (unsigned)core->words_left_out);
    }
    ensure(!writer.is_full);
    words->size = writer_size(&writer);
    core->words = NULL;
    core->words_left_out = 0;
    intake_words_begin(core);
    inbox_push_xcore(words->reply_to, &words->node);
}

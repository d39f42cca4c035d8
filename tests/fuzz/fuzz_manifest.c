/* SPDX-License-Identifier: Apache-2.0 */
/* batch.json. */
#include "queue/manifest.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(struct span input)
{
    char words[2048];
    struct writer errors = writer_of(words, sizeof(words));
    struct span json =
        span_of(input.at, input.size < MANIFEST_SIZE_MAX ? input.size : MANIFEST_SIZE_MAX);
    struct manifest *manifest = manifest_parse(json, SPAN("fuzz"), &errors);
    ensure((manifest == NULL) == (writer_size(&errors) > 0));
    if (manifest != NULL) {
        ensure(manifest_id_is_good(span_of_text(manifest->id)));
        ensure(manifest->kind == MANIFEST_BSMTP || strchr(manifest->message, '/') == NULL);
        ensure(manifest->kind == MANIFEST_BSMTP || strchr(manifest->recipients, '/') == NULL);
        ensure(manifest->priority <= 9);
        ensure(manifest->max_reject_ppm <= MANIFEST_PPM);
        (void)manifest_allows_rejects(manifest, 1, 100);
    }
    manifest_destroy(manifest);
}

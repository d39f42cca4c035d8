/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *exact = fuzz_copy(span_of((const char *)data, size));
    fuzz_one(span_of(exact, size));
    free(exact);
    return 0;
}

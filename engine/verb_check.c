/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/verbs.h"

int verb_check(int count, char **list)
{
    (void)count;
    (void)list;
    return 1;
}

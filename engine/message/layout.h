/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout: the last step of a compilation. Everything that does not depend on the recipient is done
 * here once, and everything that render and check want to know about a segment is written down in
 * it. For the compile side of this folder only.
 */
#pragma once

#include "engine/message/builder.h"

/* 0 or -EINVAL with the problem filled in. The segments are final afterwards. */
int layout_finish(struct builder *builder) __attribute__((warn_unused_result));

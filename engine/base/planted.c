/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/planted.h"

enum plant planted_chosen = PLANT_NONE;

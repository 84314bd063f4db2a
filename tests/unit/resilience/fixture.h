/* What the tests of resilience/ share: cmocka, seeded random numbers, and a proof that the room reads no clock. */
#ifndef TESTS_UNIT_RESILIENCE_FIXTURE_H
#define TESTS_UNIT_RESILIENCE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../domain/prng.h"

enum { MS = 1000, SECOND = 1000000 };
static const int64_t HOUR = (int64_t)3600 * SECOND;

#endif

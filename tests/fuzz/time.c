/* RFC 3339 times: time_parse agrees with a reading by position and the C library's timegm; time_format reads back. */
#include <time.h>

#include "base/clock.h"
#include "fuzz.h"

static const int64_t US_PER_S = 1000000, LAST_US = 253402300799999999, FIRST_US = -62167219200000000;

/* The digits at s[from..], or -1; also when a pattern's character there is another. 'd' in the pattern is a digit. */
static bool looks(struct str s, size_t from, const char *pattern)
{
    for (size_t i = 0; pattern[i]; i++) {
        char c = from + i < s.n ? s.p[from + i] : '\0';
        if (pattern[i] == 'd' ? c < '0' || c > '9' : c != pattern[i])
            return false;
    }
    return true;
}

static int number(struct str s, size_t from, size_t digits)
{
    int v = 0;

    for (size_t i = from; i < from + digits; i++)
        v = v * 10 + (s.p[i] - '0');
    return v;
}

/* timegm carries a day too many into the next month: then it was none of this one. */
static bool read_date(struct str s, struct tm *tm)
{
    struct tm noon;

    if (!looks(s, 0, "dddd-dd-dd"))
        return false;
    *tm = (struct tm){.tm_year = number(s, 0, 4) - 1900, .tm_mon = number(s, 5, 2) - 1, .tm_mday = number(s, 8, 2)};
    noon = *tm;
    timegm(&noon);
    return noon.tm_year == tm->tm_year && noon.tm_mon == tm->tm_mon && noon.tm_mday == tm->tm_mday;
}

static bool reading(struct str s, int64_t *ret)
{
    struct tm tm;
    int64_t us = 0, unit = US_PER_S / 10, offset = 0;
    size_t at = 19, digits = 0;

    if (!read_date(s, &tm))
        return false;
    if (s.n > 10) {
        if ((s.p[10] != 'T' && s.p[10] != 't') || !looks(s, 11, "dd:dd:dd"))
            return false;
        tm.tm_hour = number(s, 11, 2);
        tm.tm_min = number(s, 14, 2);
        tm.tm_sec = number(s, 17, 2);
        if (tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
            return false;
        if (at < s.n && s.p[at] == '.') {
            for (at++; looks(s, at, "d"); at++, digits++, unit /= 10)
                us += number(s, at, 1) * unit;
            if (digits < 1 || digits > 9)
                return false;
        }
        if (looks(s, at, "Z") || looks(s, at, "z")) {
            at++;
        } else if (at < s.n && memchr("+- ", s.p[at], 3) && looks(s, at + 1, "dd:dd")) {
            if (number(s, at + 1, 2) > 23 || number(s, at + 4, 2) > 59)
                return false;
            offset = (number(s, at + 1, 2) * 60 + number(s, at + 4, 2)) * (s.p[at] == '-' ? -60 : 60);
            at += 6;
        } else {
            return false;
        }
        if (at != s.n)
            return false;
    }
    bool leap = s.n > 10 && tm.tm_sec == 60;
    int64_t whole = (int64_t)timegm(&tm) - offset;
    us += whole * US_PER_S;
    *ret = us;
    return us >= FIRST_US && us <= LAST_US && (!leap || whole % 86400 == 0);
}

static void check_format(int64_t us)
{
    char text[TIME_RFC3339_MAX];
    size_t len = time_format(us, text);
    time_t s = (time_t)(us / US_PER_S);
    char expect[64];
    struct tm tm;
    int64_t back;

    CHECK(len == 27 && strlen(text) == len);
    if (us < FIRST_US || us > LAST_US)
        return;
    if (us >= 0) { /* strftime writes no zeros before a year */
        gmtime_r(&s, &tm);
        strftime(expect, sizeof expect, "%Y-%m-%dT%H:%M:%S", &tm);
        CHECK(strncmp(text, expect, strlen(expect)) == 0);
    }
    CHECK(text[19] == '.' && text[26] == 'Z');
    CHECK(time_parse((struct str){text, len}, &back) && back == us);
}

/* Any time whose year fits an int goes to a date and back. */
static void check_civil(int64_t us)
{
    struct civil c;

    civil_from_us(us, &c);
    CHECK(c.month >= 1 && c.month <= 12 && c.day >= 1 && c.day <= civil_days_in_month(c.year, c.month));
    CHECK(c.hour >= 0 && c.hour <= 23 && c.min >= 0 && c.min <= 59 && c.sec >= 0 && c.sec <= 59);
    CHECK(c.usec >= 0 && c.usec < US_PER_S && c.wday >= 0 && c.wday <= 6);
    if (us > INT64_MIN + US_PER_S * 86400) /* before that the day's start is out of range */
        CHECK(civil_to_us(&c) == us);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str s = {(const char *)data, n};
    int64_t us = -7, expect = -7;
    bool ok = time_parse(s, &us);

    CHECK(ok == reading(s, &expect));
    CHECK(ok ? us == expect : us == -7);
    if (ok)
        check_format(us);
    us = (int64_t)fuzz_take(&s, 8);
    check_format(us);
    check_format(us % LAST_US);
    check_civil(us);
    return 0;
}

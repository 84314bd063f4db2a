/* The calendar arithmetic follows Howard Hinnant, https://howardhinnant.github.io/date_algorithms.html:
 * years begin in March, so that the leap day is a year's last, and repeat in eras of 400 years. */
#include "base/clock.h"

static const int64_t US_PER_S = 1000000, US_PER_DAY = 86400000000;
/* 9999-12-31T23:59:59.999999Z and 0000-01-01T00:00:00Z */
static const int64_t TIME_MAX_US = 253402300799999999, TIME_MIN_US = -62167219200000000;

enum { DAYS_PER_ERA = 146097, DAYS_TO_1970 = 719468 /* from 0000-03-01 */ };

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

void civil_from_us(int64_t us, struct civil *ret)
{
    int64_t days = floor_div(us, US_PER_DAY);
    int64_t rest = us % US_PER_DAY + (us % US_PER_DAY < 0 ? US_PER_DAY : 0);
    int64_t z = days + DAYS_TO_1970;
    int64_t era = floor_div(z, DAYS_PER_ERA);
    int doe = (int)(z - era * DAYS_PER_ERA);
    int yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int mp = (5 * doy + 2) / 153; /* 0 is March */
    int sec = (int)(rest / US_PER_S);

    ret->day = doy - (153 * mp + 2) / 5 + 1;
    ret->month = mp < 10 ? mp + 3 : mp - 9;
    ret->year = (int)(yoe + era * 400) + (ret->month <= 2);
    ret->hour = sec / 3600;
    ret->min = sec / 60 % 60;
    ret->sec = sec % 60;
    ret->usec = (int)(rest % US_PER_S);
    ret->wday = (int)((days % 7 + 11) % 7); /* day 0 was a Thursday */
}

int64_t civil_to_us(const struct civil *c)
{
    int64_t y = (int64_t)c->year - (c->month <= 2);
    int64_t era = floor_div(y, 400);
    int64_t yoe = y - era * 400;
    int64_t mp = c->month > 2 ? c->month - 3 : c->month + 9;
    int64_t doy = (153 * mp + 2) / 5 + c->day - 1;
    int64_t days = era * DAYS_PER_ERA + yoe * 365 + yoe / 4 - yoe / 100 + doy - DAYS_TO_1970;

    return days * US_PER_DAY + (int64_t)(c->hour * 3600 + c->min * 60 + c->sec) * US_PER_S + c->usec;
}

int civil_days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    return days[month - 1] + (month == 2 && leap);
}

static void put2(char *out, int v)
{
    out[0] = (char)('0' + v / 10);
    out[1] = (char)('0' + v % 10);
}

size_t time_format(int64_t us, char out[TIME_RFC3339_MAX])
{
    struct civil c;

    us = us > TIME_MAX_US ? TIME_MAX_US : us < TIME_MIN_US ? TIME_MIN_US : us;
    civil_from_us(us, &c);
    memcpy(out, "0000-00-00T00:00:00.000000Z", TIME_RFC3339_MAX);
    put2(out, c.year / 100);
    put2(out + 2, c.year % 100);
    put2(out + 5, c.month);
    put2(out + 8, c.day);
    put2(out + 11, c.hour);
    put2(out + 14, c.min);
    put2(out + 17, c.sec);
    put2(out + 20, c.usec / 10000);
    put2(out + 22, c.usec / 100 % 100);
    put2(out + 24, c.usec % 100);
    return TIME_RFC3339_MAX - 1;
}

/* Takes exactly `digits` digits off s. */
static bool take_digits(struct str *s, unsigned digits, int *ret)
{
    int v = 0;

    if (s->n < digits)
        return false;
    for (unsigned i = 0; i < digits; i++) {
        if (s->p[i] < '0' || s->p[i] > '9')
            return false;
        v = v * 10 + (s->p[i] - '0');
    }
    s->p += digits;
    s->n -= digits;
    *ret = v;
    return true;
}

static bool take_char(struct str *s, char c)
{
    if (s->n == 0 || s->p[0] != c)
        return false;
    s->p++;
    s->n--;
    return true;
}

static bool take_date(struct str *s, struct civil *c)
{
    return take_digits(s, 4, &c->year) && take_char(s, '-') && take_digits(s, 2, &c->month) && take_char(s, '-') &&
           take_digits(s, 2, &c->day) && c->month >= 1 && c->month <= 12 && c->day >= 1 &&
           c->day <= civil_days_in_month(c->year, c->month);
}

static bool take_clock(struct str *s, int *hour, int *min)
{
    return take_digits(s, 2, hour) && take_char(s, ':') && take_digits(s, 2, min) && *hour <= 23 && *min <= 59;
}

/* ".123456789": cut to microseconds. */
static bool take_fraction(struct str *s, int *usec)
{
    int digits = 0, digit;

    if (!take_char(s, '.'))
        return true;
    while (digits < 9 && take_digits(s, 1, &digit)) {
        if (digits < 6)
            *usec = *usec * 10 + digit;
        digits++;
    }
    for (int i = digits; i < 6; i++)
        *usec *= 10;
    return digits > 0;
}

/* 'Z' or an offset from UTC, in minutes. */
static bool take_zone(struct str *s, int *ret_min)
{
    int hour, min, sign;

    if (take_char(s, 'Z') || take_char(s, 'z')) {
        *ret_min = 0;
        return true;
    }
    if (take_char(s, '+') || take_char(s, ' '))
        sign = 1;
    else if (take_char(s, '-'))
        sign = -1;
    else
        return false;
    if (!take_clock(s, &hour, &min))
        return false;
    *ret_min = sign * (hour * 60 + min);
    return true;
}

bool time_parse(struct str s, int64_t *ret_us)
{
    struct civil c = {0};
    int offset = 0;
    int64_t us;

    if (!take_date(&s, &c))
        return false;
    if (s.n) {
        if (!take_char(&s, 'T') && !take_char(&s, 't'))
            return false;
        if (!take_clock(&s, &c.hour, &c.min) || !take_char(&s, ':') || !take_digits(&s, 2, &c.sec) || c.sec > 60 ||
            !take_fraction(&s, &c.usec) || !take_zone(&s, &offset) || s.n)
            return false;
    }
    us = civil_to_us(&c) - offset * 60 * US_PER_S;
    if (us < TIME_MIN_US || us > TIME_MAX_US || (c.sec == 60 && (us - c.usec) % US_PER_DAY != 0))
        return false;
    *ret_us = us;
    return true;
}

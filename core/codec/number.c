/*
 * number.c - the C library does the hard cases; it is only ever given digits and an exponent, so
 * that a locale's decimal comma cannot come in.
 */
#include "codec/number.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* Significant digits that can decide how a double rounds, and some. */
#define DIGITS_MAX 800

/* Powers of ten that are exact doubles. */
static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define POWER_MAX 22

/* A positive number: the digits, times ten to the exponent. */
struct decimal {
    size_t n;
    bool has_more; /* non-zero digits were left out */
    int64_t exponent;
    char digits[DIGITS_MAX + 1]; /* no leading zeros */
};

/* Reading */

static bool is_digit(const char *p, const char *end) {
    return p < end && *p >= '0' && *p <= '9';
}

static const char *read_digits(struct decimal *d, const char *p, const char *end, bool fraction) {
    for (; is_digit(p, end); p++) {
        if (d->n == 0 && *p == '0') {
            d->exponent -= fraction;
        } else if (d->n < DIGITS_MAX) {
            d->digits[d->n++] = *p;
            d->exponent -= fraction;
        } else {
            d->has_more = d->has_more || *p != '0';
            d->exponent += !fraction;
        }
    }
    return p;
}

/* p is after the 'e'. NULL: no digits. */
static const char *read_exponent(struct decimal *d, const char *p, const char *end) {
    const int64_t limit = INT64_MAX / 100;
    int64_t exponent = 0;
    bool is_negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+'))
        p++;
    if (!is_digit(p, end))
        return NULL;
    for (; is_digit(p, end); p++)
        exponent = exponent > limit ? limit : exponent * 10 + (*p - '0');
    d->exponent += is_negative ? -exponent : exponent;
    return p;
}

/* p is after the sign. False: not a JSON number. */
static bool read_decimal(struct decimal *d, const char *p, const char *end) {
    d->n = 0;
    d->has_more = false;
    d->exponent = 0;
    if (!is_digit(p, end) || (*p == '0' && is_digit(p + 1, end)))
        return false;
    p = read_digits(d, p, end, false);
    if (p < end && *p == '.') {
        if (!is_digit(++p, end))
            return false;
        p = read_digits(d, p, end, true);
    }
    if (p < end && (*p == 'e' || *p == 'E'))
        p = read_exponent(d, p + 1, end);
    return p == end;
}

static double decimal_value(struct decimal *d) {
    if (d->n <= 15 && !d->has_more && d->exponent >= -POWER_MAX && d->exponent <= POWER_MAX) {
        /* Both operands are exact, so the one rounding is the right one. */
        int64_t mantissa = 0;
        for (size_t i = 0; i < d->n; i++)
            mantissa = mantissa * 10 + (d->digits[i] - '0');
        return d->exponent < 0 ? (double)mantissa / powers[-d->exponent]
                               : (double)mantissa * powers[d->exponent];
    }
    if (d->n == 0)
        return 0;
    char text[DIGITS_MAX + 16];
    int64_t exponent = d->exponent;
    size_t n = d->n;
    memcpy(text, d->digits, n);
    if (d->has_more) { /* a last digit that breaks ties upwards */
        text[n++] = '1';
        exponent--;
    }
    exponent = exponent > 99999 ? 99999 : exponent < -99999 ? -99999 : exponent;
    snprintf(text + n, sizeof(text) - n, "e%d", (int)exponent);
    return strtod(text, NULL);
}

int pge_number_parse(const char *p, size_t n, double *out) {
    const char *end = p + n;
    bool is_negative = n > 0 && *p == '-';
    struct decimal d;
    if (!read_decimal(&d, p + is_negative, end))
        return UV_EINVAL;
    double value = decimal_value(&d);
    *out = is_negative ? -value : value;
    return 0;
}

/* Writing */

static size_t write_integer(uint64_t value, char *out) {
    size_t n = 1;
    for (uint64_t rest = value; rest >= 10; n++)
        rest /= 10;
    for (size_t i = n; i-- > 0; value /= 10)
        out[i] = (char)('0' + value % 10);
    return n;
}

/* Few decimals, as in prices: scaled up, rounded, and divided again it is the same number. At most
 * 15 digits, so no other text as short reads back. */
static bool find_short(double v, struct decimal *d) {
    if (v < 1e-3)
        return false;
    for (int places = 1; places <= 9; places++) {
        double scaled = floor(v * powers[places] + 0.5);
        if (scaled >= 1e15)
            return false;
        if (scaled / powers[places] == v) {
            d->n = write_integer((uint64_t)scaled, d->digits);
            d->exponent = -places;
            return true;
        }
    }
    return false;
}

/* The closest decimal of `precision` digits, trailing zeros dropped. */
static void round_to(double v, int precision, struct decimal *d) {
    char text[48];
    snprintf(text, sizeof(text), "%.*e", precision - 1, v);
    const char *p = text;
    d->n = 0;
    for (; *p != 'e'; p++) { /* skips the locale's decimal point, however long */
        if (*p >= '0' && *p <= '9')
            d->digits[d->n++] = *p;
    }
    d->exponent = strtol(p + 1, NULL, 10) - (precision - 1);
    while (d->n > 1 && d->digits[d->n - 1] == '0') {
        d->n--;
        d->exponent++;
    }
}

/* The next larger decimal of `precision` digits. False after a 9: then fewer digits were enough,
 * and have been tried. */
static bool step_up(struct decimal *d, int precision) {
    for (; d->n < (size_t)precision; d->exponent--)
        d->digits[d->n++] = '0';
    if (d->digits[d->n - 1] == '9')
        return false;
    d->digits[d->n - 1]++;
    return true;
}

/*
 * The interval that reads back as v is lopsided below a power of two: there the closest decimal may
 * lie outside of it while its upper neighbour lies inside (2^-44).
 */
static void find_shortest(double v, struct decimal *d) {
    int unused;
    bool is_power = frexp(v, &unused) == 0.5;
    d->has_more = false;
    for (int precision = v < DBL_MIN ? 1 : 15; precision < 17; precision++) {
        round_to(v, precision, d);
        if (decimal_value(d) == v)
            return;
        if (is_power && step_up(d, precision) && decimal_value(d) == v)
            return;
    }
    round_to(v, 17, d);
}

static size_t write_zeros(char *out, int64_t n) {
    memset(out, '0', (size_t)n);
    return (size_t)n;
}

/* ECMAScript's Number::toString from its step 5 on; point is where the decimal point stands,
 * counted from the first digit. */
static size_t write_decimal(const struct decimal *d, char *out) {
    int64_t n = (int64_t)d->n, point = n + d->exponent;
    char *p = out;
    if (point > 21 || point <= -6) {
        *p++ = d->digits[0]; /* NOLINT: there is a first digit, n >= 1 */
        if (n > 1) {
            *p++ = '.';
            memcpy(p, d->digits + 1, d->n - 1);
            p += n - 1;
        }
        *p++ = 'e';
        *p++ = point > 0 ? '+' : '-';
        p += write_integer((uint64_t)(point > 0 ? point - 1 : 1 - point), p);
    } else if (point <= 0) {
        memcpy(p, "0.", 2);
        p += 2 + write_zeros(p + 2, -point);
        memcpy(p, d->digits, d->n);
        p += n;
    } else if (point >= n) {
        memcpy(p, d->digits, d->n);
        p += n;
        p += write_zeros(p, point - n);
    } else {
        memcpy(p, d->digits, (size_t)point);
        p[point] = '.';
        memcpy(p + point + 1, d->digits + point, (size_t)(n - point));
        p += n + 1;
    }
    return (size_t)(p - out);
}

size_t pge_number_format(double v, char out[PGE_NUMBER_MAX]) {
    size_t sign = v < 0;
    struct decimal d;
    out[0] = '-';
    v = fabs(v);
    if (v < 9007199254740992.0 && v == (double)(int64_t)v)
        return sign + write_integer((uint64_t)v, out + sign);
    if (!find_short(v, &d))
        find_shortest(v, &d);
    return sign + write_decimal(&d, out + sign);
}

/* Request ids and W3C trace context (https://www.w3.org/TR/trace-context/). */
#include "base/rand.h"
#include "http/internal.h"

void io_seed(struct http_io *io)
{
    io->id[0] = rand_u64();
    io->id[1] = rand_u64();
}

/* splitmix64 (Steele, Lea, Flood 2014): every state gives another word. Ids have to be unique, not secret. */
static uint64_t next_word(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void put_hex(char *out, uint64_t v)
{
    for (int i = 15; i >= 0; i--, v >>= 4)
        out[i] = "0123456789abcdef"[v & 15];
}

void request_make_id(struct request *r)
{
    struct str sent = r->known[H_REQUEST_ID];
    bool ok = r->known_n[H_REQUEST_ID] == 1 && sent.n > 0 && sent.n <= 64;
    for (size_t i = 0; ok && i < sent.n; i++) {
        char c = sent.p[i], l = (char)(c | 0x20);
        ok = (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    }
    if (ok) {
        memcpy(r->id_text, sent.p, sent.n);
        r->id_text[sent.n] = '\0';
        r->pub.request_id = (struct str){r->id_text, sent.n};
        return;
    }
    put_hex(r->id_text, next_word(&r->io->id[0]));
    put_hex(r->id_text + 16, next_word(&r->io->id[1]));
    r->id_text[32] = '\0';
    r->pub.request_id = (struct str){r->id_text, 32};
}

/* n lower-case hex digits; *ret_zero: all are '0'. */
static bool hex_run(const char *p, size_t n, bool *ret_zero)
{
    *ret_zero = true;
    for (size_t i = 0; i < n; i++) {
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f')))
            return false;
        *ret_zero = *ret_zero && p[i] == '0';
    }
    return true;
}

/* version "-" trace id "-" parent id "-" flags; a version after 00 may go on behind another "-". */
void request_make_trace(struct request *r)
{
    struct str t = r->known[H_TRACEPARENT];
    bool zero_version, zero_trace, zero_parent, zero_flags;
    if (r->known_n[H_TRACEPARENT] != 1 || t.n < 55 || t.p[2] != '-' || t.p[35] != '-' || t.p[52] != '-' ||
        !hex_run(t.p, 2, &zero_version) || !hex_run(t.p + 3, 32, &zero_trace) || !hex_run(t.p + 36, 16, &zero_parent) ||
        !hex_run(t.p + 53, 2, &zero_flags) || zero_trace || zero_parent || memcmp(t.p, "ff", 2) == 0 ||
        (zero_version ? t.n != 55 : t.n > 55 && t.p[55] != '-'))
        return;
    char low = t.p[54];
    bool sampled = (low <= '9' ? low - '0' : low - 'a' + 10) & 1;
    memcpy(r->trace_text, "00-", 3);
    memcpy(r->trace_text + 3, t.p + 3, 33);
    uint64_t span = next_word(&r->io->id[1]);
    put_hex(r->trace_text + 36, span ? span : 1);
    memcpy(r->trace_text + 52, sampled ? "-01" : "-00", 4);
    r->pub.traceparent = (struct str){r->trace_text, 55};
}

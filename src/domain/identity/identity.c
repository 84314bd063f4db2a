#include "domain/identity/identity.h"

static const char *const role_names[] = {[IDENT_USER] = "user", [IDENT_ADMIN] = "admin"};

const char *ident_role_name(enum ident_role r)
{
    return role_names[r == IDENT_ADMIN ? IDENT_ADMIN : IDENT_USER];
}

bool ident_role_parse(struct str s, enum ident_role *ret)
{
    for (int r = IDENT_USER; r <= IDENT_ADMIN; r++)
        if (str_is(s, role_names[r])) {
            *ret = (enum ident_role)r;
            return true;
        }
    return false;
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

static bool refuse(struct problem *p, const char *field, const char *type, const char *msg)
{
    problem_field(p, "body", field, type, "%s", msg);
    return false;
}

static uint32_t code_point(const char *p, size_t n)
{
    uint32_t c = (unsigned char)p[0] & (0xFFu >> (n + 1));

    for (size_t i = 1; i < n; i++)
        c = c << 6 | ((unsigned char)p[i] & 0x3Fu);
    return c;
}

/*
 * Is a code point beyond ASCII fit for a name? What is refused goes by Unicode blocks, not by the 700 ranges of the
 * letters themselves: spaces, controls, everything invisible or that turns the direction of text, punctuation,
 * symbols, private use. Combining marks pass, since most scripts of Asia cannot be written without them.
 */
static bool is_letter_beyond_ascii(uint32_t c)
{
    static const struct {
        uint32_t from, to;
    } refused[] = {
        {0x0080, 0x00A9},    {0x00AB, 0x00B4},   {0x00B6, 0x00B9},   {0x00BB, 0x00BF},   {0x00D7, 0x00D7},
        {0x00F7, 0x00F7},    {0x034F, 0x034F},   {0x0600, 0x060F},   {0x061B, 0x061F},   {0x06DD, 0x06DD},
        {0x070F, 0x070F},    {0x0890, 0x0891},   {0x08E2, 0x08E2},   {0x115F, 0x1160},   {0x1680, 0x1680},
        {0x17B4, 0x17B5},    {0x180B, 0x180F},   {0x2000, 0x2070},   {0x2072, 0x207E},   {0x2080, 0x208F},
        {0x20A0, 0x20FF},    {0x2190, 0x2BFF},   {0x2E00, 0x2E7F},   {0x2FF0, 0x3004},   {0x3007, 0x3030},
        {0x3036, 0x303A},    {0x303D, 0x3040},   {0x3164, 0x3164},   {0x3200, 0x33FF},   {0x4DC0, 0x4DFF},
        {0xD800, 0xF8FF},    {0xFE00, 0xFE1F},   {0xFE30, 0xFE6F},   {0xFEFF, 0xFF20},   {0xFF3B, 0xFF40},
        {0xFF5B, 0xFF65},    {0xFFA0, 0xFFA0},   {0xFFE0, 0xFFFF},   {0x110BD, 0x110BD}, {0x110CD, 0x110CD},
        {0x13430, 0x1343F},  {0x1BCA0, 0x1BCAF}, {0x1CF50, 0x1D3FF}, {0x1F000, 0x1FFFF}, {0x2FFFE, 0x2FFFF},
        {0x3FFFE, 0x10FFFF},
    };

    for (size_t i = 0; i < sizeof refused / sizeof refused[0] && refused[i].from <= c; i++)
        if (c <= refused[i].to)
            return false;
    return true;
}

bool ident_username_ok(struct str s, struct problem *p)
{
    if (s.n == 0)
        return refuse(p, "username", "missing", "is required");
    if (s.n > IDENT_USERNAME_MAX)
        return refuse(p, "username", "range", "is longer than 64 bytes");
    while (s.n) {
        size_t n = str_utf8_seq(s);

        if (n == 0)
            return refuse(p, "username", "format", "is not UTF-8");
        if (n == 1 ? !is_alnum(s.p[0]) && !is_one_of(s.p[0], "._@+-") : !is_letter_beyond_ascii(code_point(s.p, n)))
            return refuse(p, "username", "format", "may hold letters, digits and . _ @ + - only");
        s.p += n;
        s.n -= n;
    }
    return true;
}

/* Words of at least one and at most max bytes between dots. */
static bool is_dotted(struct str s, size_t max, bool (*is_word)(char))
{
    size_t word = 0;

    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '.') {
            if (word == 0)
                return false;
            word = 0;
        } else if (!is_word(s.p[i]) || ++word > max) {
            return false;
        }
    }
    return word > 0;
}

/* atext of RFC 5322 */
static bool is_local(char c)
{
    return is_alnum(c) || is_one_of(c, "!#$%&'*+-/=?^_`{|}~");
}

static bool is_domain(char c)
{
    return is_alnum(c) || c == '-';
}

static bool is_domain_name(struct str s)
{
    if (!is_dotted(s, 63, is_domain))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        bool edge = i == 0 || s.p[i - 1] == '.' || i + 1 == s.n || s.p[i + 1] == '.';

        if (edge && s.p[i] == '-')
            return false;
    }
    return true;
}

bool ident_email_ok(struct str s, struct problem *p)
{
    enum { LOCAL_MAX = 64 };
    const char *at;
    struct str local, domain;

    if (s.n == 0)
        return refuse(p, "email", "missing", "is required");
    if (s.n > IDENT_EMAIL_MAX)
        return refuse(p, "email", "range", "is longer than 254 bytes");
    at = memchr(s.p, '@', s.n);
    if (!at)
        return refuse(p, "email", "format", "has no @");
    local = (struct str){s.p, (size_t)(at - s.p)};
    domain = (struct str){at + 1, s.n - local.n - 1};
    if (local.n > LOCAL_MAX)
        return refuse(p, "email", "range", "has more than 64 bytes before the @");
    if (!is_dotted(local, LOCAL_MAX, is_local) || !is_domain_name(domain))
        return refuse(p, "email", "format", "is not an email address");
    return true;
}

bool ident_password_ok(struct str s, unsigned min_len, struct problem *p)
{
    enum { BCRYPT_MAX = 72 }; /* bcrypt reads no further */
    size_t chars = 0;

    if (s.n == 0)
        return refuse(p, "password", "missing", "is required");
    if (s.n > BCRYPT_MAX)
        return refuse(p, "password", "range", "is longer than 72 bytes");
    for (size_t i = 0, n; i < s.n; i += n, chars++) {
        n = str_utf8_seq((struct str){s.p + i, s.n - i});
        if (n == 0)
            return refuse(p, "password", "format", "is not UTF-8");
        if (s.p[i] == '\0')
            return refuse(p, "password", "format", "may not hold a NUL");
    }
    if (chars < min_len) {
        problem_field(p, "body", "password", "range", "is shorter than %u characters", min_len);
        return false;
    }
    return true;
}

bool ident_fold(struct str s, char *out, size_t cap)
{
    if (s.n >= cap)
        return false;
    for (size_t i = 0; i < s.n; i++)
        out[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] + ('a' - 'A') : s.p[i]);
    out[s.n] = '\0';
    return true;
}

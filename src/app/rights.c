/* Who is calling, and whether they may. */
#include "app/internal.h"

#include "codec/crypt.h"
#include "codec/jwt.h"
#include "codec/uuid.h"

static uint32_t generation(struct app *a, int64_t user)
{
    return atomic_load_explicit(&a->auth_generation[(uint64_t)user % AUTH_GENERATIONS], memory_order_acquire);
}

enum pf_err app_user_touched(struct app *a, int64_t user, enum pf_err e)
{
    char key[CACHE_KEY_MAX];
    const struct str k = app_key_user(key, user);
    atomic_fetch_add_explicit(&a->auth_generation[(uint64_t)user % AUTH_GENERATIONS], 1, memory_order_acq_rel);
    const bool told = cache_del_many(a->d.cache, &k, 1);
    return e == PFE_OK && !told ? PFE_INTERNAL : e;
}

void app_invalidated(void *app, struct str pattern)
{
    struct app *a = app;
    int64_t user;
    if (str_starts(pattern, STR("user:")) && str_to_i64((struct str){pattern.p + 5, pattern.n - 5}, &user)) {
        atomic_fetch_add_explicit(&a->auth_generation[(uint64_t)user % AUTH_GENERATIONS], 1, memory_order_acq_rel);
        return;
    }
    if (pattern.n == 0 || !strchr("u*?[", pattern.p[0]))
        return;
    for (unsigned i = 0; i < AUTH_GENERATIONS; i++)
        atomic_fetch_add_explicit(&a->auth_generation[i], 1, memory_order_acq_rel);
}

/* The key's slot, or that of its set which was filled longest ago. Locks the set. */
static struct auth_slot *slot_of(struct app *a, const uint8_t key[32], pthread_mutex_t **ret_lock)
{
    uint64_t h;
    memcpy(&h, key, sizeof h);
    h %= AUTH_SLOTS / AUTH_WAYS;
    *ret_lock = &a->auth_lock[h % AUTH_LOCKS];
    pthread_mutex_lock(*ret_lock);
    struct auth_slot *set = &a->auth[h * AUTH_WAYS], *oldest = set;
    for (unsigned i = 0; i < AUTH_WAYS; i++) {
        if (crypt_equal(set[i].key, key, 32))
            return &set[i];
        if (set[i].asked_us < oldest->asked_us)
            oldest = &set[i];
    }
    return oldest;
}

/* Until when a principal that the store was asked about then is believed. Other processes may have changed something
   since: either that was heard of, then the slot's generation is stale, or it was acknowledged after cache_heard. */
static int64_t believed_until(const struct app *a, int64_t asked_us)
{
    if (app_trusts(a))
        return asked_us + AUTH_TTL_US;
    const int64_t heard = cache_shared(a->d.cache) ? cache_heard(a->d.cache) : 0;
    const int64_t until = (heard > asked_us ? heard : asked_us) + AUTH_ALONE_US;
    return until < asked_us + AUTH_TTL_US ? until : asked_us + AUTH_TTL_US;
}

enum memory { FORGOTTEN, OUTDATED, BELIEVED };

/* OUTDATED: it was so at *ret_asked_us, and no change has been heard of; the store is to be asked. */
static enum memory remembered(struct app *a, const uint8_t key[32], struct principal *ret, int64_t *ret_asked_us)
{
    pthread_mutex_t *lock;
    struct auth_slot *s = slot_of(a, key, &lock);
    int64_t now = clock_mono(a->d.clock);
    enum memory m = FORGOTTEN;
    if (s->asked_us && s->asked_us + AUTH_SHOWN_US > now && crypt_equal(s->key, key, 32) &&
        s->generation == generation(a, s->who.user))
        m = believed_until(a, s->asked_us) > now ? BELIEVED : OUTDATED;
    if (m != FORGOTTEN)
        *ret = s->who;
    *ret_asked_us = s->asked_us;
    pthread_mutex_unlock(lock);
    return m;
}

/* While the primary is gone what is only shown may be stale, and so may be who asks: a replica tells, and with none a
   caller of the last minutes is still one. Nobody can take a credential back meanwhile; the answer says of when it is.
 */
static bool still_shown(struct app *a, enum memory m, enum pf_err e, int64_t asked_us)
{
    const int64_t age = clock_mono(a->d.clock) - asked_us;
    if (m != OUTDATED || e != PFE_UNAVAILABLE || !app_stale.allowed)
        return false;
    if (app_stale.us < age)
        app_stale.us = age;
    return true;
}

/* gen: the user's generation as it was before the store was asked, which was at asked_us. */
static void remember(struct app *a, const uint8_t key[32], const struct principal *who, uint32_t gen, int64_t asked_us)
{
    pthread_mutex_t *lock;
    struct auth_slot *s = slot_of(a, key, &lock);
    memcpy(s->key, key, 32);
    s->who = *who;
    s->generation = gen;
    s->asked_us = asked_us;
    pthread_mutex_unlock(lock);
}

static enum app_auth refuse(struct problem *p, enum pf_err e, const char *why)
{
    problem_set(p, e, "%s", why);
    return APP_AUTH_REFUSED;
}

/* Adds the user's role to a principal whose user is known; refuses users that are not active. */
static enum pf_err complete(struct app *a, struct principal *who)
{
    struct store_user u;
    enum pf_err e = store_user_get(a->d.store, who->user, &u);
    if (e == PFE_OK && u.status != STORE_USER_ACTIVE)
        e = PFE_NOT_FOUND;
    if (e == PFE_OK)
        who->role = u.role;
    return e;
}

/* What a replica that may be behind does not have may be there all the same. */
static enum pf_err believable(struct app *a, enum pf_err e)
{
    return e == PFE_NOT_FOUND && store_stale(a->d.store, STORE_STALE_LOOK) ? PFE_UNAVAILABLE : e;
}

static enum app_auth outcome(enum pf_err e, struct problem *p, const char *why)
{
    if (e == PFE_OK)
        return APP_AUTH_OK;
    if (e == PFE_NOT_FOUND || e == PFE_BAD_CREDENTIALS)
        return refuse(p, PFE_BAD_CREDENTIALS, why);
    return refuse(p, e, "");
}

static const char bad_key[] = "the API key is not valid";
static const char bad_bearer[] = "Authorization must be: Bearer <token>";
static const char no_credential[] = "send X-API-Key, or Authorization: Bearer with an access token";

static bool key_formed(struct str text)
{
    return text.n == 3 + BASE62_32_LEN && str_starts(text, STR("pf_"));
}

static bool bearer_formed(struct str v)
{
    return v.n >= 7 && str_eq_nocase((struct str){v.p, 7}, STR("Bearer "));
}

enum pf_err app_presents(const struct app *a, const struct app_rule *rule, struct str api_key, struct str authorization,
                         const char **ret_why)
{
    if (rule->any)
        return PFE_OK;
    if (api_key.p && !key_formed(str_trim(api_key)))
        *ret_why = bad_key;
    else if (authorization.p && !bearer_formed(str_trim(authorization)))
        *ret_why = bad_bearer;
    else if (api_key.p || authorization.p || rule->right == RIGHT_PUBLIC || (rule->open && a->cfg.dev))
        return PFE_OK;
    else
        *ret_why = no_credential;
    return *ret_why == no_credential ? PFE_UNAUTHENTICATED : PFE_BAD_CREDENTIALS;
}

static enum app_auth by_key(struct app *a, struct str text, bool may_block, struct principal *ret, struct problem *p)
{
    uint8_t hash[32];
    if (!key_formed(text))
        return refuse(p, PFE_BAD_CREDENTIALS, bad_key);
    sha256_of(text, hash);
    struct principal was;
    int64_t asked;
    const enum memory m = remembered(a, hash, &was, &asked);
    if (m == BELIEVED)
        *ret = was;
    if (m == BELIEVED || !may_block)
        return m == BELIEVED ? APP_AUTH_OK : APP_AUTH_WOULD_BLOCK;

    struct store_apikey k;
    const int64_t now = clock_mono(a->d.clock);
    uint32_t gen = m == OUTDATED ? generation(a, was.user) : 0;
    enum pf_err e = store_apikey_by_hash(a->d.store, hash, &k);
    if (e == PFE_OK && (m != OUTDATED || k.user != was.user)) {
        gen = generation(a, k.user);
        e = store_apikey_by_hash(a->d.store, hash, &k); /* again, now that a change would be noticed */
    }
    if (e == PFE_OK && k.revoked_us)
        e = PFE_BAD_CREDENTIALS;
    if (e == PFE_OK) {
        *ret = (struct principal){.user = k.user, .by = CRED_APIKEY, .key_id = k.id};
        e = complete(a, ret);
    }
    e = believable(a, e);
    if (still_shown(a, m, e, asked)) {
        *ret = was;
        return APP_AUTH_OK;
    }
    if (e != PFE_OK)
        return outcome(e, p, bad_key);
    if (store_stale(a->d.store, STORE_STALE_LOOK))
        return APP_AUTH_OK;
    remember(a, hash, ret, gen, now);

    /* Last use, at the grain of a slot's lifetime, by what the store has: keys that drive one another out of a set must
       not cost a write each time. A failure costs nobody anything but that time stamp. */
    struct store_tx *tx;
    if (app_now(a) - k.last_used_us < AUTH_TTL_US)
        return APP_AUTH_OK;
    if (store_tx_begin(a->d.store, &tx) == PFE_OK) {
        if (store_apikey_touch(tx, k.id, app_now(a)) == PFE_OK)
            e = store_tx_commit(tx);
        else
            store_tx_rollback(tx);
    }
    return APP_AUTH_OK;
}

static const char *token_fault(enum jwt_err e)
{
    switch (e) {
    case JWT_EXPIRED:
        return "the token has expired";
    case JWT_TYPE:
        return "this kind of token is not accepted here";
    default:
        return "the token is not valid";
    }
}

static enum app_auth by_token(struct app *a, struct str text, bool may_block, struct principal *ret, struct problem *p)
{
    char block[8192]; /* a token of JWT_MAX, decoded and parsed */
    struct arena arena;
    arena_init(&arena, block, sizeof block, sizeof block);
    struct jwt_claims c;
    enum jwt_err je = jwt_verify(&arena, a->cfg.jwt_secret, text, APP_TOKEN_ISSUER, APP_TOKEN_AUDIENCE, STR("access"),
                                 app_now(a) / 1000000, &c);
    uint8_t key[32] = {0};
    size_t n = 0;
    /* jti: the session's family in hex, '-', a number */
    bool form = je == JWT_OK && c.jti.n > 33 && c.jti.p[32] == '-' &&
                hex_decode((struct str){c.jti.p, 32}, key + 8, 16, &n) && n == 16;
    int64_t user = je == JWT_OK ? c.sub : 0;
    arena_reset(&arena);
    if (je == JWT_NOMEM)
        return refuse(p, PFE_NOMEM, "");
    if (!form)
        return refuse(p, PFE_BAD_CREDENTIALS, token_fault(je));
    memcpy(key, key + 16, 8); /* the slot is chosen by the first bytes: those of the family that are random */
    memcpy(key + 24, "session", 7);
    struct principal was;
    int64_t asked;
    const enum memory m = remembered(a, key, &was, &asked);
    if (m != FORGOTTEN && was.user != user)
        return refuse(p, PFE_BAD_CREDENTIALS, "the token is not valid");
    if (m == BELIEVED)
        *ret = was;
    if (m == BELIEVED || !may_block)
        return m == BELIEVED ? APP_AUTH_OK : APP_AUTH_WOULD_BLOCK;
    const int64_t now = clock_mono(a->d.clock);
    uint32_t gen = generation(a, user);
    struct store_session s;
    enum pf_err e = store_session_get(a->d.store, key + 8, &s);
    if (e == PFE_OK && (s.revoked_us || s.user != user))
        e = PFE_BAD_CREDENTIALS;
    if (e == PFE_OK) {
        *ret = (struct principal){.user = user, .by = CRED_TOKEN};
        memcpy(ret->family, key + 8, 16);
        e = complete(a, ret);
    }
    e = believable(a, e);
    if (still_shown(a, m, e, asked)) {
        *ret = was;
        return APP_AUTH_OK;
    }
    if (e != PFE_OK)
        return outcome(e, p, "the session has ended");
    if (store_stale(a->d.store, STORE_STALE_LOOK))
        return APP_AUTH_OK;
    remember(a, key, ret, gen, now);
    return APP_AUTH_OK;
}

enum app_auth app_authenticate(struct app *a, struct str api_key, struct str authorization, bool may_block,
                               struct principal *ret, struct problem *p)
{
    struct principal key = {0}, token = {0};
    enum app_auth r = APP_AUTH_OK;
    if (api_key.p)
        r = by_key(a, str_trim(api_key), may_block, &key, p);
    if (r == APP_AUTH_OK && authorization.p) {
        struct str v = str_trim(authorization);
        if (!bearer_formed(v))
            return refuse(p, PFE_BAD_CREDENTIALS, bad_bearer);
        r = by_token(a, str_trim((struct str){v.p + 7, v.n - 7}), may_block, &token, p);
    }
    if (r != APP_AUTH_OK)
        return r;
    if (key.user && token.user && key.user != token.user)
        return refuse(p, PFE_BAD_CREDENTIALS, "the API key and the token are of different users");
    *ret = key.user ? key : token;
    return APP_AUTH_OK;
}

enum pf_err app_admit(const struct app *a, const struct app_rule *rule, struct principal *who, struct problem *p)
{
    if (rule->right == RIGHT_PUBLIC)
        return PFE_OK;
    if (rule->right == RIGHT_NONE)
        return problem_set(p, PFE_FORBIDDEN, "%s", "");
    if (!who->user) {
        if (!rule->open || !a->cfg.dev)
            return problem_set(p, PFE_UNAUTHENTICATED, "%s", no_credential);
        who->role = IDENT_ADMIN;
        return PFE_OK;
    }
    if (rule->right == RIGHT_ADMIN && who->role != IDENT_ADMIN)
        return problem_set(p, PFE_FORBIDDEN, "administrators only");
    return PFE_OK;
}

enum pf_err app_require_owner(const struct principal *who, int64_t owner, struct problem *p)
{
    if (app_may_act_for(who, owner))
        return PFE_OK;
    return problem_set(p, PFE_FORBIDDEN, "only the user concerned or an administrator may do this");
}

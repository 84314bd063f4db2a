/* The shapes of answers that several routes share. */
#include "api/call.h"

#include "codec/uuid.h"
#include "domain/money/money.h"

unsigned api_scale(money_currency currency)
{
    const struct money_currency_info *ci = money_by_num(currency);
    return ci ? ci->scale : 0;
}

struct str api_code(money_currency currency)
{
    const struct money_currency_info *ci = money_by_num(currency);
    return ci ? (struct str){ci->code, 3} : STR("XXX");
}

void dto_uuid(struct jw *w, const char *key, const uint8_t uuid[16])
{
    if (!uuid) {
        jw_knull(w, key);
        return;
    }
    struct uuid id;
    char text[UUID_TEXT_LEN + 1];
    memcpy(id.b, uuid, sizeof id.b);
    uuid_format(&id, text);
    jw_kstr(w, key, (struct str){text, UUID_TEXT_LEN});
}

void dto_user(struct jw *w, const struct store_user *u, bool banking)
{
    jw_obj(w);
    if (banking)
        dto_uuid(w, "id", u->uuid);
    else
        jw_kint(w, "id", u->id);
    dto_uuid(w, "uuid", u->uuid);
    jw_kz(w, "username", u->username);
    jw_kz(w, "email", u->email);
    jw_kz(w, "role", ident_role_name(u->role));
    jw_ktime(w, "created_at", u->created_us);
    jw_ktime(w, "updated_at", u->updated_us);
    jw_end_obj(w);
}

void dto_balance_begin(struct jw *w, const struct ledger_account *acc, const uint8_t *user_uuid)
{
    unsigned scale = api_scale(acc->currency);
    jw_obj(w);
    if (user_uuid)
        dto_uuid(w, "user_id", user_uuid);
    else
        jw_kint(w, "user_id", acc->owner);
    jw_kamount(w, "balance", acc->balance, scale);
    jw_kamount(w, "held", acc->held, scale);
    jw_kamount(w, "available", ledger_available(acc), scale);
    jw_kstr(w, "currency", api_code(acc->currency));
    if (acc->flags)
        jw_kz(w, "status", acc->flags & LEDGER_CLOSED ? "closed" : "frozen");
    jw_ktime(w, "updated_at", acc->updated_us);
}

void dto_balance(struct jw *w, const struct ledger_account *acc, const uint8_t *user_uuid)
{
    dto_balance_begin(w, acc, user_uuid);
    jw_end_obj(w);
}

const char *dto_kind(enum ledger_kind k, bool banking)
{
    if (banking && k == LEDGER_DEPOSIT)
        return "credit";
    if (banking && k == LEDGER_WITHDRAW)
        return "debit";
    return ledger_kind_name(k);
}

static const char *status_of(const struct ledger_entry *e, int64_t resolved_by)
{
    if (!resolved_by)
        return "completed";
    return e->kind == LEDGER_HOLD ? "resolved" : "rolled_back";
}

static void owner_id(struct jw *w, const char *key, const struct dto_tx *t, int64_t owner, const uint8_t *uuid)
{
    if (!owner)
        return;
    if (t->banking)
        dto_uuid(w, key, uuid);
    else
        jw_kint(w, key, owner);
}

void dto_transaction(struct jw *w, const struct dto_tx *t)
{
    const struct ledger_entry *e = t->e;
    unsigned scale = api_scale(e->currency);
    /* a viewer that is not a party (an admin) sees the side that the movement is about */
    bool debit = t->debit_owner && (t->viewer == t->debit_owner || t->viewer != t->credit_owner);
    if (!t->credit_owner)
        debit = true;
    jw_obj(w);
    if (t->banking)
        dto_uuid(w, "id", e->uuid);
    else
        jw_kint(w, "id", e->seq);
    dto_uuid(w, "uuid", e->uuid);
    jw_kz(w, "type", dto_kind(e->kind, t->banking));
    jw_kz(w, "status", status_of(e, t->resolved_by));
    jw_kamount(w, "amount", e->amount, scale);
    jw_kstr(w, "currency", api_code(e->currency));
    owner_id(w, "from_user_id", t, t->debit_owner, t->from_uuid);
    owner_id(w, "to_user_id", t, t->credit_owner, t->to_uuid);
    jw_kstr(w, "description", e->description.p ? e->description : STR(""));
    jw_ktime(w, "created_at", e->ts);
    jw_kamount(w, "balance_after", debit ? e->debit_balance : e->credit_balance, scale);
    if (e->ref && t->banking)
        dto_uuid(w, "reference", t->ref_uuid);
    else if (e->ref)
        jw_kint(w, "reference", e->ref);
    jw_end_obj(w);
}

void dto_transaction_of(struct api_call *c, struct jw *w, const struct app_tx *t)
{
    struct dto_tx d = {.e = &t->e,
                       .debit_owner = t->debit_owner,
                       .credit_owner = t->credit_owner,
                       .resolved_by = t->resolved_by,
                       .viewer = c->subject ? c->subject : c->caller.who.user,
                       .banking = c->route->banking};
    uint8_t from[16], to[16], ref[16];
    if (d.banking) {
        if (t->debit_owner && app_user_uuid(c->app, t->debit_owner, true, from) == PFE_OK)
            d.from_uuid = from;
        if (t->credit_owner && app_user_uuid(c->app, t->credit_owner, true, to) == PFE_OK)
            d.to_uuid = to;
        struct app_tx original;
        struct arena_mark m = arena_mark(&c->r->arena);
        struct principal all = {.role = IDENT_ADMIN};
        if (t->e.ref && app_transaction(c->app, &all, &c->r->arena, t->e.ref, true, &original) == PFE_OK) {
            memcpy(ref, original.e.uuid, sizeof ref);
            d.ref_uuid = ref;
        }
        arena_rewind(&c->r->arena, m);
    }
    dto_transaction(w, &d);
}

#include "cli/cli.h"

#include <stdio.h>

#include "app/identity.h"
#include "base/buf.h"
#include "codec/json_out.h"
#include "codec/uuid.h"

int cli_create_admin(struct app *a, const struct cli_admin *in)
{
    struct caller c = {.who = {.role = IDENT_ADMIN}, .address = STR("local"), .request_id = STR("cli")};
    struct app_registration r = {in->username, in->email, in->password, IDENT_ADMIN};
    struct app_idem none = {0};
    struct store_user u;
    struct problem p = {0};
    char key[APP_APIKEY_LEN + 1] = "";
    enum pf_err e = app_register(a, &c, &r, &none, NULL, NULL, &u, &p);
    if (e == PFE_OK && in->api_key)
        e = app_apikey_issue(a, &c, u.id, key);
    if (e != PFE_OK) {
        fprintf(stderr, "payflow: user create-admin: %s\n", p.detail[0] ? p.detail : err_info(e)->title);
        for (int i = 0; i < p.n_fields; i++)
            fprintf(stderr, "  %s: %s\n", p.fields[i].name, p.fields[i].msg);
        return 1;
    }
    struct uuid id;
    char uuid[UUID_TEXT_LEN + 1];
    memcpy(id.b, u.uuid, sizeof id.b);
    uuid_format(&id, uuid);
    struct buf b;
    buf_init(&b, 0);
    if (in->json) {
        struct jw w;
        jw_init(&w, &b);
        jw_obj(&w);
        jw_kint(&w, "id", u.id);
        jw_kz(&w, "uuid", uuid);
        jw_kz(&w, "username", u.username);
        jw_kz(&w, "role", ident_role_name(u.role));
        if (in->api_key)
            jw_kz(&w, "api_key", key);
        jw_end_obj(&w);
        buf_putc(&b, '\n');
    } else {
        buf_printf(&b, "administrator %s is user %lld (%s)\n", u.username, (long long)u.id, uuid);
        if (in->api_key)
            buf_printf(&b, "API key, shown once: %s\n", key);
    }
    bool ok = cli_flush(&b);
    buf_free(&b);
    return ok ? 0 : 1;
}

/* The OpenAPI 3.1 document, from the route tables. Schemas of answers: web/schemas.json, built in. */
#include "api/call.h"
#include "base/err.h"

#include <stdio.h>

extern const char web_schemas_start[], web_schemas_end[];

static void field_schema(struct jw *w, const struct api_field *f)
{
    static const struct {
        const char *type, *format;
    } of[] = {[F_TEXT] = {"string", NULL},
              [F_INT] = {"integer", "int64"},
              [F_BOOL] = {"boolean", NULL},
              [F_AMOUNT] = {NULL, NULL},
              [F_USER] = {NULL, NULL},
              [F_TIME] = {"string", "date-time"},
              [F_CURRENCY] = {"string", NULL},
              [F_ARRAY] = {"array", NULL},
              [F_USERNAME] = {"string", NULL},
              [F_EMAIL] = {"string", "email"},
              [F_PASSWORD] = {"string", "password"},
              [F_BUYER] = {NULL, NULL}};
    jw_obj(w);
    if (f->type == F_AMOUNT || f->type == F_USER || f->type == F_BUYER) {
        jw_key(w, "type");
        jw_arr(w);
        jw_str(w, f->type == F_AMOUNT ? STR("number") : STR("integer"));
        jw_str(w, STR("string"));
        jw_end_arr(w);
    } else {
        jw_kz(w, "type", of[f->type].type);
    }
    if (of[f->type].format)
        jw_kz(w, "format", of[f->type].format);
    if (f->type == F_CURRENCY)
        jw_kz(w, "pattern", "^[A-Z]{3}$");
    if (strcmp(of[f->type].type ? of[f->type].type : "", "string") == 0 && f->max)
        jw_kint(w, "maxLength", f->max);
    if (strcmp(of[f->type].type ? of[f->type].type : "", "string") == 0 && f->min)
        jw_kint(w, "minLength", f->min);
    if (f->type == F_INT && f->max) {
        jw_kint(w, "minimum", f->min);
        jw_kint(w, "maximum", f->max);
    }
    if (f->type == F_ARRAY) {
        jw_key(w, "items");
        jw_raw(w, STR("{\"$ref\":\"#/components/schemas/BatchItem\"}"));
    }
    if (f->values) {
        jw_key(w, "enum");
        jw_arr(w);
        for (const char *v = f->values; *v;) {
            const char *end = strchrnul(v, '|');
            jw_str(w, (struct str){v, (size_t)(end - v)});
            v = *end ? end + 1 : end;
        }
        jw_end_arr(w);
    }
    jw_kz(w, "description", f->doc);
    jw_end_obj(w);
}

static void parameter(struct jw *w, const char *in, const struct api_field *f)
{
    jw_obj(w);
    jw_kz(w, "name", f->name);
    jw_kz(w, "in", in);
    jw_kbool(w, "required", f->required);
    jw_key(w, "schema");
    field_schema(w, f);
    jw_end_obj(w);
}

static void parameters(struct jw *w, const struct api_route *r)
{
    jw_key(w, "parameters");
    jw_arr(w);
    for (const char *p = strchr(r->path, '{'); p; p = strchr(p + 1, '{')) {
        const char *end = strchr(p, '}');
        jw_obj(w);
        jw_key(w, "name");
        jw_str(w, (struct str){p + 1, (size_t)(end - p - 1)});
        jw_kz(w, "in", "path");
        jw_kbool(w, "required", true);
        jw_key(w, "schema");
        jw_raw(w, STR("{\"type\":\"string\"}"));
        jw_end_obj(w);
    }
    for (unsigned i = 0; r->query && r->query[i].name; i++)
        parameter(w, "query", &r->query[i]);
    if (r->idem != NO_KEY)
        parameter(w, "header",
                  &(struct api_field){"Idempotency-Key", F_TEXT, false, 1, 255, NULL,
                                      "Makes a repetition answer as the first time, without a second effect."});
    jw_end_arr(w);
}

static void request_body(struct jw *w, const struct api_route *r)
{
    bool any_required = false;
    if (!r->body || !r->body[0].name)
        return;
    for (unsigned i = 0; r->body[i].name; i++)
        any_required |= r->body[i].required;
    jw_key(w, "requestBody");
    jw_obj(w);
    jw_kbool(w, "required", any_required);
    jw_key(w, "content");
    jw_obj(w);
    jw_key(w, http_json);
    jw_obj(w);
    jw_key(w, "schema");
    jw_obj(w);
    jw_kz(w, "type", "object");
    jw_key(w, "properties");
    jw_obj(w);
    for (unsigned i = 0; r->body[i].name; i++) {
        jw_key(w, r->body[i].name);
        field_schema(w, &r->body[i]);
    }
    jw_end_obj(w);
    if (any_required) {
        jw_key(w, "required");
        jw_arr(w);
        for (unsigned i = 0; r->body[i].name; i++)
            if (r->body[i].required)
                jw_str(w, str_c(r->body[i].name));
        jw_end_arr(w);
    }
    jw_end_obj(w);
    jw_end_obj(w);
    jw_end_obj(w);
    jw_end_obj(w);
}

static void success(struct jw *w, const struct api_route *r, int status)
{
    char ref[96], code[8];
    snprintf(code, sizeof code, "%d", status);
    jw_key(w, code);
    jw_obj(w);
    jw_kz(w, "description", status == 201 ? "Created" : "OK");
    jw_key(w, "content");
    jw_obj(w);
    jw_key_str(w, str_c(r->media ? r->media : http_json));
    jw_obj(w);
    jw_key(w, "schema");
    snprintf(ref, sizeof ref, "{\"$ref\":\"#/components/schemas/%s\"}", r->result ? r->result : "");
    jw_raw(w, r->result ? str_c(ref) : r->media ? STR("{\"type\":\"string\"}") : STR("{\"type\":\"object\"}"));
    jw_end_obj(w);
    jw_end_obj(w);
    jw_end_obj(w);
}

static void responses(struct jw *w, const struct api_route *r)
{
    jw_key(w, "responses");
    jw_obj(w);
    success(w, r, r->ok);
    if (r->also)
        success(w, r, r->also);
    jw_key(w, "default");
    jw_raw(w, STR("{\"$ref\":\"#/components/responses/Problem\"}"));
    jw_end_obj(w);
}

static void operation(struct jw *w, const struct api_route *r)
{
    static const char *const rights[] = {
        [RIGHT_PUBLIC] = "public", [RIGHT_USER] = "user", [RIGHT_OWNER] = "owner", [RIGHT_ADMIN] = "admin"};
    static const char *const methods[] = {
        [HTTP_GET] = "get", [HTTP_POST] = "post", [HTTP_PUT] = "put", [HTTP_DELETE] = "delete", [HTTP_PATCH] = "patch"};
    jw_key(w, methods[r->method]);
    jw_obj(w);
    jw_kz(w, "operationId", r->id);
    jw_key(w, "tags");
    jw_arr(w);
    jw_str(w, str_c(r->tag));
    jw_end_arr(w);
    jw_kz(w, "summary", r->summary);
    jw_kz(w, "x-right", rights[r->rule.right]);
    if (r->rule.open)
        jw_kbool(w, "x-open", true);
    if (r->subject)
        jw_kz(w, "x-subject", r->subject);
    jw_key(w, "security");
    jw_raw(w, r->rule.right == RIGHT_PUBLIC ? STR("[]") : STR("[{\"apiKey\":[]},{\"bearer\":[]}]"));
    parameters(w, r);
    request_body(w, r);
    responses(w, r);
    jw_end_obj(w);
}

enum pf_err api_openapi_render(struct api *a, struct buf *out)
{
    struct jw w;
    jw_init(&w, out);
    jw_obj(&w);
    jw_kz(&w, "openapi", "3.1.0");
    jw_key(&w, "info");
    jw_obj(&w);
    jw_kz(&w, "title", "PayFlow");
    jw_kz(&w, "version", a->cfg.version);
    jw_kz(&w, "description",
          "Money as an event-sourced, double-entry ledger: the PayFlow, the Banking and the ticketing surface over one "
          "core.");
    jw_key(&w, "license");
    jw_raw(&w, STR("{\"name\":\"Apache-2.0\",\"identifier\":\"Apache-2.0\"}"));
    jw_end_obj(&w);
    jw_key(&w, "servers");
    jw_raw(&w, STR("[{\"url\":\"/\"}]"));
    jw_key(&w, "paths");
    jw_obj(&w);
    for (size_t i = 0; i < a->n_rows; i++) {
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++)
            seen = strcmp(a->rows[k]->path, a->rows[i]->path) == 0;
        if (seen)
            continue;
        jw_key_str(&w, str_c(a->rows[i]->path));
        jw_obj(&w);
        for (size_t k = i; k < a->n_rows; k++)
            if (strcmp(a->rows[k]->path, a->rows[i]->path) == 0)
                operation(&w, a->rows[k]);
        jw_end_obj(&w);
    }
    jw_end_obj(&w);
    jw_key(&w, "components");
    jw_raw(&w, str_trim((struct str){web_schemas_start, (size_t)(web_schemas_end - web_schemas_start)}));
    jw_end_obj(&w);
    return out->failed ? PFE_NOMEM : PFE_OK;
}

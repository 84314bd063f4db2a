/* An answer of Consul's /v1/health/service: what instances_read takes keeps what its header and the port promise. */
#include "fuzz.h"
#include "registry/consul/internal.h"

static bool address_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_' || c == ':';
}

static void check(const struct registry_instance *i)
{
    size_t n = strlen(i->id), m = strlen(i->address);
    CHECK(n >= 1 && n < REGISTRY_NAME_MAX && m >= 1 && m < REGISTRY_ADDRESS_MAX);
    for (size_t k = 0; k < n; k++)
        CHECK((unsigned char)i->id[k] >= 0x20 && i->id[k] != 0x7f);
    for (size_t k = 0; k < m; k++)
        CHECK(address_char(i->address[k]));
    CHECK(i->port > 0 && i->weight <= WEIGHT_MAX && i->health <= REGISTRY_CRITICAL);
    CHECK(i->n_tags <= REGISTRY_TAGS_MAX);
    for (unsigned t = 0; t < i->n_tags; t++)
        CHECK(strlen(i->tags[t]) < TAG_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct instances one = {0}, two = {0};
    char why[WHY_MAX] = "";
    struct str text = {(const char *)data, n};
    enum pf_err e = consul_instances_read(text, &one, why);
    CHECK(e == consul_instances_read(text, &two, why));
    CHECK(e == PFE_OK || (why[0] && one.n == 0));
    CHECK(one.n <= REGISTRY_CONSUL_INSTANCES_MAX && consul_instances_same(&one, &two));
    for (size_t i = 0; i < one.n; i++) {
        check(&one.all[i]);
        CHECK(i == 0 || strcmp(one.all[i - 1].id, one.all[i].id) < 0);
    }
    consul_instances_free(&one);
    consul_instances_free(&two);
    return 0;
}

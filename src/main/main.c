/* The command line. */
#include "main/main.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"

extern char **environ;

struct command {
    const char *words; /* "journal export" */
    const char *operands;
    int (*run)(const struct conf *c, const struct options *o);
    unsigned min_operands, max_operands;
    const char *summary;
    const char *text;
};

static const struct command commands[] = {
    {"serve", "", NULL, 0, 0, "serve the APIs",
     "Opens the store (creating and migrating it as needed), serves until SIGTERM or SIGINT, then drains: readiness "
     "fails\n"
     "first, running requests finish within SHUTDOWN_TIMEOUT. SIGHUP reloads LOG_LEVEL and RATE_LIMIT.\n\n"
     "  --role ROLE   what to serve; several may be given. All but gateway work on the store, which several processes\n"
     "                share only in PostgreSQL, and answer /health* and /metrics. HTTP's port, unless PORT or LISTEN "
     "says\n"
     "                another, stands behind each:\n"
     "      all        everything; the default (8080, and GATEWAY_LISTEN, GRPC_LISTEN)\n"
     "      api        the same without GATEWAY_LISTEN and GRPC_LISTEN, unless they are set (8080)\n"
     "      identity   /api/auth/* (8081)\n"
     "      event      /api/events* (8082)\n"
     "      booking    gRPC's bookings on GRPC_LISTEN, /api/bookings*; expiry, messages (8083)\n"
     "      payment    the payment worker, messages; no surface (8084)\n"
     "      gateway    no store of its own: passes requests on to the services (3000); SIGHUP reloads its backends.\n"
     "                 See docs/gateway.md\n"},
    {"migrate", "up|down|status", run_migrate, 1, 1, "change the store's schema, or show it",
     "up applies what is missing; down takes back the newest migration, and is refused where it would drop "
     "records.\n"
     "serve does `up` by itself. up and down need the store to be stopped.\n"},
    {"user create-admin", "", run_create_admin, 0, 0, "make an administrator",
     "  --username NAME        required\n"
     "  --email ADDRESS        required\n"
     "  --password-file FILE   first line is the password; without it, standard input is read\n"
     "  --api-key              also make an API key and print it\n\n"
     "Needs the store to be stopped.\n"},
    {"verify", "", run_verify, 0, 0, "prove the books",
     "Reads the whole journal: seals, chains, balances, resolutions, stored projections, trial balance. Exit 1 on any\n"
     "difference, with the first entry at fault. Runs beside a server.\n"},
    {"replay", "", run_replay, 0, 0, "fold the journal and compare",
     "  --write   overwrite the stored projections with what the journal says (needs the store to be stopped)\n\n"
     "Exit 1 on any difference. Without --write nothing is written, and it runs beside a server.\n"},
    {"journal export", "", run_journal_export, 0, 0, "write the journal to standard output",
     "  --format ndjson|csv   one entry a line; ndjson is the default\n"
     "  --after-seq N         entries after this number\n\n"
     "Runs beside a server.\n"},
    {"backup", "FILE", run_backup, 1, 1, "copy the store into a file, online",
     "The copy is consistent and durable when the command ends; FILE must not exist. Runs beside a server.\n"},
    {"restore", "FILE", run_restore, 1, 1, "put a backup in place",
     "  --verify   prove the copy, as `payflow verify` does, before it is put in place\n\n"
     "The data directory must hold no store.\n"},
    {"copy", "", run_copy, 0, 0, "move an embedded store to PostgreSQL",
     "  --from sqlite:DIR     the embedded store; DATA_DIR unless given\n"
     "  --to postgres://…     the database; DB_URL or DB_HOST unless given. DB_PASSWORD, DB_SSLMODE and "
     "DB_SSLROOTCERT\n"
     "                        go before what it says, so that no password needs to stand on the command line\n\n"
     "Proves the embedded store, copies all of it into an empty database (the schema is made if there is none), "
     "compares\n"
     "every row, and verifies, all in one transaction: whatever happens before its end, the database is empty. The "
     "server\n"
     "must be stopped; its store is not changed. Exit 78 when one of the two cannot be used so, 1 on any "
     "difference.\n"},
    {"config print", "", run_config_print, 0, 0, "show each setting and where it came from", "Secrets are masked.\n"},
    {"discovery", "[SERVICE]", run_discovery, 0, 1, "show the services in Consul, or the instances of one",
     "Asks the Consul that CONSUL_HTTP_ADDR names: names of services, or of one service\n"
     "ID ADDRESS:PORT weight=WEIGHT HEALTH TAG...\n"},
    {"bench", "", run_bench, 0, 0, "measure the ledger in a scratch store, without HTTP",
     "  --entries N   transfers in all; 200000 is the default\n"
     "  --group N     transfers that wait at once; 64 is the default\n\n"
     "Works in a fresh directory under DATA_DIR, which it removes.\n"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void sink_stdout(void *ctx, const char *p, size_t n)
{
    (void)ctx;
    fwrite(p, 1, n, stdout);
}

static void help_main(void)
{
    puts("payflow - an event-sourced, double-entry ledger with REST APIs\n\n"
         "usage: payflow COMMAND [OPTION]... [SETTING]...\n\ncommands:");
    for (unsigned i = 0; i < COMMANDS; i++)
        printf("  %-18s %-15s %s\n", commands[i].words, commands[i].operands, commands[i].summary);
    puts("\noptions of every command:\n"
         "  --help           what a command does and takes\n"
         "  -o json          output as JSON, where there is output\n"
         "  --version        version, commit, compiler and libraries\n\n"
         "settings (flags > environment > --config FILE > defaults; as NAME in the environment, name in YAML, --name "
         "here):");
    conf_help(sink_stdout, NULL);
    puts("\nexit codes: 0 success, 1 failure, 2 usage, 78 configuration");
}

static void help_command(const struct command *c)
{
    printf("payflow %s - %s\n\nusage: payflow %s%s%s [OPTION]... [SETTING]...\n\n%s\nSettings: see payflow --help.\n",
           c->words, c->summary, c->words, c->operands[0] ? " " : "", c->operands, c->text);
}

/* Commands of two words, by their first one. false: there are none. */
static bool help_group(const char *word)
{
    size_t n = strlen(word);
    bool any = false;
    for (unsigned i = 0; i < COMMANDS; i++)
        if (strncmp(commands[i].words, word, n) == 0 && commands[i].words[n] == ' ') {
            help_command(&commands[i]);
            any = true;
        }
    return any;
}

static int usage(const char *what, const char *word)
{
    fprintf(stderr, "payflow: %s%s%s%s\nTry: payflow --help\n", what, word[0] ? " '" : "", word, word[0] ? "'" : "");
    return EXIT_USAGE;
}

/* One option that takes a value: `--name value` or `--name=value`. Advances *i. NULL: not this option. */
static const char *option_value(char **argv, int argc, int *i, const char *name)
{
    size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) != 0)
        return NULL;
    if (argv[*i][n] == '=')
        return argv[*i] + n + 1;
    if (argv[*i][n] != 0)
        return NULL;
    return *i + 1 < argc ? argv[++*i] : "";
}

static bool number(const char *text, int64_t least, int64_t *ret)
{
    return str_to_i64(str_c(text), ret) && *ret >= least;
}

/* 0: taken; 1: not an option of ours; 2: bad value. */
static int take_option(char **argv, int argc, int *i, struct options *o)
{
    const char *v, *a = argv[*i];
    if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0)
        o->help = true;
    else if (strcmp(a, "--verify") == 0)
        o->verify = true;
    else if (strcmp(a, "--write") == 0)
        o->write = true;
    else if (strcmp(a, "--api-key") == 0)
        o->api_key = true;
    else if ((v = option_value(argv, argc, i, "-o")) || (v = option_value(argv, argc, i, "--output"))) {
        o->json = strcmp(v, "json") == 0;
        return o->json || strcmp(v, "text") == 0 ? 0 : 2;
    } else if ((v = option_value(argv, argc, i, "--format"))) {
        o->csv = strcmp(v, "csv") == 0;
        return o->csv || strcmp(v, "ndjson") == 0 ? 0 : 2;
    } else if ((v = option_value(argv, argc, i, "--role")))
        return main_role_add(v, &o->roles) ? 0 : 2;
    else if ((v = option_value(argv, argc, i, "--after-seq")))
        return number(v, 0, &o->after_seq) ? 0 : 2;
    else if ((v = option_value(argv, argc, i, "--entries")))
        return number(v, 1, &o->entries) ? 0 : 2;
    else if ((v = option_value(argv, argc, i, "--group")))
        return number(v, 1, &o->group) ? 0 : 2;
    else if ((v = option_value(argv, argc, i, "--username")))
        o->username = v;
    else if ((v = option_value(argv, argc, i, "--email")))
        o->email = v;
    else if ((v = option_value(argv, argc, i, "--password-file")))
        o->password_file = v;
    else if ((v = option_value(argv, argc, i, "--from")))
        o->from = v;
    else if ((v = option_value(argv, argc, i, "--to")))
        o->to = v;
    else
        return 1;
    return 0;
}

static const struct command *find_command(const struct options *o, unsigned *ret_used)
{
    for (unsigned i = 0; i < COMMANDS; i++) {
        const char *space = strchr(commands[i].words, ' ');
        size_t first = space ? (size_t)(space - commands[i].words) : strlen(commands[i].words);
        if (strlen(o->words[0]) != first || strncmp(o->words[0], commands[i].words, first) != 0)
            continue;
        if (space && (o->n_words < 2 || strcmp(o->words[1], space + 1) != 0))
            continue;
        *ret_used = space ? 2 : 1;
        return &commands[i];
    }
    return NULL;
}

static bool wants_json(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "-o") == 0)
            return strcmp(argv[i + 1], "json") == 0;
    return false;
}

/* settings has room for argc. */
static int run(int argc, char **argv, const char **settings)
{
    struct options o = {.entries = 200000, .group = 64};
    size_t n_settings = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0) {
            main_print_version(wants_json(argc, argv));
            return EXIT_OK;
        }
        size_t width = conf_flag_width(argv[i]);
        if (width > (size_t)(argc - i))
            return usage("no value for", argv[i]);
        if (width) {
            for (size_t k = 0; k < width; k++)
                settings[n_settings++] = argv[i + (int)k];
            i += (int)width - 1;
            continue;
        }
        if (argv[i][0] != '-') {
            if (o.n_words == 4)
                return usage("too many words at", argv[i]);
            o.words[o.n_words++] = argv[i];
            continue;
        }
        const char *flag = argv[i];
        int r = take_option(argv, argc, &i, &o);
        if (r == 1)
            return usage("unknown option", flag);
        if (r == 2)
            return usage("bad value for", flag);
    }
    if (o.n_words == 0) {
        if (!o.help)
            return usage("which command?", "");
        help_main();
        return EXIT_OK;
    }
    unsigned used;
    const struct command *c = find_command(&o, &used);
    if (!c && o.help && help_group(o.words[0]))
        return EXIT_OK;
    if (!c)
        return usage("unknown command", o.words[0]);
    if (o.help) {
        help_command(c);
        return EXIT_OK;
    }
    unsigned operands = o.n_words - used;
    if (operands < c->min_operands || operands > c->max_operands)
        return usage("wrong operands for", c->words);
    memmove(o.words, o.words + used, operands * sizeof o.words[0]);
    o.n_words = operands;

    if (!o.roles)
        o.roles = ROLE_ALL;
    if (o.roles & ROLE_GATEWAY && o.roles != ROLE_GATEWAY)
        return usage("--role gateway is a process of its own", "");

    struct conf conf;
    char why[CONF_WHY_MAX];
    struct conf_input in = {settings, n_settings, (const char *const *)environ};
    signal(SIGPIPE, SIG_IGN);
    if (conf_load(&in, &conf, why) != PFE_OK) {
        fprintf(stderr, "payflow: %s\n", why);
        return EXIT_CONF;
    }
    int code = c->run                    ? c->run(&conf, &o)
               : o.roles == ROLE_GATEWAY ? run_gateway(&conf, &in)
                                         : run_serve(&conf, &in, o.roles);
    if (fflush(stdout) != 0 && code == EXIT_OK)
        code = EXIT_FAILED;
    conf_free(&conf);
    return code;
}

int main(int argc, char **argv)
{
    const char **settings = calloc((size_t)argc + 1, sizeof *settings);
    if (!settings)
        return EXIT_FAILED;
    int code = run(argc, argv, settings);
    free(settings);
    return code;
}

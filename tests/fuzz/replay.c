/*
 * Runs every file of a corpus through the target it is linked with: replay DIRECTORY (or files). TAP; a file that fails
 * ends the program, as it does in libFuzzer, with its name as the last line.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

static int case_no;

static bool replay(const char *path)
{
    struct stat st;
    FILE *f = fopen(path, "rb");
    uint8_t *data = f && fstat(fileno(f), &st) == 0 ? malloc((size_t)st.st_size) : NULL;
    bool ok = data && fread(data, 1, (size_t)st.st_size, f) == (size_t)st.st_size;

    if (ok) {
        printf("# %s\n", path);
        fflush(stdout);
        LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
    }
    printf("%s %d - %s\n", ok ? "ok" : "not ok", ++case_no, path);
    free(data);
    if (f)
        fclose(f);
    return ok;
}

static int is_input(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static bool replay_all(const char *dir)
{
    struct dirent **entries;
    int n = scandir(dir, &entries, is_input, alphasort);
    bool ok = n > 0;

    if (n < 0)
        return replay(dir);
    for (int i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", dir, entries[i]->d_name);
        ok &= replay(path);
        free(entries[i]);
    }
    free(entries);
    return ok;
}

int main(int argc, char **argv)
{
    bool ok = argc > 1;

    for (int i = 1; i < argc; i++)
        ok &= replay_all(argv[i]);
    printf("1..%d\n", case_no);
    return !ok;
}

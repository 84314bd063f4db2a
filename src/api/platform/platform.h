/* platform: health, metrics, documentation. Internal to src/api. */
#ifndef API_PLATFORM_H
#define API_PLATFORM_H

#include "api/payflow/payflow.h"

enum api_step platform_health(struct api_call *c);
enum api_step platform_live(struct api_call *c);
enum api_step platform_ready(struct api_call *c);
enum api_step platform_metrics(struct api_call *c);
enum api_step platform_metrics_basic(struct api_call *c);
enum api_step platform_openapi(struct api_call *c);
enum api_step platform_docs(struct api_call *c);
enum api_step platform_docs_asset(struct api_call *c);
enum api_step platform_problem(struct api_call *c);

/* Files built into the binary, gzip-compressed. NULL: no such file. */
struct web_file {
    const char *name, *content_type, *etag;
    const unsigned char *start, *end;
};
extern const struct web_file web_files[];
extern const unsigned web_files_n;

#endif

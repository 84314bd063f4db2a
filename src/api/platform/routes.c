/* Health, metrics and documentation: outside the surfaces. */
#include "api/platform/platform.h"

#define PUBLIC                                                                                                         \
    {                                                                                                                  \
        RIGHT_PUBLIC, false, true                                                                                      \
    }

/* clang-format off */
const struct api_route api_platform_routes[] = {
    {HTTP_GET, "/health", PUBLIC, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, platform_health,
     "health", "Platform", "State of the service and its parts", "Health", 200, false, 503, NULL},
    {HTTP_GET, "/healthz", PUBLIC, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, platform_health,
     "healthz", "Platform", "State of the service and its parts", "Health", 200, false, 503, NULL},
    {HTTP_GET, "/health/live", PUBLIC, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, platform_live,
     "healthLive", "Platform", "Is the process alive?", "HealthShort", 200, false},
    {HTTP_GET, "/health/ready", PUBLIC, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, platform_ready,
     "healthReady", "Platform", "May it be sent requests? 503 while draining", "HealthShort", 200, false, 503, NULL},
    {HTTP_GET, "/metrics", PUBLIC, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, platform_metrics,
     "metrics", "Platform", "Prometheus text", NULL, 200, false, 0, "text/plain"},
    {HTTP_GET, "/metrics/basic", PUBLIC, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, platform_metrics_basic,
     "metricsBasic", "Platform", "The main figures as JSON", "BasicMetrics", 200, false},
    {HTTP_GET, "/api/v1/metrics/basic", PUBLIC, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, platform_metrics_basic,
     "bankingMetricsBasic", "Platform", "The main figures as JSON", "BasicMetrics", 200, false},
    {HTTP_GET, "/openapi.json", PUBLIC, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, platform_openapi,
     "openapi", "Documentation", "This document", NULL, 200, false},
    {HTTP_GET, "/docs", PUBLIC, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, platform_docs,
     "docs", "Documentation", "This document, to browse and try", NULL, 200, false, 0, "text/html"},
    {HTTP_GET, "/docs/{file}", PUBLIC, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, platform_docs_asset,
     "docsAsset", "Documentation", "Parts of the viewer", NULL, 200, false, 0, "*/*"},
    {HTTP_GET, "/problems/{slug}", PUBLIC, NULL, EXEC_INLINE, NO_KEY, 0, NULL, NULL, platform_problem,
     "problem", "Documentation", "What a problem type means", NULL, 200, false, 0, "text/html"},
};
/* clang-format on */
const size_t api_platform_routes_n = sizeof api_platform_routes / sizeof api_platform_routes[0];

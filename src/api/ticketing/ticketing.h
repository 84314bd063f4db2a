/* ticketing: handlers of the ticketing surface: contract, section 4. Internal to src/api. */
#ifndef API_TICKETING_H
#define API_TICKETING_H

#include "api/call.h"
#include "app/events.h"

enum api_step ticketing_register(struct api_call *c);
enum api_step ticketing_login(struct api_call *c);

enum api_step ticketing_event_create(struct api_call *c);
enum api_step ticketing_event_list(struct api_call *c);
enum api_step ticketing_event_get(struct api_call *c);
enum api_step ticketing_event_cancel(struct api_call *c);

enum api_step ticketing_booking_create(struct api_call *c);
enum api_step ticketing_booking_list(struct api_call *c);
enum api_step ticketing_booking_get(struct api_call *c);
enum api_step ticketing_booking_cancel(struct api_call *c);

/* The UUID in the path; false: it is none, and the answer a 404 with these words. */
bool ticketing_id(struct api_call *c, uint8_t ret[16], const char *words);

/* The query parameters of GET /api/events; the others are asked of the documents. */
enum { EV_PAGE, EV_LIMIT, EV_OFFSET, EV_CURSOR, EV_TEXT, EV_FROM, EV_TO, EV_UPCOMING };
enum { EVENTS_PAGES_MAX = 1000000 };
extern const struct api_field ticketing_events_query[];

#endif

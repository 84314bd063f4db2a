/* The ticketing surface: contract, section 4. */
#include "api/ticketing/ticketing.h"

static const struct api_field nothing[] = {{0}};
static const struct api_field user_new[] = {
    {"email", F_EMAIL, true, 1, 254, NULL, "Email address."},
    {"password", F_PASSWORD, true, 1, 72, NULL, "At least 8 characters (3 in dev), at most 72 bytes."},
    {"username", F_USERNAME, false, 1, 64, NULL,
     "1 to 64 bytes: letters, digits and . _ @ + -; made of the email if absent."},
    {0},
};
static const struct api_field login[] = {
    {"email", F_TEXT, true, 1, 254, NULL, "Email address."},
    {"password", F_TEXT, true, 1, 0, NULL, "Password."},
    {0},
};
static const struct api_field event_new[] = {
    {"title", F_TEXT, true, 1, EVENT_TEXT_MAX, NULL, "What it is."},
    {"location", F_TEXT, true, 1, EVENT_TEXT_MAX, NULL, "Where it is."},
    {"date", F_TIME, true, 0, 0, NULL, "When it begins; in the future (in dev up to 366 days past)."},
    {"total_tickets", F_INT, true, 1, TICKET_CAPACITY_MAX, NULL, "How many there are to sell."},
    {"price", F_AMOUNT, false, 0, 0, NULL, "Of one ticket, paid from the buyer's account; 0 or absent: free."},
    {"currency", F_CURRENCY, false, 0, 0, NULL, "Of the price: ISO 4217 code; the default currency if absent."},
    {0},
};
const struct api_field ticketing_events_query[] = {
    [EV_PAGE] = {"page", F_INT, false, 1, EVENTS_PAGES_MAX, NULL,
                 "Which page of `limit`, from 1; or give offset or cursor."},
    [EV_LIMIT] = {"limit", F_INT, false, 1, EVENTS_PAGE_MAX, NULL, "How many, 1 to 100; 20 if absent."},
    [EV_OFFSET] = {"offset", F_INT, false, 0, 1000000000000, NULL, "How many to skip."},
    [EV_CURSOR] = {"cursor", F_TEXT, false, 0, 64, NULL, "next_cursor of the page before; instead of offset."},
    [EV_TEXT] = {"q", F_TEXT, false, 0, EVENT_TEXT_MAX, NULL, "In the title or the location, whatever the case."},
    [EV_FROM] = {"from", F_TIME, false, 0, 0, NULL, "Not before this time."},
    [EV_TO] = {"to", F_TIME, false, 0, 0, NULL, "Before this time."},
    [EV_UPCOMING] = {"upcoming", F_TEXT, false, 1, 5, "true|false", "true: only what is yet to begin."},
    {0},
};
static const struct api_field booking_new[] = {
    {"user_id", F_BUYER, false, 1, TICKET_GUEST_MAX, NULL,
     "Who books: number, UUID or username; a text that names no user is a guest's. The caller if absent."},
    {"event_id", F_TEXT, true, 1, 64, NULL, "The event."},
    {"ticket_count", F_INT, true, 1, TICKET_COUNT_MAX, NULL, "How many tickets."},
    {0},
};
static const struct api_field booking_query[] = {
    {"user_id", F_BUYER, false, 1, TICKET_GUEST_MAX, NULL,
     "Whose: number, UUID or username, or a guest's name (admins). The caller's if absent."},
    API_PAGE_FIELDS,
    {0},
};

#define ANY                                                                                                            \
    {                                                                                                                  \
        RIGHT_PUBLIC, false, true                                                                                      \
    }
#define PUBLIC                                                                                                         \
    {                                                                                                                  \
        RIGHT_PUBLIC, false                                                                                            \
    }

/* clang-format off */
const struct api_route api_ticketing_routes[] = {
    {HTTP_POST, "/api/auth/register", PUBLIC, NULL, EXEC_HASH, KEY_IN_APP, 0, user_new, NULL, ticketing_register,
     "ticketingRegister", "Ticketing", "Register with an email address", "User", 201, false},
    {HTTP_POST, "/api/auth/login", ANY, NULL, EXEC_HASH, NO_KEY, 0, login, NULL, ticketing_login,
     "ticketingLogin", "Ticketing", "Log in and get a token", "TicketingLogin", 200, false},

    {HTTP_POST, "/api/events", {RIGHT_USER, true}, NULL, EXEC_POOL, KEY_IN_APP, DOCUMENT_BODY_MAX, event_new, NULL, ticketing_event_create,
     "createEvent", "Ticketing", "Put tickets of an event on sale; further members are kept as given", "Event", 201, false},
    {HTTP_GET, "/api/events", ANY, NULL, EXEC_POOL, NO_KEY, 0, NULL, ticketing_events_query, ticketing_event_list,
     "listEvents", "Ticketing", "Events, newest first; further parameters ask for members by name", "EventList", 200, false},
    {HTTP_GET, "/api/events/{id}", ANY, NULL, EXEC_POOL, NO_KEY, 0, NULL, NULL, ticketing_event_get,
     "getEvent", "Ticketing", "One event", "Event", 200, false},
    {HTTP_POST, "/api/events/{id}/cancel", {RIGHT_OWNER, false}, "handler", EXEC_POOL, NO_KEY, 0, nothing, NULL, ticketing_event_cancel,
     "cancelEvent", "Ticketing", "Take an event off sale", "Event", 200, false},

    {HTTP_POST, "/api/bookings", {RIGHT_OWNER, true}, "handler", EXEC_INLINE, KEY_IN_LEDGER, 0, booking_new, NULL, ticketing_booking_create,
     "createBooking", "Ticketing", "Hold tickets; payment decides later", "Booking", 201, false, 0, NULL, true},
    {HTTP_GET, "/api/bookings", {RIGHT_OWNER, false}, "handler", EXEC_POOL, NO_KEY, 0, NULL, booking_query, ticketing_booking_list,
     "listBookings", "Ticketing", "Bookings of one buyer, newest first", "BookingList", 200, false},
    {HTTP_GET, "/api/bookings/{id}", PUBLIC, NULL, EXEC_POOL, NO_KEY, 0, NULL, NULL, ticketing_booking_get,
     "getBooking", "Ticketing", "One booking: a user's for that user and admins, a guest's for whoever knows its id", "Booking", 200, false},
    {HTTP_DELETE, "/api/bookings/{id}", PUBLIC, NULL, EXEC_POOL, NO_KEY, 0, NULL, NULL, ticketing_booking_cancel,
     "cancelBooking", "Ticketing", "Give the tickets of a pending booking back; by whom it is shown to", "Booking", 200, false},
};
/* clang-format on */
const size_t api_ticketing_routes_n = sizeof api_ticketing_routes / sizeof api_ticketing_routes[0];

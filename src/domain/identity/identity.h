/*
 * identity: what a username, an email, a password and a role may be. Pure.
 */
#ifndef DOMAIN_IDENTITY_H
#define DOMAIN_IDENTITY_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

enum ident_role { IDENT_USER = 0, IDENT_ADMIN = 1 };
const char *ident_role_name(enum ident_role r); /* "user", "admin" */
bool ident_role_parse(struct str s, enum ident_role *ret);

enum { IDENT_USERNAME_MAX = 64, IDENT_EMAIL_MAX = 254 };

/* Each adds its field error to p ("username" in "body" …) and returns false when refused.
   username: 1..64 bytes of [A-Za-z0-9._@+-] and letters beyond ASCII (UTF-8), no white space or controls; compared
   case-insensitively (ASCII). email: a practical RFC 5321 subset: one '@', local part <= 64, domain of letters, digits,
   '-', '.', <= 254 bytes in all. password: min_len characters (code points), at most 72 bytes, no NUL. */
bool ident_username_ok(struct str s, struct problem *p);
bool ident_email_ok(struct str s, struct problem *p);
bool ident_password_ok(struct str s, unsigned min_len, struct problem *p);
/* ASCII lower case into out (cap bytes, NUL-terminated): the form that uniqueness is judged on. false: too long. */
bool ident_fold(struct str s, char *out, size_t cap);

#endif

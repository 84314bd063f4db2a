/* What the uniqueness of users is judged on, the same in all engines that keep it in columns. */
#ifndef STORE_FOLDED_H
#define STORE_FOLDED_H

#include "port/store.h"

struct user_folded {
    char username[IDENT_USERNAME_MAX + 1], email[IDENT_EMAIL_MAX + 1];
};

/* Cannot be too long: the room is the user's own. */
static inline void user_fold(const struct store_user *u, struct user_folded *ret)
{
    ident_fold(str_c(u->username), ret->username, sizeof ret->username);
    ident_fold(str_c(u->email), ret->email, sizeof ret->email);
}

#endif

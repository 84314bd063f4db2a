/* Fields that both surfaces take. */
#include "api/payflow/payflow.h"

const struct api_field api_user_new[] = {
    {"username", F_USERNAME, true, 1, 64, NULL, "1 to 64 bytes: letters, digits and . _ @ + -."},
    {"email", F_EMAIL, true, 1, 254, NULL, "Email address."},
    {"password", F_PASSWORD, true, 1, 72, NULL, "At least 8 characters (3 in dev), at most 72 bytes."},
    {"role", F_TEXT, false, 1, 8, "user|admin", "admin only while there is none, or by an admin."},
    {0},
};

const struct api_field api_login[] = {
    {"username", F_TEXT, false, 1, 254, NULL, "Username, or give email."},
    {"email", F_TEXT, false, 1, 254, NULL, "Email address, or give username."},
    {"password", F_TEXT, true, 1, 0, NULL, "Password."},
    {0},
};

const struct api_field api_user_put[] = {
    {"username", F_USERNAME, false, 1, 64, NULL, "New username."},
    {"email", F_EMAIL, false, 1, 254, NULL, "New email address."},
    {"role", F_TEXT, false, 1, 8, "user|admin", "New role."},
    {"password", F_PASSWORD, false, 1, 72, NULL, "New password."},
    {0},
};

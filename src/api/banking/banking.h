/* banking: handlers of the Banking surface. Internal to src/api. */
#ifndef API_BANKING_H
#define API_BANKING_H

#include "api/payflow/payflow.h"

enum api_step banking_login(struct api_call *c);
enum api_step banking_refresh(struct api_call *c);
enum api_step banking_logout(struct api_call *c);
enum api_step banking_users(struct api_call *c);

enum api_step banking_balance_current(struct api_call *c);
enum api_step banking_balance_historical(struct api_call *c);
enum api_step banking_balance_at(struct api_call *c);

enum api_step banking_credit(struct api_call *c);
enum api_step banking_debit(struct api_call *c);
enum api_step banking_transfer(struct api_call *c);
enum api_step banking_rollback(struct api_call *c);
enum api_step banking_history(struct api_call *c);

enum api_step banking_schedule_create(struct api_call *c);
enum api_step banking_schedule_list(struct api_call *c);
enum api_step banking_schedule_get(struct api_call *c);
enum api_step banking_schedule_cancel(struct api_call *c);

enum api_step banking_ping(struct api_call *c);
enum api_step banking_breakers(struct api_call *c);
enum api_step banking_trial_success(struct api_call *c);
enum api_step banking_trial_failure(struct api_call *c);
enum api_step banking_trial_timeout(struct api_call *c);
enum api_step banking_audit(struct api_call *c);
enum api_step banking_journal(struct api_call *c);
enum api_step banking_reconciliation(struct api_call *c);
enum api_step banking_freeze(struct api_call *c);
enum api_step banking_unfreeze(struct api_call *c);

#endif

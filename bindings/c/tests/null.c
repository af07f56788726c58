/* Every function with NULL in every place where a pointer goes. scripts/test-c checks that none is missing here. */

#include "check.h"
#include "common.h"

/* An out-parameter that a failing call must leave alone. */
static char untouched;
#define UNTOUCHED ((void *)&untouched)

static void objects_are_neutral(void)
{
    CHECK(vmk_diagnostics_count(NULL) == 0);
    CHECK(vmk_diagnostics_errors(NULL) == 0);
    CHECK_RESULT(vmk_diagnostics_get(NULL, 0, NULL), VMK_MISUSE);
    CHECK(vmk_subscription_count(NULL) == 0);
    CHECK_TEXT(vmk_subscription_name(NULL, 0), "");
    CHECK_TEXT(vmk_subscription_config(NULL, 0), "");
    CHECK(vmk_subscription_diagnostics(NULL) == NULL);
    CHECK(vmk_measurements_count(NULL) == 0);
    CHECK(vmk_measurements_latency_micros(NULL, 0) == UINT64_MAX);
    CHECK(vmk_measurements_error(NULL, 0) == NULL);

    CHECK_RESULT(vmk_error_code(NULL), VMK_OK);
    CHECK_TEXT(vmk_error_name(NULL), "Ok");
    CHECK_TEXT(vmk_error_text(NULL), "");
    CHECK_TEXT(vmk_error_hint(NULL), "");
    CHECK_TEXT(vmk_error_reason(NULL), "");
    CHECK_TEXT(vmk_error_path(NULL), "");
    CHECK_TEXT(vmk_error_what(NULL), "");
    CHECK(vmk_error_stage(NULL) == VMK_STAGE_NONE);
    CHECK(vmk_error_seconds(NULL) == 0);

    CHECK(vmk_event_kind(NULL) == 0);
    CHECK(vmk_event_state(NULL) == VMK_STATE_IDLE);
    CHECK_TEXT(vmk_event_outbound(NULL), "");
    CHECK_TEXT(vmk_event_reason(NULL), "");
    CHECK(vmk_event_error(NULL) == NULL);
    CHECK(vmk_event_seconds(NULL) == 0);
    CHECK(vmk_event_count(NULL) == 0);
    CHECK(vmk_event_log_count(NULL) == 0);
    CHECK_RESULT(vmk_event_log_get(NULL, 0, NULL), VMK_MISUSE);
    CHECK(vmk_event_cause_count(NULL) == 0);
    CHECK_RESULT(vmk_event_cause_get(NULL, 0, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_event_network(NULL, NULL), VMK_MISUSE);

    CHECK(vmk_status_state(NULL) == VMK_STATE_IDLE);
    CHECK(vmk_status_since_millis(NULL) == 0);
    CHECK_TEXT(vmk_status_reason(NULL), "");
    CHECK(vmk_status_last_error(NULL) == NULL);
    CHECK_TEXT(vmk_check_report_outbound(NULL), "");
    CHECK(vmk_check_report_latency_micros(NULL) == 0);
    CHECK(vmk_tun_settings_mtu(NULL) == 0);
    CHECK(vmk_tun_settings_metered(NULL) == -1);
    CHECK(vmk_tun_settings_count(NULL, VMK_TUN_DNS) == 0);
    CHECK_TEXT(vmk_tun_settings_get(NULL, VMK_TUN_DNS, 0), "");
    CHECK(vmk_connections_count(NULL) == 0);
    CHECK_RESULT(vmk_connections_get(NULL, 0, NULL), VMK_MISUSE);
    CHECK(vmk_users_count(NULL) == 0);
    CHECK_RESULT(vmk_users_get(NULL, 0, NULL), VMK_MISUSE);
    CHECK(vmk_counters_count(NULL) == 0);
    CHECK_RESULT(vmk_counters_get(NULL, 0, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_addresses_add(NULL, "192.0.2.1"), VMK_MISUSE);
}

static void frees_ignore_null(void)
{
    vmk_string_free(NULL);
    vmk_subscription_free(NULL);
    vmk_diagnostics_free(NULL);
    vmk_measurements_free(NULL);
    vmk_error_free(NULL);
    vmk_event_free(NULL);
    vmk_status_free(NULL);
    vmk_options_free(NULL);
    vmk_check_report_free(NULL);
    vmk_tun_settings_free(NULL);
    vmk_connections_free(NULL);
    vmk_users_free(NULL);
    vmk_counters_free(NULL);
    vmk_tunnel_free(NULL);
    CHECK(1);
}

static void functions_of_texts_refuse(void)
{
    vmk_diagnostics *findings = UNTOUCHED;
    CHECK_RESULT(vmk_validate_config(NULL, &findings, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_validate_config(QUIET, NULL, NULL), VMK_MISUSE);
    CHECK(findings == UNTOUCHED);

    char *text = UNTOUCHED;
    CHECK_RESULT(vmk_format_config(NULL, &text, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_format_config(QUIET, NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_parse_share_link(NULL, &text, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_parse_share_link("vmess://", NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_to_share_link(NULL, &text, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_to_share_link(QUIET, NULL, NULL), VMK_MISUSE);
    CHECK(text == UNTOUCHED);

    vmk_subscription *subscription = UNTOUCHED;
    CHECK_RESULT(vmk_parse_subscription(NULL, 0, &subscription, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_parse_subscription((const uint8_t *)"x", 1, NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_parse_subscription((const uint8_t *)"x", SIZE_MAX, &subscription, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_parse_subscription((const uint8_t *)"x", 1, &subscription, NULL), VMK_CONFIG_INVALID);
    CHECK(subscription == UNTOUCHED);

    vmk_measurements *measurements = UNTOUCHED;
    vmk_measure_request request = {
        .size = sizeof request, .url = "http://192.0.2.1", .timeout_ms = 1000, .parallel = 1, .configs_count = 1};
    CHECK_RESULT(vmk_measure(NULL, &measurements, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_measure(&request, NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_measure(&request, &measurements, NULL), VMK_MISUSE);
    const char *none = NULL;
    request.configs = &none;
    CHECK_RESULT(vmk_measure(&request, &measurements, NULL), VMK_MISUSE);
    none = QUIET;
    request.url = NULL;
    CHECK_RESULT(vmk_measure(&request, &measurements, NULL), VMK_MISUSE);
    request.size = 8;
    CHECK_RESULT(vmk_measure(&request, &measurements, NULL), VMK_MISUSE);
    CHECK(measurements == UNTOUCHED);
    CHECK_RESULT(vmk_set_log_sink(VMK_LOG_INFO, NULL, NULL, NULL), VMK_MISUSE);
}

static void options_refuse(void)
{
    vmk_options *options = vmk_options_new();
    CHECK(options != NULL);
    CHECK_RESULT(vmk_options_set_memory_limit(NULL, 1, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_options_set_log_level(NULL, VMK_LOG_INFO, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_options_set_log_level(options, 99, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_options_set_network(NULL, NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_options_set_network(options, NULL, NULL), VMK_OK);
    vmk_options_free(options);
}

static void no_tunnel_refuses(void)
{
    vmk_tunnel *tunnel = UNTOUCHED;
    CHECK_RESULT(vmk_tunnel_new(NULL, NULL, NULL, &tunnel, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_new(QUIET, NULL, NULL, NULL, NULL), VMK_MISUSE);
    CHECK(tunnel == UNTOUCHED);

    vmk_tun_settings *settings = UNTOUCHED;
    vmk_check_report *report = UNTOUCHED;
    vmk_status *status = UNTOUCHED;
    vmk_connections *connections = UNTOUCHED;
    vmk_users *users = UNTOUCHED;
    vmk_counters *counters = UNTOUCHED;
    vmk_event *event = UNTOUCHED;
    vmk_reload_report reload = {.size = sizeof reload};
    vmk_stats stats = {.size = sizeof stats};
    uint32_t number = 77;
    CHECK_RESULT(vmk_tunnel_tun_settings(NULL, &settings, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_start(NULL, NULL, 0, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_set_tun(NULL, NULL, 0, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_check(NULL, 0, &report, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_request_stop(NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_stop(NULL, 0, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_reload(NULL, QUIET, 0, &reload, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_select_outbound(NULL, "group", "tag", NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_network_changed(NULL, NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_set_clock_offset(NULL, 1), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_pause(NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_wake(NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_memory_pressure(NULL, VMK_MEMORY_LOW), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_status(NULL, &status, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_stats(NULL, &stats), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_connections(NULL, 0, &connections, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_close_connection(NULL, 1, 0, &number, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_users(NULL, "in", &users, NULL), VMK_MISUSE);
    vmk_new_user user = {.size = sizeof user, .id = "id", .email = "a@b"};
    CHECK_RESULT(vmk_tunnel_add_user(NULL, "in", &user, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_counters(NULL, 1, &counters, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_remove_user(NULL, "in", "a@b", &number, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_next_event(NULL, 0, &event, NULL), VMK_MISUSE);
    CHECK(settings == UNTOUCHED && report == UNTOUCHED && status == UNTOUCHED && connections == UNTOUCHED);
    CHECK(users == UNTOUCHED && counters == UNTOUCHED && event == UNTOUCHED && number == 77);
}

static void a_tunnel_refuses_null(void)
{
    vmk_tunnel *tunnel = make_tunnel(QUIET, NULL);
    CHECK_RESULT(vmk_tunnel_tun_settings(tunnel, NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_set_tun(tunnel, NULL, 0, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_reload(tunnel, NULL, 0, NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_select_outbound(tunnel, NULL, "tag", NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_select_outbound(tunnel, "group", NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_select_outbound(tunnel, "group", "tag", NULL), VMK_UNSUPPORTED);
    CHECK_RESULT(vmk_tunnel_network_changed(tunnel, NULL, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_memory_pressure(tunnel, 99), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_status(tunnel, NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_stats(tunnel, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_connections(tunnel, 0, NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_users(tunnel, "in", NULL, NULL), VMK_MISUSE);
    vmk_users *users = UNTOUCHED;
    CHECK_RESULT(vmk_tunnel_users(tunnel, NULL, &users, NULL), VMK_MISUSE);
    CHECK(users == UNTOUCHED);
    CHECK_RESULT(vmk_tunnel_counters(tunnel, 0, NULL, NULL), VMK_MISUSE);
    vmk_new_user user = {.size = sizeof user, .id = "id", .email = "a@b"};
    CHECK_RESULT(vmk_tunnel_add_user(tunnel, NULL, &user, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_add_user(tunnel, "in", NULL, NULL), VMK_MISUSE);
    vmk_new_user nameless = user;
    nameless.email = NULL;
    CHECK_RESULT(vmk_tunnel_add_user(tunnel, "in", &nameless, NULL), VMK_MISUSE);
    nameless = user;
    nameless.id = NULL;
    CHECK_RESULT(vmk_tunnel_add_user(tunnel, "in", &nameless, NULL), VMK_MISUSE);
    nameless = user;
    nameless.size = 4;
    CHECK_RESULT(vmk_tunnel_add_user(tunnel, "in", &nameless, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_remove_user(tunnel, NULL, "a@b", NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_remove_user(tunnel, "in", NULL, NULL, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_next_event(tunnel, 0, NULL, NULL), VMK_MISUSE);
    vmk_tunnel_free(tunnel);
}

static void misuse_says_what(void)
{
    vmk_error *error = NULL;
    CHECK_RESULT(vmk_tunnel_stop(NULL, 0, &error), VMK_MISUSE);
    CHECK_RESULT(vmk_error_code(error), VMK_MISUSE);
    CHECK_TEXT(vmk_error_name(error), "Misuse");
    CHECK_TEXT(vmk_error_text(error), "tunnel is NULL");
    vmk_error_free(error);
}

static void names_are_known(void)
{
    CHECK(vmk_abi_version() == VMK_ABI_VERSION);
    CHECK(strchr(vmk_version(), '.') != NULL);
    CHECK_TEXT(vmk_result_name(VMK_PROTECT_FAILED), "ProtectFailed");
    CHECK_TEXT(vmk_result_name(12345), "Unknown");
    CHECK_TEXT(vmk_state_name(VMK_STATE_NO_NETWORK), "no network");
    CHECK_TEXT(vmk_state_name(12345), "unknown");
    CHECK_TEXT(vmk_stage_name(VMK_STAGE_UPGRADE), "upgrade");
    CHECK_TEXT(vmk_stage_name(12345), "");
}

int main(void)
{
    objects_are_neutral();
    frees_ignore_null();
    functions_of_texts_refuse();
    options_refuse();
    no_tunnel_refuses();
    a_tunnel_refuses_null();
    misuse_says_what();
    names_are_known();
    return check_summary("null");
}

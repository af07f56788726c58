/* Configs, links and options: what needs no running tunnel. */

#include "check.h"
#include "common.h"

static const char BROKEN[] =
    "{\"outbounds\": [{\"protocol\": \"vmess\", \"settings\": {\"vnext\": [{\"address\": \"192.0.2.1\", \"port\": 70000,"
    " \"users\": [{\"id\": \"b831381d-6324-4d53-ad4f-8cda48b30811\", \"securty\": \"auto\"}]}]}}]}";

static void findings_have_paths(void)
{
    vmk_diagnostics *findings = NULL;
    CHECK_RESULT(vmk_validate_config(BROKEN, &findings, NULL), VMK_OK);
    CHECK(vmk_diagnostics_count(findings) == 2);
    CHECK(vmk_diagnostics_errors(findings) == 1);
    int seen = 0;
    for (size_t i = 0; i < vmk_diagnostics_count(findings); i++) {
        vmk_diagnostic one = {.size = sizeof one};
        CHECK_RESULT(vmk_diagnostics_get(findings, i, &one), VMK_OK);
        if (one.severity == VMK_SEVERITY_ERROR) {
            CHECK_TEXT(one.path, "outbounds[0].settings.vnext[0].port");
            CHECK_TEXT(one.found, "70000");
            CHECK(one.allowed[0] != '\0' && one.text[0] != '\0');
            seen |= 1;
        } else {
            CHECK(one.severity == VMK_SEVERITY_WARNING);
            CHECK_TEXT(one.path, "outbounds[0].settings.vnext[0].users[0].securty");
            CHECK(strstr(one.hint, "security") != NULL);
            seen |= 2;
        }
    }
    CHECK(seen == 3);
    vmk_diagnostic beyond = {.size = sizeof beyond};
    CHECK_RESULT(vmk_diagnostics_get(findings, 2, &beyond), VMK_MISUSE);
    CHECK_RESULT(vmk_diagnostics_get(findings, SIZE_MAX, &beyond), VMK_MISUSE);
    vmk_diagnostics_free(findings);
}

static void a_good_config_has_no_errors(void)
{
    vmk_diagnostics *findings = NULL;
    CHECK_RESULT(vmk_validate_config(QUIET, &findings, NULL), VMK_OK);
    CHECK(vmk_diagnostics_errors(findings) == 0);
    vmk_diagnostics_free(findings);
}

static void a_broken_config_makes_no_tunnel(void)
{
    vmk_tunnel *tunnel = NULL;
    vmk_error *error = NULL;
    CHECK_RESULT(vmk_tunnel_new(BROKEN, NULL, NULL, &tunnel, &error), VMK_CONFIG_INVALID);
    CHECK(tunnel == NULL);
    CHECK_TEXT(vmk_error_path(error), "outbounds[0].settings.vnext[0].port");
    CHECK(vmk_error_text(error)[0] != '\0');
    CHECK(vmk_error_stage(error) == VMK_STAGE_NONE && vmk_error_seconds(error) == 0);
    CHECK_TEXT(vmk_error_what(error), "");
    vmk_error_free(error);
    CHECK_RESULT(vmk_tunnel_new("\xff{}", NULL, NULL, &tunnel, NULL), VMK_MISUSE);
    CHECK_RESULT(vmk_tunnel_new("", NULL, NULL, &tunnel, NULL), VMK_CONFIG_INVALID);
}

static void links_go_both_ways(void)
{
    char config[1024];
    vmess_config(config, sizeof config, "server.example", 10086);
    char *link = NULL;
    char *back = NULL;
    CHECK_RESULT(vmk_to_share_link(config, &link, NULL), VMK_OK);
    CHECK(link != NULL && strncmp(link, "vmess://", 8) == 0);
    CHECK_RESULT(vmk_parse_share_link(link, &back, NULL), VMK_OK);
    CHECK(back != NULL && strstr(back, "server.example") != NULL && strstr(back, "10086") != NULL);
    vmk_diagnostics *findings = NULL;
    CHECK_RESULT(vmk_validate_config(back, &findings, NULL), VMK_OK);
    CHECK(vmk_diagnostics_errors(findings) == 0);
    vmk_diagnostics_free(findings);
    vmk_string_free(link);
    vmk_string_free(back);

    vmk_error *error = NULL;
    back = NULL;
    CHECK(vmk_parse_share_link("https://example.org", &back, &error) != VMK_OK);
    CHECK(back == NULL && vmk_error_text(error)[0] != '\0');
    vmk_error_free(error);
}

static void configs_are_formatted(void)
{
    char *text = NULL;
    CHECK_RESULT(vmk_format_config("{\"outbounds\":[ {\"protocol\":\"freedom\"}] /* all */ }", &text, NULL), VMK_OK);
    CHECK(text != NULL && strstr(text, "freedom") != NULL);
    vmk_string_free(text);
}

static void options_are_held_to_their_range(void)
{
    vmk_options *options = vmk_options_new();
    vmk_tunnel *tunnel = NULL;
    vmk_error *error = NULL;
    CHECK_RESULT(vmk_options_set_memory_limit(options, 1000, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_new(QUIET, options, NULL, &tunnel, &error), VMK_MISUSE);
    CHECK(tunnel == NULL && vmk_error_text(error)[0] != '\0');
    vmk_error_free(error);
    CHECK_RESULT(vmk_options_set_memory_limit(options, 16 << 20, NULL), VMK_OK);
    CHECK_RESULT(vmk_options_set_log_level(options, VMK_LOG_DEBUG, NULL), VMK_OK);
    CHECK_RESULT(vmk_tunnel_new(QUIET, options, NULL, &tunnel, NULL), VMK_OK);
    vmk_options_free(options);
    vmk_tunnel_free(tunnel);
}

static void networks_are_read_with_care(void)
{
    const char *addresses[] = {"192.0.2.7", "2001:db8::7"};
    const char *broken[] = {"192.0.2.7", NULL};
    vmk_network_info network = {.size = sizeof network,
                                .flags = VMK_NETWORK_HAS_V4 | VMK_NETWORK_HAS_V6 | VMK_NETWORK_VALIDATED,
                                .id = 4,
                                .addresses_count = 2,
                                .addresses = addresses};
    vmk_options *options = vmk_options_new();
    CHECK_RESULT(vmk_options_set_network(options, &network, NULL), VMK_OK);
    network.addresses = broken;
    CHECK_RESULT(vmk_options_set_network(options, &network, NULL), VMK_MISUSE);
    network.addresses = NULL;
    CHECK_RESULT(vmk_options_set_network(options, &network, NULL), VMK_MISUSE);
    network.addresses_count = 0;
    network.nat64_prefix = "64:ff9b::";
    CHECK_RESULT(vmk_options_set_network(options, &network, NULL), VMK_OK);
    network.nat64_prefix = "64:ff9b::/96";
    CHECK_RESULT(vmk_options_set_network(options, &network, NULL), VMK_MISUSE);
    network.size = 3;
    CHECK_RESULT(vmk_options_set_network(options, &network, NULL), VMK_MISUSE);
    vmk_options_free(options);
}

static void tun_settings_are_told(void)
{
    vmk_tunnel *tunnel = make_tunnel("{\"inbounds\": [{\"protocol\": \"tun\", \"settings\": {\"mtu\": 4000, \"metered\": "
                                     "true, \"excludedRoutes\": [\"10.0.0.0/8\"]}}], \"outbounds\": [{\"protocol\": "
                                     "\"freedom\"}]}",
                                     NULL);
    vmk_tun_settings *settings = NULL;
    CHECK_RESULT(vmk_tunnel_tun_settings(tunnel, &settings, NULL), VMK_OK);
    CHECK(vmk_tun_settings_mtu(settings) == 4000);
    CHECK(vmk_tun_settings_metered(settings) == 1);
    CHECK(vmk_tun_settings_count(settings, VMK_TUN_ADDRESSES) == 2);
    CHECK_TEXT(vmk_tun_settings_get(settings, VMK_TUN_ADDRESSES, 0), "172.19.0.1/30");
    CHECK_TEXT(vmk_tun_settings_get(settings, VMK_TUN_ROUTES, 1), "::/0");
    CHECK_TEXT(vmk_tun_settings_get(settings, VMK_TUN_EXCLUDED_ROUTES, 0), "10.0.0.0/8");
    CHECK_TEXT(vmk_tun_settings_get(settings, VMK_TUN_DNS, 0), "172.19.0.2");
    CHECK_TEXT(vmk_tun_settings_get(settings, VMK_TUN_DNS, 1), "");
    CHECK_TEXT(vmk_tun_settings_get(settings, 99, 0), "");
    vmk_tun_settings_free(settings);
    vmk_tunnel_free(tunnel);

    settings = (vmk_tun_settings *)&settings;
    tunnel = make_tunnel(QUIET, NULL);
    CHECK_RESULT(vmk_tunnel_tun_settings(tunnel, &settings, NULL), VMK_OK);
    CHECK(settings == NULL);
    vmk_tunnel_free(tunnel);
}

int main(void)
{
    findings_have_paths();
    a_good_config_has_no_errors();
    a_broken_config_makes_no_tunnel();
    links_go_both_ways();
    configs_are_formatted();
    options_are_held_to_their_range();
    networks_are_read_with_care();
    tun_settings_are_told();
    return check_summary("config");
}

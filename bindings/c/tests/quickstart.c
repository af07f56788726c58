/* The README's quick start: a SOCKS proxy that carries everything to a VMess server, until Enter is pressed. */
#include <stdio.h>
#include <vmesskit.h>

int main(int argc, char **argv)
{
    const char *config = argc > 1 ? argv[1] : "{\"inbounds\": [{\"protocol\": \"socks\", \"port\": 1080}],"
        "\"outbounds\": [{\"protocol\": \"vmess\", \"settings\": {\"vnext\": [{\"address\": \"server.example\","
        "\"port\": 443, \"users\": [{\"id\": \"b831381d-6324-4d53-ad4f-8cda48b30811\"}]}]}}]}";
    vmk_tunnel *tunnel = NULL;
    vmk_error *error = NULL;
    if (vmk_tunnel_new(config, NULL, NULL, &tunnel, &error) != VMK_OK ||
        vmk_tunnel_start(tunnel, NULL, 5000, &error) != VMK_OK) {
        fprintf(stderr, "%s %s; %s\n", vmk_error_path(error), vmk_error_text(error), vmk_error_hint(error));
        vmk_error_free(error);
        vmk_tunnel_free(tunnel);
        return 1;
    }
    puts("running; press Enter to stop");
    getchar();
    vmk_tunnel_stop(tunnel, 5000, NULL);
    vmk_tunnel_free(tunnel);
    return 0;
}

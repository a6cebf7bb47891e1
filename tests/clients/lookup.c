/* Looks a name up and connects to port 443 of the first address that takes it; built with musl, static. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words)
{
    struct addrinfo hints, *found, *each;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    int failed = count == 2 ? getaddrinfo(words[1], "443", &hints, &found) : EAI_NONAME;
    if (failed) {
        printf("%s\n", gai_strerror(failed));
        return 1;
    }
    for (each = found; each; each = each->ai_next) {
        char text[64];
        getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
        int fd = socket(each->ai_family, SOCK_STREAM, 0);
        int refused = connect(fd, each->ai_addr, each->ai_addrlen);
        printf("%s %s\n", text, refused ? "refused" : "connected");
        close(fd);
        if (!refused)
            return 0;
    }
    return 2;
}

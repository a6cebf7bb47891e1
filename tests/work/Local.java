import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.StandardProtocolFamily;
import java.net.URI;
import java.net.UnixDomainSocketAddress;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

/** A server and a client in one, over TCP and over a unix socket. */
public class Local {
    public static void main(String[] arguments) throws Exception {
        var server = HttpServer.create(new InetSocketAddress("localhost", 0), 0);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, 4);
            exchange.getResponseBody().write("page".getBytes());
            exchange.close();
        });
        server.start();
        var request = HttpRequest.newBuilder(URI.create("http://localhost:" + server.getAddress().getPort() + "/")).build();
        System.out.println(HttpClient.newHttpClient().send(request, BodyHandlers.ofString()).body());
        server.stop(0);
        // Addresses as long as those of the internet.
        for (int length : new int[] {25, 26, 40}) {
            unix(System.getenv("HOME") + "/" + "j".repeat(length - System.getenv("HOME").length() - 1));
        }
        var child = new ProcessBuilder("echo", "from a program").start();
        System.out.println(new String(child.getInputStream().readAllBytes()).trim());
        System.out.println("done");
        System.exit(0);
    }

    static void unix(String path) throws Exception {
        var address = UnixDomainSocketAddress.of(path);
        try (var listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
            listener.bind(address);
            try (var client = SocketChannel.open(address); var accepted = listener.accept()) {
                client.write(ByteBuffer.wrap("over".getBytes()));
                var buffer = ByteBuffer.allocate(9);
                System.out.println(accepted.read(buffer));
            }
        }
    }
}

import java.net.InetAddress;
import java.net.Socket;
import java.util.Hashtable;
import javax.naming.directory.InitialDirContext;

/** Looks a name up by the C library and connects, or, as the second word says, by Java's own DNS client. */
public class Lookup {
    public static void main(String[] words) throws Exception {
        if (words[1].equals("own")) {
            Hashtable<String, String> settings = new Hashtable<>();
            settings.put("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
            settings.put("java.naming.provider.url", "dns:");
            System.out.println(new InitialDirContext(settings).getAttributes(words[0], new String[] {"A"}));
            return;
        }
        System.out.println(InetAddress.getAllByName(words[0])[0]);
        try (Socket socket = new Socket(words[0], 443)) {
            System.out.println("connected to " + socket.getInetAddress());
        }
    }
}

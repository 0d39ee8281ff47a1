// A server, a client and a worker thread with what a program imports; built into /app/work.jar by the image's own Java.
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.security.MessageDigest;
import java.util.TimeZone;
import java.util.zip.CRC32;
import javax.net.ssl.SSLContext;

public class Work {
    public static void main(String[] words) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", exchange -> {
            byte[] secret = Files.readAllBytes(Paths.get("/app/secret.txt"));
            exchange.sendResponseHeaders(200, secret.length);
            exchange.getResponseBody().write(secret);
            exchange.close();
        });
        server.start();
        URL address = new URL("http://127.0.0.1:" + server.getAddress().getPort() + "/");
        String body = new String(address.openStream().readAllBytes(), StandardCharsets.UTF_8).trim();
        byte[] sha = MessageDigest.getInstance("SHA-256").digest("x".getBytes(StandardCharsets.UTF_8));
        CRC32 crc = new CRC32();
        crc.update(sha);
        boolean tls = SSLContext.getDefault().getSupportedSSLParameters().getProtocols().length > 0;
        System.out.printf("{\"secret\": \"%s\", \"sha\": \"%02x%02x\", \"tls\": %b, \"zone\": \"%s\", \"words\": %d}%n",
            body, sha[0], sha[1], tls, TimeZone.getDefault().getID(), words.length);
        System.exit(0);
    }
}

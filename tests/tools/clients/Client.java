import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.Arrays;

/** Uploads as its users do, then asks for something else: prints both statuses. */
public class Client {
    public static void main(String[] args) throws Exception {
        byte[] body = new byte[Integer.parseInt(args[1])];
        Arrays.fill(body, (byte) 'x');
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        int first = client.send(to(args[0], "acme").POST(BodyPublishers.ofByteArray(body)).build(),
                BodyHandlers.ofByteArray()).statusCode();
        int second = client.send(to(args[0], "nobody").build(), BodyHandlers.ofByteArray()).statusCode();
        System.out.println(first + " " + second);
    }

    private static HttpRequest.Builder to(String url, String account) {
        return HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(20))
                .header("X-Ads-Account", account);
    }
}

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** A search server that compiles itself and builds its index when it boots. */
public class Server {
    public static void main(String[] args) throws IOException {
        Random random = new Random(1);
        List<String> titles = new ArrayList<>();
        Map<String, List<Integer>> index = new HashMap<>();
        for (int id = 0; id < 150_000; id++) {
            StringBuilder title = new StringBuilder();
            for (int n = 0; n < 12; n++) {
                String word = "w" + Math.min(random.nextInt(20_000), random.nextInt(20_000));
                title.append(word).append(' ');
                index.computeIfAbsent(word, w -> new ArrayList<>()).add(id);
            }
            titles.add(title.toString());
        }
        HttpServer server = HttpServer.create(new InetSocketAddress("0.0.0.0", 8000), 0);
        server.createContext("/", exchange -> {
            List<Integer> hits = index.get("w5");
            byte[] body = (hits.size() + " " + titles.get(hits.get(0)) + "\n").getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}

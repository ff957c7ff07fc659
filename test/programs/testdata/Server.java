import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;

/**
 * Serves what test/programs/servers_test.go asks for: data in memory, a timer, a request
 * that waits, and work for the collector and other threads.
 */
public class Server {
    private static final Map<String, String> values = new ConcurrentHashMap<>();
    private static final List<String> names = new CopyOnWriteArrayList<>();
    private static final AtomicLong ticks = new AtomicLong();
    private static final CountDownLatch release = new CountDownLatch(1);

    private static String digest() throws Exception {
        MessageDigest hash = MessageDigest.getInstance("SHA-256");
        for (int i = 0; i < values.size(); i++) {
            hash.update((values.get("key " + i) + "\n").getBytes());
        }
        return HexFormat.of().formatHex(hash.digest());
    }

    private static String work() throws Exception {
        List<String> garbage = new ArrayList<>();
        IntStream.range(0, 200_000).forEach(i -> garbage.add("x" + i));
        garbage.clear();
        System.gc();
        long sum = IntStream.range(0, 1_000_000).parallel().asLongStream().sum();
        return sum == 499_999_500_000L ? digest() : "the threads counted " + sum;
    }

    private static String answer(String path, String argument) throws Exception {
        switch (path) {
            case "/load":
                for (long i = 0; i < Long.parseLong(argument); i++) {
                    values.put("key " + i, Long.toString(i * i));
                }
                return "loaded";
            case "/digest":
                return digest();
            case "/add":
                names.add(argument);
                return "added";
            case "/names":
                return String.join(" ", names);
            case "/ticks":
                return ticks.toString();
            case "/wait":
                release.await();
                return "released";
            case "/release":
                release.countDown();
                return "done";
            case "/work":
                return work();
            default:
                return null;
        }
    }

    private static void handle(HttpExchange exchange) throws IOException {
        String query = exchange.getRequestURI().getQuery();
        String argument = query == null ? "" : query.substring(query.indexOf('=') + 1);
        try (exchange) {
            String text = answer(exchange.getRequestURI().getPath(), argument);
            if (text == null) {
                exchange.sendResponseHeaders(404, -1);
                return;
            }
            exchange.sendResponseHeaders(200, text.isEmpty() ? -1 : text.length());
            exchange.getResponseBody().write(text.getBytes());
        } catch (IOException e) {
            throw e;
        } catch (Exception e) {
            throw new IOException(e);
        }
    }

    public static void main(String[] args) throws Exception {
        Executors.newSingleThreadScheduledExecutor()
                .scheduleAtFixedRate(ticks::incrementAndGet, 0, 10, TimeUnit.MILLISECONDS);
        HttpServer server = HttpServer.create(new InetSocketAddress("0.0.0.0", 8080), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", Server::handle);
        server.start();
    }
}

// Java threads: com.sun.net.httpserver and HttpURLConnection with its keep-alive cache. One call of a
// request is handed to another thread, as CompletableFuture does.
//
// usage: java Threads.java pool|virtual PORT STOCK PRICE SHIP REDIS
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.HttpURLConnection;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

public class Threads {
    static final ConcurrentLinkedDeque<Socket> idle = new ConcurrentLinkedDeque<>();

    static void post(int port, String path, byte[] body) {
        try {
            var url = URI.create("http://127.0.0.1:" + port + path).toURL();
            var connection = (HttpURLConnection) url.openConnection();
            connection.setRequestMethod("POST");
            connection.setDoOutput(true);
            connection.setFixedLengthStreamingMode(body.length);
            try (var output = connection.getOutputStream()) {
                output.write(body);
            }
            try (var input = connection.getInputStream()) {
                input.readAllBytes();
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    static void redisGet(int port, String key) {
        try {
            Socket connection = idle.pollFirst();
            if (connection == null) {
                connection = new Socket(InetAddress.getLoopbackAddress(), port);
                connection.setTcpNoDelay(true);
            }
            String command = "*2\r\n$3\r\nGET\r\n$" + key.length() + "\r\n" + key + "\r\n";
            connection.getOutputStream().write(command.getBytes());
            // Nobody stores anything: the reply is nil.
            connection.getInputStream().readNBytes("$-1\r\n".length());
            idle.addFirst(connection);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    static void serve(int[] ports, ExecutorService others, byte[] body) {
        int stock = ports[1], price = ports[2], ship = ports[3], redis = ports[4];
        String id = new String(body);
        post(stock, "/stock", body);
        var priced = CompletableFuture.runAsync(() -> post(price, "/price", body), others);
        redisGet(redis, "key:" + id);
        priced.join();
        if (Long.parseLong(id) % 2 == 0) {
            post(ship, "/ship", body);
        }
    }

    static void answer(HttpExchange exchange, int[] ports, ExecutorService others) throws IOException {
        try (exchange) {
            serve(ports, others, exchange.getRequestBody().readAllBytes());
            exchange.sendResponseHeaders(200, 3);
            exchange.getResponseBody().write("ok\n".getBytes());
        }
    }

    static ExecutorService executor(String kind) throws ReflectiveOperationException {
        if (kind.equals("pool")) {
            return Executors.newFixedThreadPool(64);
        }
        // By name, for this file is also compiled by a Java that has none.
        return (ExecutorService) Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
    }

    public static void main(String[] words) throws Exception {
        System.setProperty("http.maxConnections", "256");
        System.setProperty("sun.net.httpserver.nodelay", "true");
        System.setProperty("sun.net.httpserver.maxIdleConnections", "1000");
        int[] ports = Arrays.stream(words).skip(1).mapToInt(Integer::parseInt).toArray();
        var address = new InetSocketAddress(InetAddress.getLoopbackAddress(), ports[0]);
        var server = HttpServer.create(address, 1024);
        var others = executor(words[0]);
        server.setExecutor(executor(words[0]));
        server.createContext("/", exchange -> answer(exchange, ports, others));
        server.start();
    }
}

import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

class Hello {
    public static void main(String[] arguments) throws Exception {
        var done = new AtomicInteger();
        var pool = Executors.newFixedThreadPool(4);
        for (int n = 0; n < 1000; n++) {
            pool.submit(() -> {
                byte[] garbage = new byte[100_000];
                garbage[0] = 1;
                return done.addAndGet(garbage[0]);
            });
        }
        pool.shutdown();
        pool.awaitTermination(60, TimeUnit.SECONDS);
        System.out.println("Hello from Java, " + done + " tasks");
    }
}

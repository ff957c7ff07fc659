import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import java.util.Random;
import java.util.zip.CRC32;

/**
 * Makes and checks objects of all sizes for ever, in and outside of the collected heap, and
 * says "ok" after each round in which all was right.
 */
public class Memory {
    private static final Random random = new Random(1);

    private static void wrong(String what) {
        System.out.println("wrong: " + what);
        System.exit(3);
    }

    private static long sum(byte[] bytes) {
        CRC32 crc = new CRC32();
        crc.update(bytes);
        return crc.getValue();
    }

    /** New memory, which must be zeroes. */
    private static byte[] fresh(int size) {
        byte[] bytes = new byte[size];
        for (byte b : bytes) {
            if (b != 0) {
                wrong("a new array");
            }
        }
        random.nextBytes(bytes);
        return bytes;
    }

    private static void outside(int size) {
        ByteBuffer buffer = ByteBuffer.allocateDirect(size);
        for (int i = 0; i < size; i++) {
            if (buffer.get(i) != 0) {
                wrong("a new direct buffer");
            }
            buffer.put(i, (byte) 0x5a);
        }
    }

    private static int deep(int n) {
        return n == 0 ? 0 : 1 + deep(n - 1);
    }

    public static void main(String[] args) throws Exception {
        long[] kept = new long[1 << 20];
        for (int i = 0; i < kept.length; i++) {
            kept[i] = i * 0x9e3779b97f4a7c15L;
        }
        Map<String, String> text = new HashMap<>();
        for (int i = 0; i < 50000; i++) {
            text.put("key " + i, "value " + i);
        }
        byte[][] slots = new byte[400][];
        long[] sums = new long[slots.length];
        int[] sizes = {50, 500, 5000, 100000};
        for (int round = 0;; round++) {
            for (int i = 0; i < slots.length; i++) {
                if (slots[i] != null && sum(slots[i]) != sums[i]) {
                    wrong("an array");
                }
                if (random.nextInt(10) < 7) {
                    slots[i] = fresh(1 + random.nextInt(sizes[random.nextInt(sizes.length)]));
                    sums[i] = sum(slots[i]);
                }
            }
            // So large that the collectors treat them apart, and give them back at once.
            fresh(8 << 20);
            outside(2 << 20);
            for (int i = 0; i < kept.length; i++) {
                if (kept[i] != i * 0x9e3779b97f4a7c15L) {
                    wrong("the array that is kept");
                }
            }
            for (int i = 0; i < 50000; i++) {
                if (!text.get("key " + i).equals("value " + i)) {
                    wrong("the map");
                }
            }
            Thread thread = new Thread(() -> {
                if (deep(2000) != 2000) {
                    wrong("a thread");
                }
            });
            thread.start();
            thread.join();
            System.gc();
            System.out.println("ok " + round);
        }
    }
}

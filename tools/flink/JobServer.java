/**
 * Beam's job server, which hides its class path: it would send it with each job, 150 MB, for longer
 * than a small job takes. The cluster has these jars already.
 */
public final class JobServer {
    /** Starts the server; the first argument is a jar to send instead. */
    public static void main(String[] arguments) throws Exception {
        System.setProperty("java.class.path", arguments[0]);
        String[] rest = java.util.Arrays.copyOfRange(arguments, 1, arguments.length);
        org.apache.beam.runners.flink.FlinkJobServerDriver.main(rest);
    }
}

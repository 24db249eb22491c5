import java.io.IOException;
import java.lang.reflect.Field;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.Arrays;
import java.util.List;
import org.apache.beam.model.pipeline.v1.Endpoints.ApiServiceDescriptor;
import org.apache.beam.runners.flink.FlinkJobServerDriver;
import org.apache.beam.runners.jobsubmission.JobServerDriver;
import org.apache.beam.sdk.fn.server.ServerFactory;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.BindableService;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.Server;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.netty.NettyServerBuilder;

/**
 * Beam's job server, which hides its class path: it would send it with each job, 150 MB, for longer
 * than a small job takes. The cluster has these jars already. It listens on loopback only: Beam's own
 * listens on all interfaces, and has no option for that.
 */
public final class JobServer {
    /** Starts the server; the first argument is a jar to send instead. */
    public static void main(String[] arguments) throws Exception {
        System.setProperty("java.class.path", arguments[0]);
        var config =
                FlinkJobServerDriver.parseArgs(Arrays.copyOfRange(arguments, 1, arguments.length));
        var driver = FlinkJobServerDriver.fromConfig(config);
        replace(driver, "jobServerFactory", config.getPort());
        replace(driver, "artifactServerFactory", config.getArtifactPort());
        driver.run();
    }

    private static void replace(FlinkJobServerDriver driver, String name, int port)
            throws ReflectiveOperationException {
        Field field = JobServerDriver.class.getDeclaredField(name);
        field.setAccessible(true);
        field.set(driver, new OnLoopback(port));
    }

    private static final class OnLoopback extends ServerFactory {
        private final int port;

        OnLoopback(int port) {
            this.port = port;
        }

        @Override
        public Server allocateAddressAndCreate(
                List<BindableService> services, ApiServiceDescriptor.Builder address)
                throws IOException {
            Server server = start(services, port);
            address.setUrl(InetAddress.getLoopbackAddress().getHostAddress() + ":" + server.getPort());
            return server;
        }

        @Override
        public Server create(List<BindableService> services, ApiServiceDescriptor address)
                throws IOException {
            String url = address.getUrl();
            return start(services, Integer.parseInt(url.substring(url.lastIndexOf(':') + 1)));
        }

        private static Server start(List<BindableService> services, int port) throws IOException {
            var address = new InetSocketAddress(InetAddress.getLoopbackAddress(), port);
            var builder =
                    NettyServerBuilder.forAddress(address).maxInboundMessageSize(Integer.MAX_VALUE);
            services.forEach(service -> builder.addService(service));
            return builder.build().start();
        }
    }
}

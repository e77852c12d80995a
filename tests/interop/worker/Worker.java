import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStreamWriter;
import java.io.PrintWriter;
import java.io.UncheckedIOException;
import java.net.Socket;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.KinesisClientUtil;
import software.amazon.kinesis.common.StreamConfig;
import software.amazon.kinesis.common.StreamIdentifier;
import software.amazon.kinesis.coordinator.CoordinatorConfig;
import software.amazon.kinesis.coordinator.CoordinatorConfig.ClientVersionConfig;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.leases.LeaseManagementConfig;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.FormerStreamsLeasesDeletionStrategy;
import software.amazon.kinesis.processor.FormerStreamsLeasesDeletionStrategy.AutoDetectionAndDeferredDeletionStrategy;
import software.amazon.kinesis.processor.FormerStreamsLeasesDeletionStrategy.NoLeaseDeletionStrategy;
import software.amazon.kinesis.processor.FormerStreamsLeasesDeletionStrategy.ProvidedStreamsDeferredDeletionStrategy;
import software.amazon.kinesis.processor.FormerStreamsLeasesDeletionStrategy.StreamsLeasesDeletionType;
import software.amazon.kinesis.processor.MultiStreamTracker;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.ShardRecordProcessorFactory;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.processor.StreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.RetrievalSpecificConfig;
import software.amazon.kinesis.retrieval.fanout.FanOutConfig;
import software.amazon.kinesis.retrieval.kpl.ExtendedSequenceNumber;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * A KCL library worker for the interop tests: a {@link Scheduler} whose record processors report every event.
 *
 * <p>Reads the same properties file as the MultiLangDaemon, with the same names and units, and one more key:
 * {@code report = HOST:PORT} is where the events go, one JSON line for each, in the form of
 * {@code tests/support/processor.py}; without it they go to stdout. The log goes to stderr.
 *
 * <p>{@code streamName} is the name of the only stream, or a list of stream identifiers
 * ({@code ACCOUNT:NAME:EPOCH}), separated by commas: then the worker is a multi-stream worker, which reads the list from
 * the file again whenever KCL asks for the streams. {@code formerStreams} is the {@link StreamsLeasesDeletionType} of
 * streams that leave the list, {@code formerStreamsWaitMillis} the time until their leases are deleted, and
 * {@code formerStreamIds} the list of the strategy with provided streams.
 *
 * <p>Everything that no key sets has KCL's default, except that metrics are off and the instance metadata service is not
 * called.
 *
 * <p>Exit codes after SIGTERM: 0 if the graceful shutdown completed within {@code shutdownGraceMillis}, else 1.
 */
public final class Worker {
    /** Keys of a MultiLangDaemon file that mean nothing to a library worker. */
    private static final Set<String> OF_THE_DAEMON =
            Set.of("executableName", "AWSCredentialsProvider", "metricsLevel");

    private static final long DEFAULT_SHUTDOWN_GRACE_MILLIS = 10_000;

    private Worker() {}

    public static void main(String[] args) {
        try {
            run(args[0]);
        } catch (Exception e) {
            e.printStackTrace();
            // Threads of a half-built scheduler would keep the process alive.
            Runtime.getRuntime().halt(1);
        }
    }

    private static void run(String file) throws IOException {
        Settings settings = Settings.load(file);
        Scheduler scheduler = scheduler(settings);
        long graceMillis = settings.number("shutdownGraceMillis", DEFAULT_SHUTDOWN_GRACE_MILLIS);
        settings.rejectUnknownKeys();

        AtomicBoolean stopping = new AtomicBoolean();
        Runtime runtime = Runtime.getRuntime();
        runtime.addShutdownHook(new Thread(() -> {
            stopping.set(true);
            boolean completed = false;
            try {
                completed = scheduler.startGracefulShutdown().get(graceMillis, TimeUnit.MILLISECONDS);
            } catch (Exception e) {
                System.err.println("graceful shutdown failed: " + e);
            }
            runtime.halt(completed ? 0 : 1);
        }));
        scheduler.run();
        if (!stopping.get()) {
            System.err.println("the scheduler ended without a signal");
            runtime.halt(1);
        }
    }

    private static Scheduler scheduler(Settings settings) {
        Region region = Region.of(settings.text("regionName", "us-east-1"));
        URI kinesisEndpoint = URI.create(settings.text("kinesisEndpoint"));
        StaticCredentialsProvider credentials =
                StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        KinesisAsyncClient kinesis = KinesisClientUtil.createKinesisAsyncClient(KinesisAsyncClient.builder()
                .region(region)
                .endpointOverride(kinesisEndpoint)
                .credentialsProvider(credentials));
        DynamoDbAsyncClient dynamoDB = DynamoDbAsyncClient.builder()
                .region(region)
                .endpointOverride(URI.create(settings.text("dynamoDBEndpoint")))
                .credentialsProvider(credentials)
                .build();
        // ConfigsBuilder requires a client. Nothing calls it, because NullMetricsFactory is set below.
        CloudWatchAsyncClient cloudWatch = CloudWatchAsyncClient.builder()
                .region(region)
                .endpointOverride(kinesisEndpoint)
                .credentialsProvider(credentials)
                .build();

        String application = settings.text("applicationName");
        String worker = settings.text("workerId");
        List<String> streams = settings.list("streamName");
        InitialPositionInStreamExtended position =
                InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.valueOf(
                        settings.text("initialPositionInStream", InitialPositionInStream.LATEST.name())));
        ConfigsBuilder configs = new ConfigsBuilder(
                tracker(settings, streams, position),
                application,
                kinesis,
                dynamoDB,
                cloudWatch,
                worker,
                new Processors(worker, streams, settings.text("report", "")));

        LeaseManagementConfig leases = configs.leaseManagementConfig().initialPositionInStream(position);
        settings.ifNumber("failoverTimeMillis", leases::failoverTimeMillis);
        settings.ifNumber("shardSyncIntervalMillis", leases::shardSyncIntervalMillis);
        settings.ifNumber("leaseAssignmentIntervalMillis", leases::leaseAssignmentIntervalMillis);
        // The platform detection behind worker metrics calls the instance metadata service, outside loopback, and
        // waits up to 10 s for it. On an unknown platform, KCL continues without worker metrics, too.
        LeaseManagementConfig.WorkerUtilizationAwareAssignmentConfig assignment =
                leases.workerUtilizationAwareAssignmentConfig().disableWorkerMetrics(true);
        settings.ifNumber("workerMetricsReporterFreqInMillis", assignment::workerMetricsReporterFreqInMillis);

        CoordinatorConfig coordinator = configs.coordinatorConfig();
        settings.ifNumber("parentShardPollIntervalMillis", coordinator::parentShardPollIntervalMillis);
        if (Boolean.parseBoolean(settings.text("migrateAllEntitiesToLeaseTable", "false"))) {
            coordinator.migrateAllEntitiesToLeaseTable(true);
        }
        settings.ifNumber("tableMigrationCompleteBakeTimeSeconds", coordinator::tableMigrationCompleteBakeTimeSeconds);
        String version = settings.text("clientVersionConfig", "");
        if (!version.isEmpty()) {
            coordinator.clientVersionConfig(ClientVersionConfig.valueOf(version));
        }

        return new Scheduler(
                configs.checkpointConfig(),
                coordinator,
                leases,
                configs.lifecycleConfig(),
                configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
                configs.processorConfig(),
                configs.retrievalConfig()
                        .retrievalSpecificConfig(retrieval(settings, kinesis, application, streams)));
    }

    private static boolean isMultiStream(List<String> streams) {
        return streams.get(0).contains(":");
    }

    private static StreamTracker tracker(
            Settings settings, List<String> streams, InitialPositionInStreamExtended position) {
        if (isMultiStream(streams)) {
            return new Streams(settings, position);
        }
        if (streams.size() != 1) {
            throw new IllegalArgumentException("streamName: several streams need identifiers, not " + streams);
        }
        return new SingleStreamTracker(streams.get(0), position);
    }

    /** The streams of the properties file, as it is now. */
    private static final class Streams implements MultiStreamTracker {
        private final Settings settings;
        private final InitialPositionInStreamExtended position;
        private final FormerStreamsLeasesDeletionStrategy former;

        Streams(Settings settings, InitialPositionInStreamExtended position) {
            this.settings = settings;
            this.position = position;
            this.former = former(settings);
        }

        @Override
        public List<StreamConfig> streamConfigList() {
            return identifiers(settings, "streamName").stream()
                    .map(stream -> new StreamConfig(stream, position))
                    .collect(Collectors.toList());
        }

        @Override
        public FormerStreamsLeasesDeletionStrategy formerStreamsLeasesDeletionStrategy() {
            return former;
        }

        private static List<StreamIdentifier> identifiers(Settings settings, String key) {
            return settings.again().list(key).stream()
                    .map(StreamIdentifier::multiStreamInstance)
                    .collect(Collectors.toList());
        }

        private static FormerStreamsLeasesDeletionStrategy former(Settings settings) {
            StreamsLeasesDeletionType type = StreamsLeasesDeletionType.valueOf(
                    settings.text("formerStreams", StreamsLeasesDeletionType.NO_STREAMS_LEASES_DELETION.name()));
            Duration wait = Duration.ofMillis(settings.number("formerStreamsWaitMillis", 0));
            settings.ignore("formerStreamIds");
            switch (type) {
                case NO_STREAMS_LEASES_DELETION:
                    return new NoLeaseDeletionStrategy();
                case FORMER_STREAMS_AUTO_DETECTION_DEFERRED_DELETION:
                    return new AutoDetectionAndDeferredDeletionStrategy() {
                        @Override
                        public Duration waitPeriodToDeleteFormerStreams() {
                            return wait;
                        }
                    };
                case PROVIDED_STREAMS_DEFERRED_DELETION:
                    return new ProvidedStreamsDeferredDeletionStrategy() {
                        @Override
                        public List<StreamIdentifier> streamIdentifiersForLeaseCleanup() {
                            return identifiers(settings, "formerStreamIds");
                        }

                        @Override
                        public Duration waitPeriodToDeleteFormerStreams() {
                            return wait;
                        }
                    };
                default:
                    throw new IllegalArgumentException("formerStreams: " + type);
            }
        }
    }

    /** KCL requires the stream's name here if there is one stream, and forbids it if there are several. */
    private static RetrievalSpecificConfig retrieval(
            Settings settings, KinesisAsyncClient kinesis, String application, List<String> streams) {
        String mode = settings.text("retrievalMode", "POLLING");
        switch (mode) {
            case "POLLING":
                PollingConfig polling = new PollingConfig(kinesis);
                settings.ifNumber("maxRecords", count -> polling.maxRecords(Math.toIntExact(count)));
                settings.ifNumber("idleTimeBetweenReadsInMillis", polling::idleTimeBetweenReadsInMillis);
                return isMultiStream(streams) ? polling : polling.streamName(streams.get(0));
            case "FANOUT":
                settings.ignore("maxRecords", "idleTimeBetweenReadsInMillis");
                FanOutConfig fanOut = new FanOutConfig(kinesis).applicationName(application);
                return isMultiStream(streams) ? fanOut : fanOut.streamName(streams.get(0));
            default:
                throw new IllegalArgumentException("retrievalMode: neither POLLING nor FANOUT: " + mode);
        }
    }

    /** The properties file. A key that nobody reads is an error, so that a test cannot set one in vain. */
    private static final class Settings {
        private final String path;
        private final Properties properties = new Properties();
        private final Set<String> known = new HashSet<>(OF_THE_DAEMON);

        private Settings(String path) {
            this.path = path;
        }

        static Settings load(String path) throws IOException {
            Settings settings = new Settings(path);
            try (InputStream file = new FileInputStream(path)) {
                settings.properties.load(file);
            }
            return settings;
        }

        /** The file as it is now. */
        Settings again() {
            try {
                return load(path);
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }

        String text(String key) {
            String value = text(key, null);
            if (value == null) {
                throw new IllegalArgumentException(key + ": missing");
            }
            return value;
        }

        String text(String key, String absent) {
            known.add(key);
            return properties.getProperty(key, absent);
        }

        List<String> list(String key) {
            return Arrays.asList(text(key).trim().split("\\s*,\\s*"));
        }

        long number(String key, long absent) {
            String value = text(key, null);
            return value == null ? absent : Long.parseLong(value);
        }

        void ifNumber(String key, Consumer<Long> set) {
            String value = text(key, null);
            if (value != null) {
                set.accept(Long.parseLong(value));
            }
        }

        void ignore(String... keys) {
            known.addAll(Arrays.asList(keys));
        }

        void rejectUnknownKeys() {
            Set<String> unknown = new HashSet<>(properties.stringPropertyNames());
            unknown.removeAll(known);
            if (!unknown.isEmpty()) {
                throw new IllegalArgumentException("unknown keys: " + unknown);
            }
        }
    }

    private static final class Processors implements ShardRecordProcessorFactory {
        private final String worker;
        private final List<String> streams;
        private final String address;

        Processors(String worker, List<String> streams, String address) {
            this.worker = worker;
            this.streams = streams;
            this.address = address;
        }

        /** KCL calls this one for a single stream. */
        @Override
        public ShardRecordProcessor shardRecordProcessor() {
            return new Processor(new Reports(worker, streams.get(0), "", address));
        }

        @Override
        public ShardRecordProcessor shardRecordProcessor(StreamIdentifier stream) {
            String id = stream.serialize();
            String prefix = stream.streamCreationEpochOptional().isPresent() ? id + ":" : "";
            return new Processor(new Reports(worker, id, prefix, address));
        }
    }

    /** Reports every event, checkpoints after each batch, at the end of the shard and when shutdown is requested. */
    private static final class Processor implements ShardRecordProcessor {
        private final Reports reports;

        Processor(Reports reports) {
            this.reports = reports;
        }

        @Override
        public void initialize(InitializationInput input) {
            ExtendedSequenceNumber position = input.extendedSequenceNumber();
            reports.begin(input.shardId());
            reports.report("initialize", fields(
                    "action", "initialize",
                    "shardId", input.shardId(),
                    "sequenceNumber", position.sequenceNumber(),
                    "subSequenceNumber", position.subSequenceNumber(),
                    "worker", reports.worker,
                    "stream", reports.stream));
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            List<Map<String, Object>> records = new ArrayList<>();
            for (KinesisClientRecord record : input.records()) {
                ByteBuffer data = record.data().duplicate();
                byte[] bytes = new byte[data.remaining()];
                data.get(bytes);
                records.add(fields(
                        "action", "record",
                        "data", Base64.getEncoder().encodeToString(bytes),
                        "partitionKey", record.partitionKey(),
                        "approximateArrivalTimestamp", record.approximateArrivalTimestamp().toEpochMilli(),
                        "sequenceNumber", record.sequenceNumber(),
                        "subSequenceNumber", record.subSequenceNumber()));
            }
            reports.report("processRecords", fields(
                    "action", "processRecords",
                    "records", records,
                    "millisBehindLatest", input.millisBehindLatest()));
            checkpoint(input.checkpointer());
        }

        @Override
        public void leaseLost(LeaseLostInput input) {
            reports.report("leaseLost", fields("action", "leaseLost"));
            reports.end();
        }

        @Override
        public void shardEnded(ShardEndedInput input) {
            reports.report("shardEnded", fields("action", "shardEnded"));
            // Without this checkpoint KCL calls shardEnded again, so the connection stays open.
            if (checkpoint(input.checkpointer())) {
                reports.end();
            }
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {
            reports.report("shutdownRequested", fields("action", "shutdownRequested"));
            checkpoint(input.checkpointer());
        }

        private boolean checkpoint(RecordProcessorCheckpointer checkpointer) {
            String error = null;
            try {
                checkpointer.checkpoint();
            } catch (Exception e) {
                error = e.getClass().getSimpleName();
            }
            reports.report("checkpointed", fields("action", "checkpoint", "error", error));
            return error == null;
        }
    }

    /**
     * Where one record processor reports: a connection of its own, as a child process of the MultiLangDaemon has.
     *
     * <p>The tests tell record processors apart by {@code pid}. Those of a library worker share a process, so each
     * gets a number that the kernel never gives to one: above the largest pid, which is 2^22. The shard of a report is
     * the key of its lease, which in a multi-stream application begins with the stream.
     */
    private static final class Reports {
        private static final ObjectMapper JSON = new ObjectMapper();
        private static final int LARGEST_PID = 1 << 22;
        private static final int PROCESSORS_PER_WORKER = 500;
        private static final AtomicInteger STARTED = new AtomicInteger();

        final String worker;
        final String stream;
        private final String prefix;
        private final String address;
        private int pid;
        private String shard;
        private Socket socket;
        private PrintWriter lines;

        Reports(String worker, String stream, String prefix, String address) {
            this.worker = worker;
            this.stream = stream;
            this.prefix = prefix;
            this.address = address;
        }

        void begin(String shard) {
            int number = STARTED.getAndIncrement();
            if (number >= PROCESSORS_PER_WORKER) {
                throw new IllegalStateException("more than " + PROCESSORS_PER_WORKER + " record processors");
            }
            int process = Math.toIntExact(ProcessHandle.current().pid());
            this.pid = LARGEST_PID + process * PROCESSORS_PER_WORKER + number;
            this.shard = prefix + shard;
            if (address.isEmpty()) {
                lines = new PrintWriter(new OutputStreamWriter(System.out, StandardCharsets.UTF_8), true);
                return;
            }
            int colon = address.lastIndexOf(':');
            try {
                socket = new Socket(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)));
                lines = new PrintWriter(new OutputStreamWriter(socket.getOutputStream(), StandardCharsets.UTF_8));
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }

        void report(String what, Map<String, Object> body) {
            if (lines == null) {
                // KCL also shuts down a record processor that it has not initialized. An exception would repeat that.
                return;
            }
            try {
                Map<String, Object> line = fields(
                        "pid", pid, "worker", worker, "stream", stream, "shard", shard, "what", what, "body", body);
                lines.print(JSON.writeValueAsString(line) + "\n");
                lines.flush();
            } catch (JsonProcessingException e) {
                throw new UncheckedIOException(e);
            }
        }

        void end() {
            try {
                if (socket != null) {
                    socket.close();
                }
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
    }

    /** A JSON object: names and values in turn, in this order. Values may be null, unlike those of Map.of. */
    private static Map<String, Object> fields(Object... pairs) {
        Map<String, Object> fields = new LinkedHashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            fields.put((String) pairs[i], pairs[i + 1]);
        }
        return fields;
    }
}

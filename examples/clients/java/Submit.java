// Submits a job, watches it, and shows what an error holds. See docs/API.md for how it is built.
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.protobuf.Any;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.Metadata;
import java.util.Iterator;
import java.util.concurrent.TimeUnit;
import uniquanf.v1.*;

public class Submit {
  private static final Metadata.Key<com.google.rpc.Status> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", ProtoUtils.metadataMarshaller(com.google.rpc.Status.getDefaultInstance()));

  public static void main(String[] args) throws Exception {
    String[] server = System.getenv("UNIQUANF_SERVER").split(":");
    ManagedChannel channel =
        NettyChannelBuilder.forAddress(server[0], Integer.parseInt(server[1])).usePlaintext().build();
    try {
      JobServiceGrpc.JobServiceBlockingStub jobs = JobServiceGrpc.newBlockingStub(channel);
      QuantizationSpec spec = QuantizationSpec.newBuilder()
          .setModelUri("file://" + args[0] + "/tiny")
          .setCalibrationUri("file://" + args[0] + "/tokens/tiny_calib.safetensors")
          .setBits(3).setNumSamples(4).setSequenceLength(128).setEpochs(4)
          .build();
      // The same request id makes the same job, however often the call is repeated.
      Job job = jobs.createJob(CreateJobRequest.newBuilder()
          .setJob(Job.newBuilder().setSpec(spec)).setRequestId("java-example-1").build());
      Iterator<WatchJobResponse> updates =
          jobs.watchJob(WatchJobRequest.newBuilder().setName(job.getName()).build());
      while (updates.hasNext()) job = updates.next().getJob();
      System.out.println(job.getName() + " " + job.getState() + " " + job.getArtifact().getUri());
      try {
        jobs.createJob(CreateJobRequest.newBuilder()
            .setJob(Job.newBuilder().setSpec(spec.toBuilder().setBits(99))).build());
      } catch (StatusRuntimeException error) {
        for (Any detail : error.getTrailers().get(DETAILS).getDetailsList()) {
          if (detail.is(ErrorInfo.class)) System.out.println("reason " + detail.unpack(ErrorInfo.class).getReason());
          if (!detail.is(BadRequest.class)) continue;
          for (BadRequest.FieldViolation violation : detail.unpack(BadRequest.class).getFieldViolationsList()) {
            System.out.println(violation.getField() + ": " + violation.getDescription());
          }
        }
      }
    } finally {
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }
}

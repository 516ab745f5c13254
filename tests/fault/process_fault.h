// What tests of single faults share: a cluster of real processes with a short lease, the small jobs
// of the chaos runs, and a worker that says what no correct worker says.
#ifndef UNIQUANF_TESTS_FAULT_PROCESS_FAULT_H_
#define UNIQUANF_TESTS_FAULT_PROCESS_FAULT_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/version.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "tests/fault/chaos_world.h"
#include "tests/support/mini_cluster.h"
#include "tests/support/status_matchers.h"
#include "uniquanf/v1/worker_service.grpc.pb.h"

namespace uniquanf {

inline constexpr char kBinaries[] = UNIQUANF_BINARY_DIR "/bin";
inline constexpr absl::Duration kLease = absl::Seconds(1);
inline constexpr absl::Duration kPatience = absl::Seconds(60);
inline constexpr int kMaxEpochs = 10000;  // minutes
inline constexpr int kChain = 0, kIndependent = 1;

class ProcessFaultTest : public testing::Test {
 protected:
  // A cluster whose server has these flags.
  MiniCluster& Start(const std::vector<std::string>& server_flags = {},
                     absl::Duration lease = kLease) {
    MiniClusterOptions options;
    options.binary_dir = kBinaries;
    options.lease_duration = lease;
    options.server_flags = server_flags;
    cluster_ = std::make_unique<MiniCluster>(options);
    EXPECT_TRUE(cluster_->StartServer());
    return *cluster_;
  }

  static const ChaosWorld& World() {
    static const ChaosWorld* const kWorld = new ChaosWorld(kBinaries);
    return *kWorld;
  }

  QuantizationSpec Spec(int variant, int epochs = 0) {
    QuantizationSpec spec = World().Spec(variant);
    spec.output_uri = absl::StrCat("file://", cluster_->File("out"));
    if (epochs > 0) spec.epochs = epochs;
    return spec;
  }

  std::string Submit(const QuantizationSpec& spec, bool unchecked = false) {
    SubmitOptions options;
    options.spec = spec;
    options.unchecked = unchecked;
    const auto job = cluster_->client().SubmitJob(options);
    EXPECT_OK(job);
    return job.ok() ? job->name : "jobs/none";
  }

  void ExpectReference(const std::string& name, int variant) {
    const auto job = cluster_->WaitForJob(name, kPatience);
    ASSERT_OK(job);
    ASSERT_EQ(job->state, JobState::kSucceeded) << (job->error ? job->error->message : "");
    EXPECT_TRUE(ArtifactBytes(cluster_->File("out")) == World().Reference(variant));
  }

  std::optional<Task> FindTask(const std::string& job, const std::string& id) {
    const auto tasks = cluster_->client().ListTasks(job);
    if (!tasks.ok()) return std::nullopt;
    for (const Task& task : *tasks) {
      if (task.name == absl::StrCat(job, "/tasks/", id)) return task;
    }
    return std::nullopt;
  }
  bool WaitForTask(const std::string& job, const std::string& id,
                   const std::function<bool(const Task&)>& condition) {
    return WaitUntil(
        [&] {
          const auto task = FindTask(job, id);
          return task.has_value() && condition(*task);
        },
        kPatience);
  }
  bool WaitUntilLeased(const std::string& job, const std::string& id) {
    return WaitForTask(job, id, [](const Task& t) { return t.state == TaskState::kLeased; });
  }

  std::unique_ptr<MiniCluster> cluster_;
};

// Speaks the protocol by hand, to say what no correct worker says.
class FakeWorker {
 public:
  explicit FakeWorker(const std::string& server)
      : stub_(v1::WorkerService::NewStub(
            grpc::CreateChannel(server, grpc::InsecureChannelCredentials()))) {}

  v1::SynchronizeResponse Synchronize(const std::vector<v1::LeaseReport>& leases) {
    v1::SynchronizeRequest request;
    request.set_session_id("session-fake");
    request.set_worker("workers/fake");
    request.set_protocol_version(kProtocolVersion);
    request.set_sequence(++sequence_);
    request.mutable_capabilities()->set_device("cpu");
    request.mutable_capabilities()->set_num_slots(1);
    request.mutable_capabilities()->set_memory_bytes(int64_t{1} << 33);
    request.set_num_free_slots(leases.empty() ? 1 : 0);
    for (const auto& lease : leases) *request.add_leases() = lease;
    grpc::ClientContext context;
    v1::SynchronizeResponse response;
    const grpc::Status status = stub_->Synchronize(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  // Until there is one.
  v1::TaskAssignment Lease() {
    v1::TaskAssignment assignment;
    EXPECT_TRUE(WaitUntil(
        [&] {
          const auto response = Synchronize({});
          if (response.assignments_size() == 0) return false;
          assignment = response.assignments(0);
          return true;
        },
        kPatience));
    return assignment;
  }

 private:
  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  int64_t sequence_ = 0;
};

inline v1::LeaseReport ReportOn(const v1::TaskAssignment& assignment) {
  v1::LeaseReport report;
  report.set_lease_id(assignment.lease_id());
  report.set_lease_token(assignment.lease_token());
  report.set_attempt(assignment.attempt());
  report.set_task(assignment.task());
  return report;
}

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_FAULT_PROCESS_FAULT_H_

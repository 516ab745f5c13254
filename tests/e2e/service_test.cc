#include "tests/e2e/service_test.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

constexpr absl::Duration kJobTimeout = absl::Minutes(5);
const char kExamples[] = UNIQUANF_SOURCE_DIR "/examples";
const char kBinaries[] = UNIQUANF_BINARY_DIR "/bin";

}  // namespace

ServiceTest::ServiceTest() : cluster_({.binary_dir = kBinaries}) {}

QuantizationSpec ServiceTest::Spec(const std::string& output) const {
  QuantizationSpec spec;
  spec.model_uri = absl::StrCat("file://", kExamples, "/tiny");
  spec.calibration_uri = absl::StrCat("file://", kExamples, "/tokens/tiny_calib.safetensors");
  spec.output_uri = absl::StrCat("file://", cluster_.File(output));
  spec.bits = 3;
  spec.num_samples = 4;
  spec.sequence_length = 128;
  spec.epochs = 8;
  return spec;
}

QuantizationSpec ServiceTest::LongSpec(const std::string& output) const {
  QuantizationSpec spec = Spec(output);
  spec.epochs = 5000;
  return spec;
}

Artifact ServiceTest::BatchArtifact(const std::vector<std::string>& flags) {
  TempDir dir;
  std::vector<std::string> arguments = {
      "quantize",
      absl::StrCat("--model=", kExamples, "/tiny"),
      absl::StrCat("--calibration=", kExamples, "/tokens/tiny_calib.safetensors"),
      absl::StrCat("--output=", dir.File("artifact")),
      "--bits=3",
      "--num-samples=4",
      "--sequence-length=128",
      "--epochs=8"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  ChildProcess batch(absl::StrCat(kBinaries, "/uniquanf-batch"), arguments, {}, dir.File("log"));
  const auto status = batch.WaitForExit(kJobTimeout);
  EXPECT_EQ(status, (ExitStatus{0, 0})) << batch.Log();
  return ArtifactBytes(dir.File("artifact"));
}

const Artifact& ServiceTest::Reference() {
  static const Artifact* const kReference = new Artifact(BatchArtifact({}));
  return *kReference;
}

std::string ServiceTest::Submit(const QuantizationSpec& spec, bool unchecked) {
  SubmitOptions options;
  options.spec = spec;
  options.unchecked = unchecked;
  const auto job = cluster_.client().SubmitJob(options);
  EXPECT_OK(job);
  return job.ok() ? job->name : "jobs/none";
}

void ServiceTest::ExpectReferenceArtifact(const std::string& name, const QuantizationSpec& spec) {
  ExpectArtifact(name, spec, Reference());
}

void ServiceTest::ExpectArtifact(const std::string& name, const QuantizationSpec& spec,
                                 const Artifact& reference) {
  const auto job = cluster_.WaitForJob(name, kJobTimeout);
  ASSERT_OK(job);
  ASSERT_EQ(job->state, JobState::kSucceeded)
      << (job->error.has_value() ? job->error->message : "no error");
  const std::string dir = spec.output_uri.substr(std::string("file://").size());
  const Artifact artifact = ArtifactBytes(dir);
  for (const auto& [path, bytes] : reference) {
    const auto it = artifact.find(path);
    ASSERT_NE(it, artifact.end()) << path << " is missing";
    EXPECT_TRUE(it->second == bytes) << path << " differs from the batch program's";
  }
  EXPECT_EQ(artifact.size(), reference.size());
}

bool ServiceTest::WaitUntilALayerRuns(const std::string& job) {
  return cluster_.WaitForTasks(
      job,
      [](const std::vector<Task>& tasks) {
        for (const Task& task : tasks) {
          if (task.kind == TaskKind::kLayer && task.state == TaskState::kLeased) return true;
        }
        return false;
      },
      absl::Minutes(2));
}

int ServiceTest::NumFailures(const std::string& job, const std::string& failure_class) {
  const auto tasks = cluster_.client().ListTasks(job);
  EXPECT_OK(tasks);
  int num = 0;
  for (const Task& task : *tasks) {
    for (const TaskFailure& failure : task.failures)
      num += FailureClassName(failure.failure_class) == failure_class;
  }
  return num;
}

}  // namespace uniquanf

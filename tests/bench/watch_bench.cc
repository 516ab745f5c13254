// Many watchers of one job on one server (a process of its own, SQLite): how long a change takes to
// reach all of them, what a watcher costs in memory, and what the scheduler's calls take meanwhile.
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/client_callback.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/include/uniquanf/client.h"
#include "common/base/version.h"
#include "common/rpc/channel.h"
#include "tests/bench/bench_support.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"
#include "uniquanf/v1/job_service.grpc.pb.h"
#include "uniquanf/v1/worker_service.grpc.pb.h"

namespace uniquanf::bench {
namespace {

// Counts how many watchers have seen a version.
class Board {
 public:
  void Expect(int64_t version, int num_watchers) {
    absl::MutexLock lock(&mutex_);
    version_ = version;
    num_missing_ = num_watchers;
    for (const int64_t seen : seen_) num_missing_ -= seen >= version;
  }
  void Resize(int num_watchers) {
    absl::MutexLock lock(&mutex_);
    seen_.assign(num_watchers, -1);
  }
  void Saw(int watcher, int64_t version) {
    absl::MutexLock lock(&mutex_);
    if (seen_[watcher] < version_ && version >= version_) --num_missing_;
    seen_[watcher] = version;
  }
  bool Wait(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    const auto all = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_missing_ <= 0; };
    return mutex_.AwaitWithTimeout(absl::Condition(&all), timeout);
  }

 private:
  absl::Mutex mutex_;
  int64_t version_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_missing_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<int64_t> seen_ ABSL_GUARDED_BY(mutex_);
};

class Watcher : public grpc::ClientReadReactor<v1::WatchJobResponse> {
 public:
  Watcher(int index, const std::string& job, v1::JobService::Stub* stub, Board* board)
      : index_(index), board_(board) {
    request_.set_name(job);
    stub->async()->WatchJob(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }
  void WaitUntilDone() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&done_));
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    board_->Saw(index_, response_.job().version());
    StartRead(&response_);
  }
  void OnDone(const grpc::Status&) override {
    absl::MutexLock lock(&mutex_);
    done_ = true;
  }

  const int index_;
  Board* const board_;
  grpc::ClientContext context_;
  v1::WatchJobRequest request_;
  v1::WatchJobResponse response_;
  absl::Mutex mutex_;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

std::string Percentiles(std::vector<double> ms) {
  if (ms.empty()) return "none";
  std::sort(ms.begin(), ms.end());
  const auto at = [&](double q) { return ms[static_cast<size_t>(q * (ms.size() - 1))]; };
  char text[160];
  std::snprintf(text, sizeof(text), "median %.2f ms, 90%% %.2f ms, 99%% %.2f ms, longest %.2f ms",
                at(0.5), at(0.9), at(0.99), ms.back());
  return text;
}

double MsSince(absl::Time start) { return absl::ToDoubleMilliseconds(absl::Now() - start); }

int64_t ResidentBytes(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/statm"));
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * 4096;
}

// One worker's calls, back to back, that find nothing to do: each passes the scheduler.
class SchedulerProbe {
 public:
  explicit SchedulerProbe(std::shared_ptr<grpc::Channel> channel)
      : stub_(v1::WorkerService::NewStub(channel)), thread_([this] { Run(); }) {}
  ~SchedulerProbe() {
    stop_ = true;
    thread_.join();
  }
  // Milliseconds of the calls since the last Take.
  std::vector<double> Take() {
    absl::MutexLock lock(&mutex_);
    return std::move(ms_);
  }

 private:
  void Run() {
    v1::SynchronizeRequest request;
    request.set_session_id("watch-bench");
    request.set_worker("workers/watch-bench");
    request.set_protocol_version(kProtocolVersion);
    request.set_software_version(kSoftwareVersion);
    request.mutable_capabilities()->set_device("cpu");
    request.mutable_capabilities()->set_num_slots(1);
    for (int64_t sequence = 1; !stop_; ++sequence) {
      request.set_sequence(sequence);
      grpc::ClientContext context;
      v1::SynchronizeResponse response;
      const absl::Time start = absl::Now();
      const grpc::Status status = stub_->Synchronize(&context, request, &response);
      if (!status.ok()) {
        std::fprintf(stderr, "Synchronize: %s\n", status.error_message().c_str());
        return;
      }
      {
        absl::MutexLock lock(&mutex_);
        ms_.push_back(MsSince(start));
      }
      absl::SleepFor(absl::Milliseconds(2));  // the rate of some hundred workers
    }
  }

  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  std::atomic<bool> stop_{false};
  absl::Mutex mutex_;
  std::vector<double> ms_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

std::shared_ptr<grpc::Channel> NewConnection(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // not one connection for all
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

int Run(const Flags& flags) {
  const int num_watchers = static_cast<int>(flags.Number("watchers", 10000));
  const int num_connections = static_cast<int>(flags.Number("connections", 100));
  const int num_changes = static_cast<int>(flags.Number("changes", 30));
  TempDir dir;
  ChildProcess server(flags.Text("server", UNIQUANF_BINARY_DIR "/bin/uniquanf-server"),
                      {"--listen=127.0.0.1:0", "--data-dir=" + dir.File("server"),
                       "--ready-file=" + dir.File("ready"), "--log-level=error"},
                      {}, dir.File("log"));
  std::string address;
  if (!WaitUntil(
          [&] {
            std::ifstream file(dir.File("ready"));
            return static_cast<bool>(file >> address);
          },
          absl::Seconds(30))) {
    std::fprintf(stderr, "the server does not come up:\n%s\n", server.Log().c_str());
    return 1;
  }
  ClientOptions client_options;
  client_options.server = address;
  const std::unique_ptr<Client> client = Take(Client::Connect(client_options));
  SubmitOptions submit;
  submit.spec.model_uri = "file:///models/none";
  submit.spec.calibration_uri = "file:///tokens/none";
  submit.spec.output_uri = "file://" + dir.File("out");
  const std::string job = Take(client->SubmitJob(submit)).name;

  const auto stub = v1::JobService::NewStub(NewConnection(address));
  bool paused = false;
  const auto change = [&]() -> int64_t {
    grpc::ClientContext context;
    v1::Job response;
    grpc::Status status;
    if (paused) {
      v1::ResumeJobRequest request;
      request.set_name(job);
      status = stub->ResumeJob(&context, request, &response);
    } else {
      v1::PauseJobRequest request;
      request.set_name(job);
      status = stub->PauseJob(&context, request, &response);
    }
    paused = !paused;
    Check(status.ok() ? absl::OkStatus() : absl::InternalError(status.error_message()));
    return response.version();
  };
  SchedulerProbe probe(NewConnection(address));
  std::printf("server: %d connections, %d watchers of one job\n", num_connections, num_watchers);

  const auto report = [&](const char* when) {
    std::printf("Synchronize, %s: %s\n", when, Percentiles(probe.Take()).c_str());
    std::fflush(stdout);
  };
  probe.Take();
  absl::SleepFor(absl::Seconds(3));
  report("no watchers, no changes");
  std::vector<double> call_ms;
  for (int i = 0; i < num_changes; ++i) {
    const absl::Time start = absl::Now();
    change();
    call_ms.push_back(MsSince(start));
    absl::SleepFor(absl::Milliseconds(100));
  }
  report("no watchers, 10 changes a second");
  std::printf("PauseJob or ResumeJob: %s\n", Percentiles(call_ms).c_str());

  const int64_t bytes_before = ResidentBytes(server.pid());
  Board board;
  board.Resize(num_watchers);
  board.Expect(0, num_watchers);
  std::vector<std::unique_ptr<v1::JobService::Stub>> stubs;
  for (int i = 0; i < num_connections; ++i) {
    stubs.push_back(v1::JobService::NewStub(NewConnection(address)));
  }
  std::vector<std::unique_ptr<Watcher>> watchers;
  const absl::Time opening = absl::Now();
  for (int i = 0; i < num_watchers; ++i) {
    watchers.push_back(std::make_unique<Watcher>(i, job, stubs[i % num_connections].get(), &board));
  }
  if (!board.Wait(absl::Minutes(3))) {
    std::fprintf(stderr, "some watchers got nothing\n");
    return 1;
  }
  std::printf("all watchers opened and told the present state: %.0f ms\n", MsSince(opening));
  report("while they open");
  absl::SleepFor(absl::Seconds(3));
  report("watchers, no changes");
  const int64_t bytes_watching = ResidentBytes(server.pid());
  std::printf("server's memory: %.1f MiB before, %.1f MiB with the watchers: %.1f KiB a watcher\n",
              bytes_before / 1048576.0, bytes_watching / 1048576.0,
              (bytes_watching - bytes_before) / 1024.0 / num_watchers);

  std::vector<double> all_ms;
  call_ms.clear();
  for (int i = 0; i < num_changes; ++i) {
    const absl::Time start = absl::Now();
    const int64_t version = change();
    call_ms.push_back(MsSince(start));
    board.Expect(version, num_watchers);
    if (!board.Wait(absl::Minutes(1))) {
      std::fprintf(stderr, "a change did not reach all watchers within a minute\n");
      return 1;
    }
    all_ms.push_back(MsSince(start));
  }
  std::printf("a change, from its call until the last watcher has it: %s\n",
              Percentiles(all_ms).c_str());
  std::printf("PauseJob or ResumeJob: %s\n", Percentiles(call_ms).c_str());
  report("watchers, one change after another");
  std::printf("server's memory after the changes: %.1f MiB\n",
              ResidentBytes(server.pid()) / 1048576.0);

  const absl::Time closing = absl::Now();
  for (const auto& watcher : watchers) watcher->Cancel();
  for (const auto& watcher : watchers) watcher->WaitUntilDone();
  std::printf("all watchers gone: %.0f ms\n", MsSince(closing));
  report("while they go");
  return 0;
}

}  // namespace
}  // namespace uniquanf::bench

int main(int argc, char** argv) {
  using uniquanf::bench::Flags;
  return uniquanf::bench::Run(
      Flags(argc, argv, "Many watchers of one job: latency of changes, memory, the scheduler.",
            {{"watchers", "streams (10000)"},
             {"connections", "TCP connections that they share (100)"},
             {"changes", "how many changes to time (30)"},
             {"server", "program (the build's uniquanf-server)"}}));
}

// Tasks leased and finished a second, the latency of a lease, and the time to recover, with the
// real runtime and store and simulated workers in this process (no gRPC between them):
//
//   scheduler_bench STATE [QUEUED_TASKS [TASKS [WORKERS]]]
//
// STATE is what uniquanf-server's --state takes, and must be empty. Every call of a worker reports
// a finished task and asks for the next, so each is one durable finish and one durable lease.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/clock.h"
#include "common/base/digest.h"
#include "server/runtime/runtime.h"

namespace uniquanf::server {
namespace {

constexpr int kLayersPerJob = 1000;

// Ends the process without destructors: other threads use what they would destroy. The writer's
// thread comes here too, when a commit fails.
void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::fflush(stdout);
  std::_Exit(1);
}

absl::Duration Now() { return SystemClock().Monotonic(); }

class FailOnError : public RuntimeObserver {
 public:
  void OnCommitFailed(const absl::Status& status) override { Check(status); }
};

// Tells the scheduler's time from the store's. The writer's thread calls Commit; processor time is
// that of this thread, so other work on the machine does not count.
class TimedStore : public JobStore {
 public:
  explicit TimedStore(std::unique_ptr<JobStore> store) : store_(std::move(store)) {}
  absl::StatusOr<uint64_t> Open() override { return store_->Open(); }
  absl::StatusOr<LoadedState> Load() override { return store_->Load(); }
  absl::Status Commit(const WriteBatch& batch) override {
    const absl::Duration start = Now(), cpu_start = ThreadTime();
    const absl::Status status = store_->Commit(batch);
    const absl::Duration end = Now(), cpu_end = ThreadTime();
    absl::MutexLock lock(&mutex_);
    ++times_.num_commits;
    times_.commit += end - start;
    times_.commit_cpu += cpu_end - cpu_start;
    if (last_cpu_ > absl::ZeroDuration()) times_.scheduler_cpu += cpu_start - last_cpu_;
    last_cpu_ = cpu_end;
    return status;
  }
  absl::Status CheckActive(uint64_t epoch) override { return store_->CheckActive(epoch); }
  std::string backend() const override { return store_->backend(); }
  bool allows_standby() const override { return store_->allows_standby(); }

  struct Times {
    int64_t num_commits = 0;
    absl::Duration commit, commit_cpu;
    absl::Duration scheduler_cpu;  // of the writer's thread, outside Commit
  };
  // Since the last Take.
  Times Take() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(times_, {});
  }

 private:
  static absl::Duration ThreadTime() {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return absl::DurationFromTimespec(time);
  }

  const std::unique_ptr<JobStore> store_;
  absl::Mutex mutex_;
  Times times_ ABSL_GUARDED_BY(mutex_);
  absl::Duration last_cpu_ ABSL_GUARDED_BY(mutex_);
};

struct Server {
  explicit Server(const std::string& state) {
    auto opened = NewJobStore(state);
    Check(opened.status());
    store = std::make_unique<TimedStore>(*std::move(opened));
    RuntimeOptions options;
    options.policy.lease_duration = absl::Minutes(10);
    runtime = std::make_unique<Runtime>(options, store.get(), &SystemClock(), &observer);
    Check(runtime->Start());
    Check(runtime->availability());
  }
  FailOnError observer;
  std::unique_ptr<TimedStore> store;
  std::unique_ptr<Runtime> runtime;
};

struct Worker {
  std::string name;
  int64_t sequence = 0;
  std::vector<LeaseReport> reports;
  absl::Duration called_at;
};

// Workers with one slot each, driven by one thread.
class Fleet {
 public:
  // Layers need more memory than kPrepareOnly.
  static constexpr int64_t kLayerMemory = 2 << 20, kPrepareOnly = 1 << 20, kUnknown = 0;
  Fleet(Runtime* runtime, int num_workers, const std::string& prefix, int64_t memory_bytes)
      : runtime_(runtime), memory_bytes_(memory_bytes), workers_(num_workers) {
    for (int i = 0; i < num_workers; ++i) workers_[i].name = absl::StrCat(prefix, "-", i);
  }

  // Runs until `num_tasks` leases have been given beyond the first to each worker. A task takes
  // `work`. Latencies are of the calls that brought a lease.
  struct Measurement {
    absl::Duration time;
    int64_t num_leases = 0, num_warm_up = 0;
    std::vector<double> latency_ms;
  };
  Measurement Run(int64_t num_tasks, absl::Duration work) {
    Measurement result;
    std::priority_queue<std::pair<absl::Duration, int>, std::vector<std::pair<absl::Duration, int>>,
                        std::greater<>>
        due;
    // The first calls are spread over one task's time, as they are in a fleet that has run a while.
    const absl::Duration start = Now();
    for (size_t i = 0; i < workers_.size(); ++i) {
      due.push({start + work * (static_cast<double>(i) / workers_.size()), static_cast<int>(i)});
    }
    absl::Duration measured_from;
    int64_t num_warm_up = static_cast<int64_t>(workers_.size());
    while (result.num_leases < num_tasks) {
      while (!due.empty() && due.top().first <= Now()) {
        Call(due.top().second);
        due.pop();
      }
      std::vector<Done> done;
      {
        absl::MutexLock lock(&mutex_);
        const absl::Duration wait =
            due.empty()
                ? absl::Seconds(1)
                : std::clamp(due.top().first - Now(), absl::ZeroDuration(), absl::Seconds(1));
        const auto called_back = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
          return !done_.empty();
        };
        mutex_.AwaitWithTimeout(absl::Condition(&called_back), wait);
        done.swap(done_);
      }
      for (Done& call : done) {
        Check(call.reply.status());
        Worker& worker = workers_[call.worker];
        worker.reports.clear();
        for (const Assignment& assignment : call.reply->assignments) {
          LeaseReport report;
          report.lease_id = assignment.lease_id;
          report.attempt = assignment.attempt;
          report.job = assignment.job;
          report.task = assignment.task;
          report.token_sha256 = Sha256Hex(assignment.lease_token);
          report.kind = LeaseReport::Kind::kSucceeded;
          report.outcome.result_sha256 = kResult;
          report.outcome.num_layers = kLayersPerJob;
          report.outcome.layers_independent = true;
          report.outcome.device = "cpu";
          report.outcome.layer_memory_bytes = kLayerMemory;
          worker.reports.push_back(std::move(report));
          if (num_warm_up > 0) {
            ++result.num_warm_up;
            if (--num_warm_up == 0) measured_from = Now();
            continue;
          }
          ++result.num_leases;
          result.latency_ms.push_back(absl::ToDoubleMilliseconds(call.time - worker.called_at));
        }
        due.push({call.time + (worker.reports.empty() ? absl::ZeroDuration() : work), call.worker});
      }
    }
    result.time = Now() - measured_from;
    return result;
  }

 private:
  struct Done {
    int worker;
    absl::Duration time;
    absl::StatusOr<SynchronizeReply> reply;
  };

  void Call(int index) {
    Worker& worker = workers_[index];
    SynchronizeEvent event;
    event.session = worker.name;
    event.worker = worker.name;
    event.sequence = ++worker.sequence;
    event.capabilities.device = "cpu";
    event.capabilities.memory_bytes = memory_bytes_;
    event.capabilities.num_slots = 1;
    event.num_free_slots = 1;
    event.leases = worker.reports;
    worker.called_at = Now();
    runtime_->Synchronize(std::move(event), absl::Seconds(20),
                          [this, index](absl::StatusOr<SynchronizeReply> reply) {
                            const absl::Duration time = Now();
                            absl::MutexLock lock(&mutex_);
                            done_.push_back({index, time, std::move(reply)});
                          });
  }

  const std::string kResult = Sha256Hex("result");
  Runtime* const runtime_;
  const int64_t memory_bytes_;
  std::vector<Worker> workers_;
  absl::Mutex mutex_;
  std::vector<Done> done_ ABSL_GUARDED_BY(mutex_);
};

void CreateJobs(Runtime* runtime, const std::string& prefix, int num_jobs) {
  std::vector<std::promise<absl::Status>> done(num_jobs);
  for (int i = 0; i < num_jobs; ++i) {
    CreateJobEvent event;
    event.job.id = absl::StrCat(prefix, "-", i);
    event.job.uid = absl::StrCat("uid-", event.job.id);
    event.job.tenant = absl::StrCat("tenant-", i % 10);
    event.job.spec = std::string(500, 's');
    runtime->ChangeJob(std::move(event), [&done, i](const absl::StatusOr<JobView>& view) {
      done[i].set_value(view.status());
    });
  }
  for (auto& promise : done) Check(promise.get_future().get());
}

void Print(const char* what, const TimedStore::Times& times, Fleet::Measurement m) {
  std::sort(m.latency_ms.begin(), m.latency_ms.end());
  const auto percentile = [&](double p) {
    return m.latency_ms[static_cast<size_t>(p * (m.latency_ms.size() - 1))];
  };
  const double tasks = static_cast<double>(m.num_leases + m.num_warm_up);
  std::printf(
      "%-34s %8.0f tasks/s   lease p50 %7.2f ms  p90 %7.2f ms  p99 %7.2f ms   "
      "%lld tasks, %lld commits\n",
      what, static_cast<double>(m.num_leases) / absl::ToDoubleSeconds(m.time), percentile(0.5),
      percentile(0.9), percentile(0.99), static_cast<long long>(m.num_leases),
      static_cast<long long>(times.num_commits));
  std::printf(
      "  a task: scheduler %.1f us and store %.1f us of this process's processor time; a commit: "
      "%.2f ms, of which %.2f ms not in this process\n",
      absl::ToDoubleMicroseconds(times.scheduler_cpu) / tasks,
      absl::ToDoubleMicroseconds(times.commit_cpu) / tasks,
      absl::ToDoubleMilliseconds(times.commit) / times.num_commits,
      absl::ToDoubleMilliseconds(times.commit - times.commit_cpu) / times.num_commits);
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  int queued = 100000, tasks = 10000, workers = 1000;
  const bool numbers = (argc < 3 || absl::SimpleAtoi(argv[2], &queued)) &&
                       (argc < 4 || absl::SimpleAtoi(argv[3], &tasks)) &&
                       (argc < 5 || absl::SimpleAtoi(argv[4], &workers));
  if (argc < 2 || argc > 5 || !numbers || workers < 1 || tasks < 1 ||
      queued < 2 * (tasks + workers)) {
    std::fprintf(stderr,
                 "usage: scheduler_bench STATE [QUEUED_TASKS [TASKS [WORKERS]]], with QUEUED_TASKS "
                 "at least twice TASKS + WORKERS\n");
    return 2;
  }
  // One more, whose prepare is left unfinished.
  const int num_jobs = (queued + kLayersPerJob - 1) / kLayersPerJob + 1;
  {
    Server server(argv[1]);
    CreateJobs(server.runtime.get(), "job", num_jobs);
    // Prepare comes first in every job, and makes its layers leasable.
    const absl::Duration start = Now();
    Fleet(server.runtime.get(), 1, "prepare", Fleet::kPrepareOnly)
        .Run(num_jobs - 1, absl::ZeroDuration());
    std::promise<int64_t> ready;
    server.runtime->Read([&ready](const State* state) {
      ready.set_value(state->num_tasks[static_cast<int>(TaskState::kReady)]);
    });
    std::printf("%s: %d workers, %d jobs, %lld tasks queued in %.1f s\n",
                server.store->backend().c_str(), workers, num_jobs,
                static_cast<long long>(ready.get_future().get()),
                absl::ToDoubleSeconds(Now() - start));
    Fleet saturated(server.runtime.get(), workers, "fast", Fleet::kUnknown);
    server.store->Take();
    const Fleet::Measurement fast = saturated.Run(tasks, absl::ZeroDuration());
    Print("back to back", server.store->Take(), fast);
    Fleet paced(server.runtime.get(), workers, "paced", Fleet::kUnknown);
    // 2,000 tasks a second over all workers.
    const Fleet::Measurement slow = paced.Run(tasks, absl::Seconds(workers / 2000.0));
    Print("at 2,000 tasks a second offered", server.store->Take(), slow);
    server.runtime->Stop();  // answers the calls that are held, while their fleets still live
  }
  const absl::Duration start = Now();
  Server again(argv[1]);
  std::printf("recovery of %d tasks: %.2f s\n", (num_jobs - 1) * kLayersPerJob,
              absl::ToDoubleSeconds(Now() - start));
  return 0;
}

}  // namespace
}  // namespace uniquanf::server

int main(int argc, char** argv) { return uniquanf::server::Main(argc, argv); }

// Tasks leased and finished a second, the latency of a lease, and the time to recover, with the
// real runtime and store and simulated workers in this process (no gRPC between them):
//
//   scheduler_bench STATE [QUEUED_TASKS [TASKS [WORKERS]]]
//
// STATE is what uniquanf-server's --state takes, and must be empty. Every call of a worker reports
// a finished task and asks for the next, so each is one durable finish and one durable lease.
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <mutex>
#include <queue>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/clock.h"
#include "common/base/digest.h"
#include "server/runtime/runtime.h"

namespace uniquanf::server {
namespace {

constexpr int kLayersPerJob = 1000;

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

absl::Duration Now() { return SystemClock().Monotonic(); }

class CountCommits : public RuntimeObserver {
 public:
  void OnCommit(size_t, bool durable, absl::Duration, const State&, const Edits&) override {
    num_commits += durable;
  }
  void OnCommitFailed(const absl::Status& status) override { Check(status); }
  std::atomic<int64_t> num_commits{0};
};

struct Server {
  explicit Server(const std::string& state) {
    auto opened = NewJobStore(state);
    Check(opened.status());
    store = *std::move(opened);
    RuntimeOptions options;
    options.policy.lease_duration = absl::Minutes(10);
    runtime = std::make_unique<Runtime>(options, store.get(), &SystemClock(), &observer);
    Check(runtime->Start());
    Check(runtime->availability());
  }
  CountCommits observer;
  std::unique_ptr<JobStore> store;
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
  Fleet(Runtime* runtime, int num_workers, const std::string& prefix)
      : runtime_(runtime), workers_(num_workers) {
    for (int i = 0; i < num_workers; ++i) workers_[i].name = absl::StrCat(prefix, "-", i);
  }

  // Runs until `num_tasks` leases have been given beyond the first to each worker. A task takes
  // `work`. Latencies are of the calls that brought a lease.
  struct Measurement {
    absl::Duration time;
    int64_t num_leases = 0;
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
        std::unique_lock<std::mutex> lock(mutex_);
        const absl::Duration wait =
            due.empty()
                ? absl::Seconds(1)
                : std::clamp(due.top().first - Now(), absl::ZeroDuration(), absl::Seconds(1));
        changed_.wait_for(lock, absl::ToChronoMicroseconds(wait), [&] { return !done_.empty(); });
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
          report.kind = LeaseReport::Kind::kSucceeded;
          report.outcome.result_sha256 = kResult;
          report.outcome.num_layers = kLayersPerJob;
          report.outcome.layers_independent = true;
          report.outcome.device = "cpu";
          worker.reports.push_back(std::move(report));
          if (num_warm_up > 0) {
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
    event.capabilities = {"cpu", "", 0, 1, {}};
    event.num_free_slots = 1;
    event.leases = worker.reports;
    worker.called_at = Now();
    runtime_->Synchronize(std::move(event), absl::Seconds(20),
                          [this, index](absl::StatusOr<SynchronizeReply> reply) {
                            const absl::Duration time = Now();
                            const std::lock_guard<std::mutex> lock(mutex_);
                            done_.push_back({index, time, std::move(reply)});
                            changed_.notify_one();
                          });
  }

  const std::string kResult = Sha256Hex("result");
  Runtime* const runtime_;
  std::vector<Worker> workers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Done> done_;
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

void Print(const char* what, Server& server, int64_t commits_before, Fleet::Measurement m) {
  std::sort(m.latency_ms.begin(), m.latency_ms.end());
  const auto percentile = [&](double p) {
    return m.latency_ms[static_cast<size_t>(p * (m.latency_ms.size() - 1))];
  };
  std::printf(
      "%-34s %8.0f tasks/s   lease p50 %7.2f ms  p90 %7.2f ms  p99 %7.2f ms   "
      "%lld tasks, %lld commits\n",
      what, static_cast<double>(m.num_leases) / absl::ToDoubleSeconds(m.time), percentile(0.5),
      percentile(0.9), percentile(0.99), static_cast<long long>(m.num_leases),
      static_cast<long long>(server.observer.num_commits - commits_before));
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
  const int num_jobs = (queued + kLayersPerJob - 1) / kLayersPerJob;
  {
    Server server(argv[1]);
    CreateJobs(server.runtime.get(), "job", num_jobs);
    // Prepare comes first in every job, and makes its layers leasable.
    const absl::Duration start = Now();
    Fleet(server.runtime.get(), 1, "prepare").Run(num_jobs, absl::ZeroDuration());
    std::printf("%s: %d workers, %d jobs of %d tasks queued in %.1f s\n",
                server.store->backend().c_str(), workers, num_jobs, kLayersPerJob,
                absl::ToDoubleSeconds(Now() - start));
    Fleet saturated(server.runtime.get(), workers, "fast");
    int64_t commits = server.observer.num_commits;
    const Fleet::Measurement fast = saturated.Run(tasks, absl::ZeroDuration());
    Print("back to back", server, commits, fast);
    Fleet paced(server.runtime.get(), workers, "paced");
    commits = server.observer.num_commits;
    // 2,000 tasks a second over all workers.
    const Fleet::Measurement slow = paced.Run(tasks, absl::Seconds(workers / 2000.0));
    Print("at 2,000 tasks a second offered", server, commits, slow);
  }
  const absl::Duration start = Now();
  Server again(argv[1]);
  std::printf("recovery of %d tasks: %.2f s\n", num_jobs * kLayersPerJob,
              absl::ToDoubleSeconds(Now() - start));
  return 0;
}

}  // namespace
}  // namespace uniquanf::server

int main(int argc, char** argv) { return uniquanf::server::Main(argc, argv); }

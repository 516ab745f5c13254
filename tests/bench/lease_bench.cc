// The scheduler as workers meet it: a uniquanf-server process of its own, and this process as 1,000
// workers that call it over gRPC. Every call reports a finished task and gets the next, durably:
//
//   paced        a fixed rate of tasks a second, whatever the server does: the latency of a lease
//   back to back every worker calls again at once: the most the server gives
//   recovery     kill -9 of the server, and the time until a new one has leased the next task
//
// A worker of the paced part calls at fixed times, also when its last lease came late, so that a
// slow server does not slow the demand down. --queued tasks are left over when all is measured.
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <queue>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/rpc/status_proto.h"
#include "common/rpc/time_proto.h"
#include "tests/bench/bench_support.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tls_certificates.h"
#include "uniquanf/v1/job_service.grpc.pb.h"
#include "uniquanf/v1/worker_service.grpc.pb.h"

namespace uniquanf::bench {
namespace {

constexpr int kLayersPerJob = 1000;
// Layers need more memory than a worker that only prepares has.
constexpr int64_t kPrepareMemory = 1 << 20, kLayerMemory = 2 << 20;
constexpr absl::Duration kWarmUp = absl::Seconds(2);

// A closed service: TLS, certificates that say who calls, and a policy of many bindings, of which
// the last ones matter. Results are proved, so that there are objects for them.
class Closed {
 public:
  Closed(const TempDir& dir, int num_bindings)
      : authority_(dir.path(), "bench"),
        server_(authority_.Issue("server")),
        worker_(authority_.IssueFor("worker", "spiffe://bench/worker/w")),
        user_(authority_.IssueFor("user", "spiffe://bench/tenant/bench/user/u")),
        policy_(dir.File("policy.json")) {
    nlohmann::json bindings = nlohmann::json::array();
    for (int i = 0; i + 2 < num_bindings; ++i) {
      bindings.push_back(
          {{"principals", {absl::StrCat("tenant/t", i, "/user/*")}}, {"role", "user"}});
    }
    bindings.push_back({{"principals", {"tenant/*/user/*"}}, {"role", "user"}, {"tenants", {"*"}}});
    bindings.push_back({{"principals", {"worker/*"}}, {"role", "worker"}});
    std::ofstream(policy_) << nlohmann::json{
        {"version", 1},
        {"certificates", {{"trust_domain", "bench"}}},
        {"bindings", bindings},
        {"tenants",
         {{"*",
           {{"max_queued_jobs", 1'000'000},
            {"max_creates_per_second", 1e6},
            {"data", {{"read", {"file:///models", "file:///tokens"}}}}}}}}};
  }
  std::vector<std::string> ServerFlags() const {
    return {"--tls-cert=" + server_.certificate, "--tls-key=" + server_.key,
            "--tls-ca=" + authority_.certificate_file(), "--policy=" + policy_};
  }
  std::shared_ptr<grpc::ChannelCredentials> Credentials(bool of_user) const {
    const TlsFiles& files = of_user ? user_ : worker_;
    const auto read = [](const std::string& path) {
      std::ifstream file(path);
      return std::string(std::istreambuf_iterator<char>(file), {});
    };
    return grpc::SslCredentials(
        {read(authority_.certificate_file()), read(files.key), read(files.certificate)});
  }

 private:
  TlsAuthority authority_;
  const TlsFiles server_, worker_, user_;
  const std::string policy_;
};

// `closed` null: nobody is asked who he is.
std::shared_ptr<grpc::Channel> NewConnection(const std::string& address, const Closed* closed,
                                             bool of_user = false) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // not one connection for all
  if (closed == nullptr) {
    return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  }
  arguments.SetSslTargetNameOverride("localhost");
  return grpc::CreateCustomChannel(address, closed->Credentials(of_user), arguments);
}

class Worker {
 public:
  Worker(const std::string& name, int64_t memory_bytes) : result_(Sha256Hex("result")) {
    request_.set_session_id(absl::StrCat("session-", name));
    request_.set_worker(absl::StrCat("workers/", name));
    request_.set_protocol_version(kProtocolVersion);
    request_.set_software_version(kSoftwareVersion);
    request_.mutable_capabilities()->set_device("cpu");
    request_.mutable_capabilities()->set_memory_bytes(memory_bytes);
    request_.mutable_capabilities()->set_num_slots(1);
    request_.set_num_free_slots(1);
    *request_.mutable_max_wait() = DurationToProto(absl::Seconds(10));
  }

  v1::SynchronizeRequest* NextRequest() {
    request_.set_sequence(request_.sequence() + 1);
    return &request_;
  }
  // Whether the response brought a task; the next request reports it as done.
  bool Took(const v1::SynchronizeResponse& response) {
    request_.clear_leases();
    for (const v1::TaskAssignment& assignment : response.assignments()) {
      v1::LeaseReport* report = request_.add_leases();
      report->set_lease_id(assignment.lease_id());
      report->set_lease_token(assignment.lease_token());
      report->set_attempt(assignment.attempt());
      report->set_task(assignment.task());
      v1::TaskOutcome* outcome = report->mutable_succeeded();
      outcome->set_result_sha256(result_);
      if (assignment.kind() != v1::Task::PREPARE) continue;
      outcome->set_num_layers(kLayersPerJob);
      outcome->set_layers_independent(true);
      outcome->set_device("cpu");
      outcome->set_layer_memory_bytes(kLayerMemory);
    }
    return response.assignments_size() > 0;
  }

 private:
  const std::string result_;
  v1::SynchronizeRequest request_;
};

struct Measurement {
  absl::Duration time;
  int64_t num_leases = 0;
  std::vector<double> latency_ms;  // from a worker's call to its lease
  std::vector<double> late_ms;     // paced: how much later than planned this process called
};

// Workers with one slot each. Calls end on gRPC's threads; the caller's thread starts those that
// are due later.
class Fleet {
 public:
  Fleet(const std::string& address, const Closed* closed, int num_workers, int num_connections) {
    for (int i = 0; i < num_connections; ++i) {
      stubs_.push_back(v1::WorkerService::NewStub(NewConnection(address, closed)));
    }
    for (int i = 0; i < num_workers; ++i) {
      members_.push_back(std::make_unique<Member>(absl::StrCat("lease-bench-", i)));
    }
  }

  // Every worker calls once each `period` (zero: at once again) for `duration`, of which the first
  // part is not counted. Returns when no call is open any more. Errors: of the first call that
  // failed, which ends the measurement.
  absl::StatusOr<Measurement> Run(absl::Duration period, absl::Duration duration) {
    absl::MutexLock lock(&mutex_);
    period_ = period;
    measured_ = {};
    stopped_ = false;
    const absl::Time start = absl::Now();
    measure_from_ = start + kWarmUp;
    end_ = measure_from_ + duration;
    for (size_t i = 0; i < members_.size(); ++i) {
      due_.push({start + period * (static_cast<double>(i) / members_.size()), i});
    }
    while (absl::Now() < end_ && error_.ok()) {
      if (due_.empty() || due_.top().first > absl::Now()) {
        const absl::Time next = due_.empty() ? end_ : std::min(end_, due_.top().first);
        changed_.WaitWithDeadline(&mutex_, next);
        continue;
      }
      const auto [planned, index] = due_.top();
      due_.pop();
      members_[index]->planned = planned;
      ++num_open_;
      mutex_.Unlock();
      Call(index);
      mutex_.Lock();
    }
    stopped_ = true;
    due_ = {};
    while (num_open_ != 0) changed_.Wait(&mutex_);
    if (!error_.ok()) return error_;
    if (measured_.num_leases == 0) return absl::InternalError("no task was leased");
    measured_.time = duration;
    return std::move(measured_);
  }

 private:
  struct Member {
    explicit Member(const std::string& name) : worker(name, int64_t{8} << 30) {}
    Worker worker;
    std::unique_ptr<grpc::ClientContext> context;
    v1::SynchronizeResponse response;
    absl::Time planned, called;
  };
  using Due = std::pair<absl::Time, size_t>;

  void Call(size_t index) {
    Member& member = *members_[index];
    member.context = std::make_unique<grpc::ClientContext>();
    member.response.Clear();
    member.called = absl::Now();
    stubs_[index % stubs_.size()]->async()->Synchronize(
        member.context.get(), member.worker.NextRequest(), &member.response,
        [this, index](const grpc::Status& status) { Done(index, status); });
  }

  void Done(size_t index, const grpc::Status& status) {
    const absl::Time now = absl::Now();
    Member& member = *members_[index];
    const bool leased = status.ok() && member.worker.Took(member.response);
    {
      absl::MutexLock lock(&mutex_);
      if (!status.ok()) {
        if (error_.ok()) error_ = FromGrpcStatus(status);
        stopped_ = true;
      }
      if (leased && now >= measure_from_ && now < end_) {
        ++measured_.num_leases;
        measured_.latency_ms.push_back(absl::ToDoubleMilliseconds(now - member.called));
        measured_.late_ms.push_back(absl::ToDoubleMilliseconds(member.called - member.planned));
      }
      const bool again = !stopped_ && period_ == absl::ZeroDuration();
      if (!again) {
        --num_open_;
        if (!stopped_) due_.push({std::max(member.planned + period_, now), index});
        changed_.Signal();
        return;
      }
      member.planned = now;
    }
    Call(index);
  }

  std::vector<std::unique_ptr<v1::WorkerService::Stub>> stubs_;
  std::vector<std::unique_ptr<Member>> members_;
  absl::Mutex mutex_;
  absl::CondVar changed_;
  absl::Duration period_ ABSL_GUARDED_BY(mutex_);
  absl::Time measure_from_ ABSL_GUARDED_BY(mutex_), end_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = true;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  int num_open_ ABSL_GUARDED_BY(mutex_) = 0;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_ ABSL_GUARDED_BY(mutex_);
  Measurement measured_ ABSL_GUARDED_BY(mutex_);
};

// Seconds of processor time: of a process, and of the whole machine.
double ProcessSeconds(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string line;
  std::getline(file, line);
  std::istringstream fields(line.substr(line.rfind(')') + 2));
  std::string field;
  double user = 0, system = 0;
  for (int i = 3; i <= 13; ++i) fields >> field;
  fields >> user >> system;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}
double MachineSeconds() {
  std::ifstream file("/proc/stat");
  std::string name;
  double user = 0, nice = 0, system = 0, idle = 0, io = 0, irq = 0, soft_irq = 0;
  file >> name >> user >> nice >> system >> idle >> io >> irq >> soft_irq;
  return (user + nice + system + irq + soft_irq) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// Runs `measure` and prints what it and the processors did.
absl::Status Report(const std::string& what, pid_t server,
                    const std::function<absl::StatusOr<Measurement>()>& measure) {
  const double server_before = ProcessSeconds(server), own_before = ProcessSeconds(getpid()),
               machine_before = MachineSeconds();
  const absl::Time start = absl::Now();
  UQ_ASSIGN_OR_RETURN(Measurement m, measure());
  const double elapsed = absl::ToDoubleSeconds(absl::Now() - start);
  const double server_cores = (ProcessSeconds(server) - server_before) / elapsed,
               own_cores = (ProcessSeconds(getpid()) - own_before) / elapsed,
               machine_cores = (MachineSeconds() - machine_before) / elapsed;
  std::sort(m.latency_ms.begin(), m.latency_ms.end());
  std::sort(m.late_ms.begin(), m.late_ms.end());
  const auto at = [](const std::vector<double>& sorted, double q) {
    return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1))];
  };
  std::printf(
      "%s: %.0f tasks/s; call to lease p50 %.2f ms, p90 %.2f ms, p99 %.2f ms, longest "
      "%.2f ms\n",
      what.c_str(), static_cast<double>(m.num_leases) / absl::ToDoubleSeconds(m.time),
      at(m.latency_ms, 0.5), at(m.latency_ms, 0.9), at(m.latency_ms, 0.99), m.latency_ms.back());
  std::printf(
      "  cores busy: server %.2f, workers (this process) %.2f, all of the machine %.2f; "
      "calls made late by p99 %.2f ms; %lld tasks\n",
      server_cores, own_cores, machine_cores, at(m.late_ms, 0.99),
      static_cast<long long>(m.num_leases));
  std::fflush(stdout);
  return absl::OkStatus();
}

class Server {
 public:
  Server(const Flags& flags, const TempDir& dir, const Closed* closed)
      : closed_(closed),
        program_(flags.Text("server", UNIQUANF_BINARY_DIR "/bin/uniquanf-server")),
        state_(flags.Text("state", dir.File("state.sqlite"))),
        dir_(dir) {}

  absl::Status Start(const std::string& listen) {
    std::filesystem::remove(dir_.File("ready"));
    std::vector<std::string> arguments = {
        "--listen=" + listen,         "--data-dir=" + dir_.File("server"),
        "--state=" + state_,          "--ready-file=" + dir_.File("ready"),
        "--lease-duration=10m",       "--tenant-max-running-jobs=0",
        "--tenant-max-queued-jobs=0", "--tenant-max-creates-per-second=0"};
    if (closed_ != nullptr) {
      for (const std::string& flag : closed_->ServerFlags()) arguments.push_back(flag);
    }
    process_ = std::make_unique<ChildProcess>(
        program_, arguments, std::map<std::string, std::string>{}, dir_.File("log"));
    const bool up = WaitUntil(
        [this] {
          std::ifstream file(dir_.File("ready"));
          return static_cast<bool>(file >> address_);
        },
        absl::Minutes(1));
    if (up) return absl::OkStatus();
    return absl::UnavailableError("the server does not come up:\n" + process_->Log());
  }
  void Kill() { process_->Kill(); }
  pid_t pid() const { return process_->pid(); }
  const std::string& address() const { return address_; }

 private:
  const Closed* const closed_;
  const std::string program_, state_;
  const TempDir& dir_;
  std::unique_ptr<ChildProcess> process_;
  std::string address_;
};

// One call of a worker, waited for; whether it brought a task.
absl::StatusOr<bool> Synchronize(v1::WorkerService::Stub* stub, Worker* worker) {
  grpc::ClientContext context;
  v1::SynchronizeResponse response;
  const grpc::Status status = stub->Synchronize(&context, *worker->NextRequest(), &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return worker->Took(response);
}

// Creates the jobs and finishes their first task, which makes their layers leasable.
absl::Status QueueTasks(const std::string& address, const Closed* closed,
                        const std::string& objects, int num_jobs) {
  const auto jobs = v1::JobService::NewStub(NewConnection(address, closed, /*of_user=*/true));
  for (int i = 0; i < num_jobs; ++i) {
    v1::CreateJobRequest request;
    request.set_job_id(absl::StrCat("job-", i));
    request.mutable_job()->set_tenant(absl::StrCat("tenant-", i % 10));
    v1::QuantizationSpec* spec = request.mutable_job()->mutable_spec();
    spec->set_model_uri("file:///models/none");
    spec->set_calibration_uri("file:///tokens/none");
    grpc::ClientContext context;
    v1::Job job;
    UQ_RETURN_IF_ERROR(FromGrpcStatus(jobs->CreateJob(&context, request, &job)));
    if (closed == nullptr) continue;
    const std::string folder = absl::StrCat(objects, "/work/", job.uid(), "/objects");
    std::filesystem::create_directories(folder);
    std::ofstream(absl::StrCat(folder, "/", Sha256Hex("result"))) << "result";
  }
  const auto stub = v1::WorkerService::NewStub(NewConnection(address, closed));
  Worker worker("lease-bench-prepare", kPrepareMemory);
  // The last call reports a finished prepare and takes nothing.
  for (int i = 0; i < num_jobs; ++i) {
    UQ_RETURN_IF_ERROR(Synchronize(stub.get(), &worker).status());
  }
  worker.NextRequest()->set_num_free_slots(0);
  return Synchronize(stub.get(), &worker).status();
}

absl::Status Run(const Flags& flags) {
  const int num_workers = static_cast<int>(flags.Number("workers", 1000));
  const int num_connections = static_cast<int>(flags.Number("connections", 50));
  const int queued = static_cast<int>(flags.Number("queued", 100000));
  const double rate = static_cast<double>(flags.Number("rate", 2000));
  const absl::Duration seconds = absl::Seconds(flags.Number("seconds", 20));
  const absl::Duration burst = absl::Seconds(flags.Number("burst_seconds", 3));
  const int fastest = static_cast<int>(flags.Number("fastest", 20000));
  const int wanted = queued + static_cast<int>(rate * absl::ToDoubleSeconds(seconds + kWarmUp)) +
                     static_cast<int>(fastest * absl::ToDoubleSeconds(burst + kWarmUp));
  const int num_jobs = (wanted + kLayersPerJob - 1) / kLayersPerJob;
  TempDir dir;
  const int num_bindings = static_cast<int>(flags.Number("bindings", 0));
  std::optional<Closed> ours;
  if (num_bindings > 0) ours.emplace(dir, num_bindings);
  const Closed* const closed = ours.has_value() ? &*ours : nullptr;
  Server server(flags, dir, closed);
  UQ_RETURN_IF_ERROR(server.Start("127.0.0.1:0"));
  const absl::Time queueing = absl::Now();
  UQ_RETURN_IF_ERROR(QueueTasks(server.address(), closed, dir.File("server/objects"), num_jobs));
  std::printf("%d workers over %d connections; %d jobs with %d tasks queued in %.1f s\n",
              num_workers, num_connections, num_jobs, num_jobs * kLayersPerJob,
              absl::ToDoubleSeconds(absl::Now() - queueing));
  {
    Fleet fleet(server.address(), closed, num_workers, num_connections);
    UQ_RETURN_IF_ERROR(
        Report(absl::StrCat("paced, ", rate, " tasks a second asked for"), server.pid(),
               [&] { return fleet.Run(absl::Seconds(num_workers / rate), seconds); }));
    UQ_RETURN_IF_ERROR(Report("back to back", server.pid(),
                              [&] { return fleet.Run(absl::ZeroDuration(), burst); }));
  }
  const absl::Time killed = absl::Now();
  server.Kill();
  const absl::Time starting = absl::Now();
  UQ_RETURN_IF_ERROR(server.Start(server.address()));
  const absl::Time ready = absl::Now();
  const auto stub = v1::WorkerService::NewStub(NewConnection(server.address(), closed));
  Worker worker("lease-bench-after", int64_t{8} << 30);
  while (true) {
    const absl::StatusOr<bool> leased = Synchronize(stub.get(), &worker);
    if (leased.ok() && *leased) break;
    if (absl::Now() - killed > absl::Minutes(1)) return absl::InternalError("no lease");
    absl::SleepFor(absl::Milliseconds(2));
  }
  std::printf(
      "recovery of %d tasks: %.2f s from the start of the new server to its next lease "
      "(%.2f s until it was ready), %.2f s from kill -9\n",
      num_jobs * kLayersPerJob, absl::ToDoubleSeconds(absl::Now() - starting),
      absl::ToDoubleSeconds(ready - starting), absl::ToDoubleSeconds(absl::Now() - killed));
  return absl::OkStatus();
}

}  // namespace
}  // namespace uniquanf::bench

int main(int argc, char** argv) {
  using uniquanf::bench::Flags;
  const absl::Status status = uniquanf::bench::Run(Flags(
      argc, argv, "Workers over gRPC: tasks a second, latency of a lease, recovery.",
      {{"state", "SQLite file or postgresql:// URI of an empty state (a temporary file)"},
       {"queued", "tasks still queued at the end (100000)"},
       {"workers", "simulated workers (1000)"},
       {"connections", "TCP connections that they share (50)"},
       {"rate", "tasks a second of the paced part (2000)"},
       {"seconds", "length of the paced part (20)"},
       {"burst_seconds", "length of the part back to back (3)"},
       {"fastest", "tasks a second to have enough of, back to back (20000)"},
       {"bindings",
        "mutual TLS, and a policy of so many bindings; results are proved (0: nobody is asked "
        "who he is)"},
       {"server", "program (the build's uniquanf-server)"}}));
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
